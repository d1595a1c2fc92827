package terraform

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// mirror builds the test provider into a provider mirror of unpacked packages
// (https://developer.hashicorp.com/terraform/cli/config/config-file#filesystem_mirror).
func mirror(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	to := filepath.Join(dir, "registry.terraform.io/greenroom/room/1.0.0", runtime.GOOS+"_"+runtime.GOARCH, "terraform-provider-room_v1.0.0")
	cmd := exec.CommandContext(testContext(t), "go", "build", "-o", to, ".")
	cmd.Dir = filepath.Join("..", "..", "integration", "providers")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the test provider, which needs go and its module cache or a network: %v\n%s", err, out)
	}
	return dir
}

func TestAGuestThatItsProviderTookAwayIsFoundAndReplaced(t *testing.T) {
	f := newFleet(t, newDriver(t, func(o *Options) { o.Mirror = mirror(t) }))
	machines := t.TempDir()
	f.module, f.vars = "testdata/machines", map[string]any{"dir": machines}
	f.must(f.job([]string{"p-1", "p-2", "p-3"}, nil, nil))
	locks, err := filepath.Glob(filepath.Join(f.driver.opts.StateDir, "modules", "*"+lockFile))
	if err != nil || len(locks) != 1 {
		t.Error("the providers' lock is shared with the next shards:", locks, err)
	}
	vanish := func(guest string) {
		t.Helper()
		if err := os.Remove(filepath.Join(machines, guest)); err != nil {
			t.Fatal(err)
		}
	}
	vanish("p-2")

	job := f.job(nil, nil, nil)
	job.DriftOnly = true
	out := f.must(job)
	if diff := cmp.Diff([]string{"p-2"}, out.Vanished); diff != "" {
		t.Error("a drift check:", diff)
	}
	if diff := cmp.Diff(map[string]string{"p-1": "p-1/1", "p-3": "p-3/1"}, ids(out)); diff != "" {
		t.Error("a drift check:", diff)
	}

	out = f.run(f.job(nil, []string{"p-1"}, nil))
	if kindOf(out) != FaultDrift || out.Err.Stalled() || !strings.Contains(out.Err.Message, "p-2") {
		t.Error(out.Err)
	}
	if diff := cmp.Diff([]string{"p-2"}, out.Vanished); diff != "" {
		t.Error("a run that did not claim it:", diff)
	}
	if diff := cmp.Diff(map[string]string{"p-1": "p-1/1", "p-3": "p-3/1"}, ids(out)); diff != "" {
		t.Error("nothing was applied:", diff)
	}

	f.guests["p-1"] = Guest{Incarnation: 1}
	out = f.must(f.job(nil, []string{"p-1", "p-2"}, nil))
	if diff := cmp.Diff(map[string]string{"p-1": "p-1/2", "p-2": "p-2/2", "p-3": "p-3/1"}, ids(out)); diff != "" {
		t.Error(diff)
	}

	vanish("p-1")
	vanish("p-3")
	out = f.must(f.job(nil, []string{"p-3"}, []string{"p-1"}))
	if diff := cmp.Diff(map[string]string{"p-2": "p-2/2", "p-3": "p-3/2"}, ids(out)); diff != "" {
		t.Error(diff)
	}
}

func TestAMirrorIsUsedAndNothingElse(t *testing.T) {
	f := newFleet(t, newDriver(t, func(o *Options) { o.Mirror = t.TempDir() }))
	f.module, f.vars = "testdata/machines", map[string]any{"dir": t.TempDir()}
	out := f.run(f.job([]string{"p-1"}, nil, nil))
	if kindOf(out) != FaultInit || !strings.Contains(out.Err.Message, "greenroom/room") {
		t.Error(out.Err)
	}
}
