package main

import (
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestDemoScripts runs testdata/demo; guests that a failed script left are stopped.
func TestDemoScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/demo",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("GORACE", "atexit_sleep_ms=0") // else every process built with -race sleeps for a second when it ends
			env.Defer(func() {
				stopGuests(t, filepath.Join(env.WorkDir, "d", "state", "guests"))
				stopGuests(t, filepath.Join(env.WorkDir, "tmp", "*", "state", "guests"))
			})
			return nil
		},
	})
}
