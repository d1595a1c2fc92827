package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/plan"
)

// onTerminal runs a command line whose stderr is a terminal, and returns what was written to both.
func onTerminal(t *testing.T, cols uint16, args ...string) (code int, stdout, screen string) {
	t.Helper()
	t.Setenv("TERM", "xterm")
	s := newTerminal(t, 24, cols)
	var out strings.Builder
	code = run(t.Context(), args, strings.NewReader(""), &out, s.tty)
	s.unchanged(t)
	return code, out.String(), s.close()
}

// stood is a server whose pool local stands like this at each look, and goes on as in the last.
func stood(t *testing.T, looks ...client.Pool) *httptest.Server {
	t.Setenv("GREENROOM_TOKEN", "gr_TEST")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_ = json.NewEncoder(w).Encode(client.Reconcile{Pools: []string{"local"}})
			return
		}
		now := looks[0]
		looks = looks[min(1, len(looks)-1):]
		_ = json.NewEncoder(w).Encode(client.Status{Status: condition.Status{Revision: "abc"}, Pools: []client.Pool{now, {PoolStatus: condition.PoolStatus{Pool: "other"}}}})
	}))
	t.Cleanup(server.Close)
	return server
}

func aPool(t condition.Type, message string) client.Pool {
	return client.Pool{PoolStatus: condition.PoolStatus{
		Pool: "local", Guests: map[lease.State]int{lease.Booting: 2},
		Conditions: []condition.Condition{{Type: t, Status: true, Message: message}},
	}}
}

func TestWaitingForPoolsEndsWhenTheyHaveConvergedOrNeverWill(t *testing.T) {
	ready, busy, stalled := aPool(condition.Ready, ""), aPool(condition.Reconciling, "run 7\x1b[2J"), aPool(condition.Stalled, "no such image\nat all")
	paused := ready
	paused.Pause = &lease.Pause{By: "root"}
	for name, c := range map[string]struct {
		looks          []client.Pool
		wait           string
		code           int
		stdout, stderr string
	}{
		"it converges":                 {[]client.Pool{busy, ready}, "1m", 0, "Ready", ""},
		"ready once is not enough":     {[]client.Pool{ready, busy}, "700ms", 1, "", `greenroom: not converged after 700ms: local (2 booting; Reconciling: run 7\x1b[2J)` + "\n"},
		"stalled from before the look": {[]client.Pool{stalled, busy, ready}, "1m", 0, "Ready", ""},
		"it is stalled":                {[]client.Pool{busy, stalled}, "1m", 1, "", "greenroom: pool local is stalled: no such image\n"},
		"it is paused":                 {[]client.Pool{paused}, "1m", 1, "", "greenroom: pool local is paused by root; see \"greenroom pool resume\"\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got := execute(t.Context(), "reconcile", "local", "--wait", c.wait, "--server", stood(t, c.looks...).URL)
			if got.code != c.code || !strings.Contains(got.stdout, c.stdout) || strings.Contains(got.stdout, "other") || got.stderr != c.stderr {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestOnATerminalALineSaysWhatIsWaitedFor(t *testing.T) {
	ready, busy := aPool(condition.Ready, ""), aPool(condition.Reconciling, "run 7\x1b[2J")
	code, stdout, screen := onTerminal(t, 100, "reconcile", "--wait", "1m", "--server", stood(t, busy, busy, busy, ready).URL, "local")
	for _, want := range []string{"\r\x1b[Kconverging: local (2 booting; Reconciling: run 7\\x1b[2J)", "run 7\\x1b[2J) 1s"} {
		if !strings.Contains(screen, want) {
			t.Errorf("no %q in %q", want, screen)
		}
	}
	if code != 0 || !strings.Contains(stdout, "Ready") || strings.Contains(stdout, "\x1b") || !strings.HasSuffix(screen, "\r\x1b[K") || strings.Contains(screen, "\n") {
		t.Errorf("exit code %d\n%s\n%q", code, stdout, screen)
	}
}

func TestALineOfProgressIsNoWiderThanItsTerminal(t *testing.T) {
	_, _, screen := onTerminal(t, 20, "reconcile", "--wait", "1m", "--server", stood(t, aPool(condition.Reconciling, "run 7"), aPool(condition.Ready, "")).URL, "local")
	if want := "\r\x1b[Kconverging: local …\r"; !strings.HasPrefix(screen, want) {
		t.Errorf("no %q in %q", want, screen)
	}
}

func TestWhatIsSaidMeanwhileStandsOnALineOfItsOwn(t *testing.T) {
	t.Setenv("GREENROOM_TOKEN", "gr_TEST")
	making := plan.Plan{ID: "p1", Phase: plan.Making}
	server := httptest.NewServer(&told{plans: []plan.Plan{making, {ID: "p1", Phase: plan.Replaced, ReplacedBy: "p2"}, {ID: "p2", Phase: plan.Making}, {ID: "p2", Phase: plan.Ready}}})
	defer server.Close()
	code, stdout, screen := onTerminal(t, 100, "plan", "show", "p1", "--server", server.URL)
	want := "\r\x1b[Kmaking the plan…\r\x1b[Kgreenroom: plan p1 was replaced by plan p2\r\n\r\x1b[Kmaking the plan…"
	if code != 0 || !strings.Contains(stdout, "No changes") || !strings.HasPrefix(screen, want) || !strings.HasSuffix(screen, "\r\x1b[K") {
		t.Errorf("exit code %d\n%s\n%q", code, stdout, screen)
	}
}

func TestADumbTerminalGetsNoProgressAndTopPrintsOnce(t *testing.T) {
	for _, args := range [][]string{
		{"reconcile", "local", "--wait", "1m", "--server", stood(t, aPool(condition.Reconciling, ""), aPool(condition.Ready, "")).URL},
		{"top", "--server", aHouse(t).URL},
	} {
		t.Setenv("TERM", "dumb")
		s := newTerminal(t, 24, 100)
		if code := run(context.Background(), args, s.tty, s.tty, s.tty); code != 0 {
			t.Errorf("%v: exit code %d", args, code)
		}
		if out := s.close(); strings.Contains(out, "\x1b") {
			t.Errorf("%v: %q", args, out)
		}
	}
}
