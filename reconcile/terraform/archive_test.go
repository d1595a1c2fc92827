package terraform

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTheArchiveKeepsTheNewestStatesForAWhile(t *testing.T) {
	now := time.Now()
	for name, test := range map[string]struct {
		ages []time.Duration // of what is there, the newest first
		want int             // of it stay
	}{
		"few":      {[]time.Duration{time.Hour, archivedFor - time.Hour}, 2},
		"too old":  {[]time.Duration{time.Hour, archivedFor + time.Hour, 2 * archivedFor}, 1},
		"too many": {make([]time.Duration, keepArchived+5), keepArchived - 1},
	} {
		t.Run(name, func(t *testing.T) {
			d := &Driver{opts: Options{StateDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}}
			all, want := filepath.Join(d.opts.StateDir, "archive"), map[string]bool{}
			for i, age := range test.ages {
				name := fmt.Sprintf("shard-%d-then", i)
				archivedAt(t, filepath.Join(all, name), now.Add(-age-time.Duration(i+1)*time.Minute))
				if i < test.want {
					want[name] = true
				}
			}
			dir := d.shard("last")
			archivedAt(t, dir.backups(), now.Add(-2*archivedFor)) // a state that was left alone for long is archived now
			if err := d.archive(dir, "last", now); err != nil {
				t.Fatal(err)
			}
			want["last-"+now.UTC().Format("20060102T150405.000000000")] = true
			entries, err := os.ReadDir(all)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]bool{}
			for _, e := range entries {
				got[e.Name()] = true
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// archivedAt makes a directory with a state, as of a time.
func archivedAt(t *testing.T, dir string, at time.Time) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x.tfstate"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(dir, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestAStartClearsTheArchive(t *testing.T) {
	state := t.TempDir()
	old, young := filepath.Join(state, "archive", "old-then"), filepath.Join(state, "archive", "young-then")
	archivedAt(t, old, time.Now().Add(-2*archivedFor))
	archivedAt(t, young, time.Now().Add(-time.Hour))
	newDriver(t, func(o *Options) { o.StateDir = state })
	if exists(old) || !exists(young) {
		t.Errorf("the old one is there: %v, and the young one: %v", exists(old), exists(young))
	}
}
