package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The README promises that "make demo" needs nothing but Go, make and a network.
func TestMakeDemoWorksFromACleanClone(t *testing.T) {
	clone := filepath.Join(t.TempDir(), "greenroom")
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Env = append(os.Environ(), "TF_CLI_CONFIG_FILE=/nonexistent")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	run("git", "clone", "--quiet", "--no-hardlinks", "..", clone)
	out := run("make", "-C", clone, "demo", "ARGS=--exit")
	for _, step := range []string{"guests ready", "a hit", "command inside the guest", "shelved", "the same guest", "kill -9", "warm raised", "nothing is left behind"} {
		if !strings.Contains(out, step) {
			t.Errorf("the walk lacks %q:\n%s", step, out)
		}
	}
	if left := run("git", "-C", clone, "status", "--porcelain"); left != "" {
		t.Errorf("make demo leaves files that git does not ignore:\n%s", left)
	}
}
