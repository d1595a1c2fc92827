package watchdog

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"greenroom/lease"
	"greenroom/specs"
)

// hands are fake guests that die and recover at the test's word.
type hands struct {
	mu    sync.Mutex
	down  map[string]Outcome
	took  time.Duration
	asked map[string][]time.Time
}

func newHands() *hands { return &hands{down: map[string]Outcome{}, asked: map[string][]time.Time{}} }

func (h *hands) set(o Outcome, names ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range names {
		h.down[n] = o
	}
}

func (h *hands) probe(_ context.Context, g lease.Guest, s specs.Probe) Result {
	r := Result{Kind: s.Kind, At: time.Now(), Outcome: OK, Detail: "fine"}
	time.Sleep(h.took)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked[g.Name] = append(h.asked[g.Name], r.At)
	if o := h.down[g.Name]; o != "" {
		r.Outcome, r.Detail = o, "connection refused"
	}
	r.Took = time.Since(r.At)
	return r
}

func (h *hands) probes(name string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.asked[name])
}

func names(guests []lease.Guest) []string {
	out := make([]string, len(guests))
	for i, g := range guests {
		out[i] = g.Name
	}
	return out
}

func (y *yard) states(state lease.State) int {
	y.t.Helper()
	guests, err := y.Guests(y.t.Context(), y.fleet.Pools[0].Name)
	if err != nil {
		y.t.Fatal(err)
	}
	n := 0
	for _, g := range guests {
		if g.State == state {
			n++
		}
	}
	return n
}

func pool20() specs.Pool {
	return specs.Pool{Name: "p", Max: 20, Spare: 20, Probes: []specs.Probe{{Kind: "ssh", Every: time.Second, Timeout: 300 * time.Millisecond, Failures: 3}}}
}

func TestTwoOfTwentyAreTainted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y, h := newYard(t, pool20()), newHands()
		all := names(y.shelve("p", 20))
		w := run(t, y, Options{}, h.probe)
		eventually(t, "all are probed", func() bool { return h.probes(all[19]) > 0 })
		h.set(Failed, all[3], all[11])
		eventually(t, "two are tainted", func() bool { return y.states(lease.Tainted) == 2 })
		time.Sleep(time.Minute)
		if n := y.states(lease.Tainted); n != 2 || len(w.Brakes()) > 0 {
			t.Errorf("%d are tainted, brakes %v", n, w.Brakes())
		}
		if g := y.guest(all[3]); g.Reason != "dead" || g.Evidence == "" {
			t.Errorf("tainted for %q with evidence %q", g.Reason, g.Evidence)
		}
	})
}

func TestTwelveOfTwentyHoldTheBrakeUntilFewerAreUnhealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y, h := newYard(t, pool20()), newHands()
		all := names(y.shelve("p", 20))
		w := run(t, y, Options{}, h.probe)
		eventually(t, "all are probed", func() bool { return h.probes(all[19]) > 0 })
		h.set(Failed, all[:12]...)
		eventually(t, "the brake is on", func() bool { return len(w.Brakes()) == 1 })
		time.Sleep(time.Minute)
		want := "12 of 20 guests are unhealthy, more than 40%: nobody is tainted until at most 6 are"
		if n := y.states(lease.Tainted); n != 0 || w.Brakes()["p"] != want {
			t.Errorf("%d are tainted, brakes %v", n, w.Brakes())
		}
		h.set(OK, all[:7]...)
		eventually(t, "the other five are tainted", func() bool { return y.states(lease.Tainted) == 5 })
		if n := len(w.Brakes()); n != 0 {
			t.Errorf("brakes %v", w.Brakes())
		}
	})
}
