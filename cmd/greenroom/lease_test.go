package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
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

func TestAHoldBeyondTheBudgetIsToldWithWhatHelps(t *testing.T) {
	t.Setenv("GREENROOM_TOKEN", "gr_TEST")
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		_, _ = w.Write([]byte(`{"status": 409, "code": "hold_budget", "detail": "the budget of holds is used up"}`))
	}))
	defer web.Close()
	const help = `greenroom: the budget of holds is used up (taint a held guest with "greenroom guest taint GUEST", or raise hold { max } in the spec)`
	for line, want := range map[string]string{
		"guest hold local-1 --for 1h": help + "\n",
		"release ci.X --hold 1h":      help + "; the lease goes on meanwhile: release it without --hold\n",
	} {
		if got := execute(t.Context(), append(strings.Fields(line), "--server", web.URL)...); got.code != 1 || got.stderr != want {
			t.Errorf("%s: %+v, want %q", line, got, want)
		}
	}
}
