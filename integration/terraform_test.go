package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// terraform is the real one, behind a script that notes each process with its arguments: what was started is known from
// the outside.
type terraform struct {
	t         *testing.T
	path, log string
}

func newTerraform(t *testing.T) *terraform {
	t.Helper()
	found, err := exec.LookPath("terraform")
	if err != nil {
		t.Fatalf("terraform is missing (make install): %v", err)
	}
	dir := t.TempDir()
	tf := &terraform{t, filepath.Join(dir, "terraform"), filepath.Join(dir, "log")}
	script := "#!/bin/sh\necho \"$*\" >> '" + tf.log + "'\nexec '" + found + "' \"$@\"\n"
	noError(t, os.WriteFile(tf.path, []byte(script), 0o700))
	return tf
}

// runs lists the command lines of all processes so far.
func (tf *terraform) runs() []string {
	tf.t.Helper()
	text := must(os.ReadFile(tf.log))(tf.t)
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}
