// Package tools_test checks what the Makefile's scripts tolerate.
package tools_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// govulncheck builds the pinned govulncheck.
func govulncheck(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "govulncheck")
	if out, err := exec.Command("go", "build", "-o", bin, "golang.org/x/vuln/cmd/govulncheck").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return bin
}

func TestOnlyAnUnreachableDatabaseIsTolerated(t *testing.T) {
	bin := govulncheck(t)
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "broken", http.StatusInternalServerError)
	}))
	defer broken.Close()
	gone := httptest.NewServer(nil) // the way to the real database, for which the tool is made
	gone.Close()
	local := func(dir string) string {
		path, err := filepath.Abs(filepath.Join("testdata", dir))
		if err != nil {
			t.Fatal(err)
		}
		return "file://" + path
	}
	for name, test := range map[string]struct {
		db     string
		passes bool
		says   string
	}{
		"nothing is known":      {local("vulndb-empty"), true, "No vulnerabilities found"},
		"a finding":             {local("vulndb"), false, "GO-2026-0001"},
		"no database":           {"https://vuln.go.dev", true, "NOT CHECKED for known vulnerabilities"},
		"a database that fails": {broken.URL, false, "unrecognized vulndb format"},
		"a wrong address":       {"ftp://nowhere.invalid", false, "ftp"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("sh", "../../vuln.sh", bin, "-db", test.db, ".")
			cmd.Dir = filepath.Join("testdata", "program")
			cmd.Env = append(os.Environ(), "HTTPS_PROXY="+gone.URL, "NO_PROXY=127.0.0.1")
			out, err := cmd.CombinedOutput()
			if (err == nil) != test.passes || !strings.Contains(string(out), test.says) {
				t.Errorf("%v, and %q is wanted in:\n%s", err, test.says, out)
			}
		})
	}
}
