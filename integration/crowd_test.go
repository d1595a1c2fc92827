package integration

import (
	"context"
	"maps"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"greenroom/lease"
	"greenroom/lease/client"
)

// crowd is clients that hold leases. While it is still, those who have a lease keep it and nobody else gets one.
type crowd struct {
	*house
	*held
	longest time.Duration                            // that somebody keeps a guest
	wish    func() (cache string, mayBeRefused bool) // what the next request is for
	floor   sync.RWMutex                             // read-held while somebody has a lease or asks for one
	gate    sync.RWMutex                             // read-held while a lease is acquired or released
	mu      sync.Mutex
	leases  map[string]client.Lease // held, by id
	pids    map[string]int          // of their guests
	granted int
	leave   context.CancelFunc
	members sync.WaitGroup
}

// newCrowd is a crowd that wants guests of cache ci.
func newCrowd(h *house, longest time.Duration) *crowd {
	return &crowd{
		house: h, held: newHeld(h.T), longest: longest, wish: func() (string, bool) { return "ci", false },
		leases: map[string]client.Lease{}, pids: map[string]int{},
	}
}

// come lets n clients lease until the crowd's end.
func (c *crowd) come(n int) {
	ctx, leave := context.WithCancel(context.Background())
	c.leave = leave
	for range n {
		c.members.Go(func() {
			for ctx.Err() == nil && !c.Failed() {
				c.hold()
			}
		})
	}
	c.Cleanup(c.end)
}

func (c *crowd) end() {
	c.leave()
	c.members.Wait()
}

func (c *crowd) still(do func()) {
	c.gate.Lock()
	defer c.gate.Unlock()
	do()
}

// hold is one lease from its request to its release. The client tries again while the server is away, by the same
// idempotency key; the lease is renewed in the background.
func (c *crowd) hold() {
	c.floor.RLock()
	defer c.floor.RUnlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l, ok := c.begin(ctx)
	if !ok {
		return
	}
	beating, end := context.WithCancel(ctx)
	lost := c.api.KeepAlive(beating, l, client.Heartbeat{Renewed: func(r client.Lease) {
		if principal(r.Guest) != principal(l.Guest) {
			c.Errorf("lease %s had guest %s and has %s", l.ID, principal(l.Guest), principal(r.Guest))
		}
	}})
	select {
	case err := <-lost:
		c.Errorf("lease %s on %s: %v", l.ID, principal(l.Guest), err)
	case <-time.After(rand.N(c.longest)):
	}
	c.gate.RLock()
	defer c.gate.RUnlock()
	end()
	for range lost { // until the heartbeat has ended
	}
	c.finish(l)
	if _, err := c.api.Release(ctx, l.ID, client.Release{Outcome: "pass"}); err != nil {
		c.Errorf("release: %v", err)
	}
}

// begin acquires a guest, which has one process.
func (c *crowd) begin(ctx context.Context) (l client.Lease, ok bool) {
	c.gate.RLock()
	defer c.gate.RUnlock()
	cache, mayBeRefused := c.wish()
	l, err := c.api.Acquire(ctx, client.Request{Cache: cache}, nil)
	if err != nil {
		if !mayBeRefused || ctx.Err() != nil {
			c.Errorf("acquire: %v", err)
		}
		return l, false
	}
	c.take(l)
	pids := c.living()[principal(l.Guest)]
	c.mu.Lock()
	defer c.mu.Unlock()
	c.granted++
	c.leases[l.ID] = l
	if len(pids) != 1 {
		c.Errorf("lease %s: guest %s has the processes %v, want one", l.ID, principal(l.Guest), pids)
		return l, true
	}
	c.pids[l.ID] = pids[0]
	return l, true
}

func (c *crowd) finish(l client.Lease) {
	c.give(l)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.leases, l.ID)
	delete(c.pids, l.ID)
}

// mine are the leases that the crowd holds, and the processes of their guests.
func (c *crowd) mine() (leases map[string]client.Lease, pids map[string]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.leases), maps.Clone(c.pids)
}

// check holds what the server says, after it has converged, against what the crowd has and what lives, and returns all guests.
// Each is on a shelf or leased.
func (c *crowd) check(when string) map[string]lease.Guest {
	c.Helper()
	mine, pids := c.mine()
	guests := c.guests()
	leased := map[string]string{}
	for _, g := range guests {
		switch g.State {
		case lease.Shelved:
		case lease.Leased:
			leased[g.Lease] = g.Principal()
		default:
			c.Errorf("%s: guest %s is %s", when, g.Principal(), g.State)
		}
	}
	for id, l := range mine {
		now, err := c.api.Lease(c.Context(), id)
		if err != nil || now.Phase != lease.Active || principal(now.Guest) != principal(l.Guest) {
			c.Errorf("%s: lease %s on %s is lost: %+v, %v", when, id, principal(l.Guest), now, err)
		}
		if leased[id] != principal(l.Guest) {
			c.Errorf("%s: lease %s is on %s, and the guests say on %q", when, id, principal(l.Guest), leased[id])
		}
		if err := syscall.Kill(pids[id], 0); err != nil {
			c.Errorf("%s: process %d of leased guest %s: %v", when, pids[id], principal(l.Guest), err)
		}
		delete(leased, id)
	}
	if len(leased) > 0 {
		c.Errorf("%s: leased to nobody: %v", when, leased)
	}
	c.matched()
	return guests
}

// shelves counts the guests on the shelf of each cache.
func shelves(guests map[string]lease.Guest) map[string]int {
	n := map[string]int{}
	for _, g := range guests {
		if g.State == lease.Shelved {
			n[g.Cache]++
		}
	}
	return n
}
