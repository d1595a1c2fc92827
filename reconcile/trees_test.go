package reconcile

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"greenroom/reconcile/terraform"
	"greenroom/specs"
)

func fleetOfModule(dir string) *specs.Fleet {
	return &specs.Fleet{Pools: []*specs.Pool{{Name: "bundled"}, {Name: "own", ModuleDir: dir}}}
}

func TestModulesAreNeededByTheFleetInForceByThoseThatComeAndByShards(t *testing.T) {
	l := New(Options{})
	l.recipes["p"], l.recipes["remote"] = recipe{Tree: "bundled"}, recipe{Source: "git::https://example.org/m"}
	l.fleet, l.restored, l.offered = fleetOfModule("/s/modules/in-force"), fleetOfModule("/s/modules/restored"), &Revision{Fleet: fleetOfModule("/s/modules/offered")}
	l.remember("drains", shardMeta{Recipe: recipe{Pool: "p", Tree: "old"}})
	want := map[string]bool{"bundled": true, "in-force": true, "restored": true, "offered": true, "old": true, "": true, ".": true}
	if diff := cmp.Diff(want, l.neededModules()); diff != "" {
		t.Error(diff)
	}
}

func TestModulesAreRemovedAtTheStartAndEveryDay(t *testing.T) {
	dir := t.TempDir()
	driver, err := terraform.New(t.Context(), terraform.Options{StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	l := New(Options{Now: func() time.Time { return now }})
	l.driver, l.recipes["p"] = driver, recipe{Tree: "needed"}
	unused, needed := filepath.Join(dir, "modules", "unused"), filepath.Join(dir, "modules", "needed")
	prune := func() (left bool) {
		t.Helper()
		for _, tree := range []string{unused, needed} {
			if err := os.MkdirAll(tree, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(tree, now.AddDate(0, 0, -8), now.AddDate(0, 0, -8)); err != nil {
				t.Fatal(err)
			}
		}
		l.pruneModules(t.Context())
		l.runs.Wait()
		if _, err := os.Stat(needed); err != nil {
			t.Error(err)
		}
		_, err := os.Stat(unused)
		return err == nil
	}
	atStart := prune()
	now = now.Add(pruneEvery - time.Minute)
	sooner := prune()
	now = now.Add(time.Minute)
	if later := prune(); atStart || !sooner || later {
		t.Errorf("an unused module is there after the start: %t, before a day: %t, after it: %t", atStart, sooner, later)
	}
}
