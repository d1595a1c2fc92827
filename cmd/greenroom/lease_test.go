package main

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"greenroom/internal/guestd"
)

// TestLeaseScripts runs testdata/lease on a real server; guests that a failed script left are stopped.
func TestLeaseScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/lease",
		RequireExplicitExec: true,
		Deadline:            time.Now().Add(2 * time.Minute),
		Setup: func(env *testscript.Env) error {
			env.Setenv("GORACE", "atexit_sleep_ms=0") // else every process built with -race sleeps for a second when it ends
			env.Setenv("GREENROOM_STATE_DIR", filepath.Join(env.WorkDir, "s"))
			env.Defer(func() { stopGuests(t, filepath.Join(env.WorkDir, "s", "guests")) })
			return nil
		},
	})
}

func stopGuests(t *testing.T, dir string) {
	guests, err := filepath.Glob(filepath.Join(dir, "*", "guestd.lock"))
	if err != nil {
		t.Error(err)
	}
	for _, lock := range guests {
		if err := guestd.Stop(context.Background(), filepath.Dir(lock)); err != nil {
			t.Error(err)
		}
	}
}
