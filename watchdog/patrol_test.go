package watchdog

import (
	"context"
	"sync"
	"time"

	"greenroom/lease"
	"greenroom/specs"
)

// hands are fake guests that die and recover at the test's word.
type hands struct {
	mu     sync.Mutex
	down   map[string]Outcome
	took   time.Duration
	asked  map[string][]time.Time
	now    int // probes under way
	atOnce int // most probes that ever were
}

// pass lets time pass in a synctest bubble.
func pass(d time.Duration) { <-time.After(d) }

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
	h.mu.Lock()
	h.asked[g.Name] = append(h.asked[g.Name], r.At)
	h.now++
	h.atOnce = max(h.atOnce, h.now)
	took := h.took
	h.mu.Unlock()
	pass(took)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now--
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
