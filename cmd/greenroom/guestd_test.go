package main

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"greenroom/internal/guestd"
)

// TestGuestdScripts runs testdata/guestd; a guest that a failed script left is stopped.
func TestGuestdScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/guestd",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Defer(func() {
				if err := guestd.Stop(context.Background(), filepath.Join(env.WorkDir, "guests", "local-1.1")); err != nil {
					t.Error(err)
				}
			})
			return nil
		},
	})
}
