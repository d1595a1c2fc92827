package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creack/pty"
)

const editable = "pool \"local\" {\n  module = \"local\"\n  max    = 8\n}\n"

func specsToEdit(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "fleet.hcl"), []byte(editable), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestADifferenceIsColoredOnATerminalUnlessNoColorIsSet(t *testing.T) {
	for noColor, want := range map[string]string{"": "\x1b[32m+  max    = 9\x1b[m\r\n", "1": "\n+  max    = 9\r\n"} {
		t.Setenv("NO_COLOR", noColor)
		t.Setenv("TERM", "xterm")
		screen, tty, err := pty.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer screen.Close()
		code := run(t.Context(), []string{"pool", "set", "local", "max=9", "--dry-run", "--specs", specsToEdit(t)}, nil, tty, io.Discard)
		if err := tty.Close(); err != nil || code != 0 {
			t.Errorf("the edit ended with %d: %v", code, err)
		}
		got, _ := io.ReadAll(screen) // ends with an error once the other side is closed
		if !strings.Contains(string(got), want) {
			t.Errorf("with NO_COLOR=%q there is no %q in %q", noColor, want, got)
		}
	}
}

func TestACommitWithoutGitChangesNothing(t *testing.T) {
	dir := specsToEdit(t)
	t.Setenv("PATH", t.TempDir())
	var stderr bytes.Buffer
	code := run(t.Context(), []string{"pool", "set", "local", "max=9", "--commit", "--specs", dir}, nil, io.Discard, &stderr)
	if want := "--commit needs git, and there is none on PATH: install it, or leave --commit out; nothing was changed"; code != 1 || !strings.Contains(stderr.String(), want) {
		t.Errorf("got %d and %q, want %q", code, stderr.String(), want)
	}
	got, err := os.ReadFile(filepath.Join(dir, "fleet.hcl"))
	if err != nil || string(got) != editable {
		t.Errorf("got %s: %v", got, err)
	}
}
