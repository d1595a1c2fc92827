package integration

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/lease/leasetest"
)

const (
	loadClients = 200
	loadGuests  = 20
	loadTime    = 10 * time.Second
)

func Test200ClientsShare20Guests(t *testing.T) {
	t.Run("on the embedded store", func(t *testing.T) { load(t, options{raced: true}) })
	t.Run("on a real Redis", func(t *testing.T) { load(t, options{raced: true, redis: leasetest.Redis(t).URL}) })
}

func load(t *testing.T, o options) {
	h := newHouse(t, o)
	h.write(fleet{max: loadGuests, warm: loadGuests, size: loadGuests})
	h.start()
	h.converged()

	held := newHeld(t)
	var granted, hits atomic.Int64
	var mu sync.Mutex
	var leases []client.Lease
	var clients, watching sync.WaitGroup
	done := make(chan struct{})
	watching.Go(func() { h.watchMax(done) })
	end := time.Now().Add(loadTime)
	for range loadClients {
		clients.Go(func() {
			api := must(client.New(client.Options{Addr: h.path("state/greenroom.sock"), Retry: -1}))(t)
			defer api.Close()
			for time.Now().Before(end) {
				l, err := api.Acquire(t.Context(), client.Request{Cache: "ci"}, nil)
				if err != nil {
					t.Errorf("acquire: %v", err)
					return
				}
				granted.Add(1)
				if l.Hit {
					hits.Add(1)
				}
				held.take(l)
				held.give(l)
				if _, err := api.Release(t.Context(), l.ID, client.Release{Outcome: "pass"}); err != nil {
					t.Errorf("release: %v", err)
					return
				}
				mu.Lock()
				leases = append(leases, l)
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	close(done)
	watching.Wait()
	t.Logf("%d leases granted in %v, %d of them hits", granted.Load(), loadTime, hits.Load())
	if waited := granted.Load() - hits.Load(); waited < loadClients {
		t.Errorf("only %d of %d clients had to wait: that is no load", waited, loadClients)
	}
	h.shelved(loadGuests) // those released last are still being reset
	h.counted(granted.Load(), hits.Load())
	inOrder(t, leases)
	h.matched()
}

// watchMax looks at the API all the time that a load is on.
func (h *house) watchMax(done <-chan struct{}) {
	looks := 0
	for {
		select {
		case <-done:
			if looks < 10 {
				h.Errorf("only %d looks at the guests while the load was on", looks)
			}
			return
		default:
		}
		looks++
		c, err := h.api.Cache(h.Context(), "ci")
		if err != nil {
			h.Error(err)
			return
		}
		n := 0
		for _, k := range c.Guests {
			n += k
		}
		guests, err := h.api.Guests(h.Context(), "")
		if err != nil || n > loadGuests || len(guests) > loadGuests || c.Leases > loadGuests {
			h.Errorf("%d guests and %d leases in the cache, %d guests in all, want at most %d: %v", n, c.Leases, len(guests), loadGuests, err)
		}
	}
}

// counted holds the server's counters against what the clients have counted.
func (h *house) counted(granted, hits int64) {
	h.Helper()
	c := must(h.api.Cache(h.Context(), "ci"))(h)
	if c.Hits != hits || c.Misses != granted-hits {
		h.Errorf("the cache counts %d hits and %d misses; the clients got %d and %d", c.Hits, c.Misses, hits, granted-hits)
	}
	for series, want := range map[string]int64{
		`greenroom_cache_hits_total{cache="ci"}`:                    hits,
		`greenroom_cache_misses_total{cache="ci"}`:                  granted - hits,
		`greenroom_leases_ended_total{cache="ci"`:                   granted,
		`greenroom_leases_ended_total{cache="ci",how="released"}`:   granted,
		`greenroom_lease_wait_seconds_count{cache="ci"`:             granted,
		`greenroom_leases{cache="ci"}`:                              0,
		`greenroom_queue_length{cache="ci"}`:                        0,
		`greenroom_guests{cache="ci",pool="local",state="shelved"}`: loadGuests,
	} {
		if got := h.metric(series); got != float64(want) {
			h.Errorf("%s is %v, want %d", series, got, want)
		}
	}
}

// inOrder asserts that nobody who asked later was granted earlier. Times are the store's, in whole milliseconds: those of the
// same one may have come in any order.
func inOrder(t *testing.T, leases []client.Lease) {
	t.Helper()
	slices.SortFunc(leases, func(a, b client.Lease) int { return a.Created.Compare(b.Created) })
	var last, before client.Lease // granted last of those created before; of those created in an earlier millisecond
	for i, l := range leases {
		if i > 0 && l.Created.After(leases[i-1].Created) {
			before = last
		}
		if l.Granted.Before(before.Granted) {
			t.Fatalf("asked for at %v and granted at %v, after one asked for at %v and granted at %v",
				before.Created, before.Granted, l.Created, l.Granted)
		}
		if l.Granted.After(last.Granted) {
			last = l
		}
	}
}

// held is who holds what, as the holders see it.
type held struct {
	t  *testing.T
	by sync.Map // "<name>.<incarnation>" -> lease id
}

func newHeld(t *testing.T) *held { return &held{t: t} }

func principal(g *client.Guest) string {
	return lease.Guest{Name: g.Name, Incarnation: g.Incarnation}.Principal()
}

// take marks a guest as held; a second mark means that it has two holders.
func (h *held) take(l client.Lease) {
	if other, twice := h.by.LoadOrStore(principal(l.Guest), l.ID); twice {
		h.t.Errorf("guest %s has two holders: %s and %s", principal(l.Guest), other, l.ID)
	}
}

// give takes the mark away, before the guest is given back.
func (h *held) give(l client.Lease) {
	if !h.by.CompareAndDelete(principal(l.Guest), l.ID) {
		h.t.Errorf("guest %s was not held by %s any more", principal(l.Guest), l.ID)
	}
}
