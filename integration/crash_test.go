package integration

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/lease/leasetest"
)

func TestAKilledServerLosesNothing(t *testing.T) {
	t.Run("on the embedded store", func(t *testing.T) { crash(t, options{raced: true}, 25) })
	t.Run("on a real Redis", func(t *testing.T) { crash(t, options{raced: true, redis: leasetest.Redis(t).URL}, 6) })
}

const (
	crashHolders = 5
	crashMax     = 12
)

// crash kills the server at random moments of scaling up and down, while clients acquire, renew and release.
func crash(t *testing.T, o options, kills int) {
	rng := seeded(t)
	h := newHouse(t, o)
	h.scale(4)
	h.start()
	h.converged()
	c := newCrowd(h, crashHolders)
	for n := range kills {
		warm := rng.IntN(crashMax - crashHolders + 1)
		h.scale(warm)
		// The log's next lines are the phases of scaling: decisions, runs that start and end. What comes after them is quick.
		h.server.log.more(rng.IntN(16), 1500*time.Millisecond)
		<-time.After(time.Duration(rng.Int64N(int64(150 * time.Millisecond))))
		last := lastLine(h.server.log.String())
		h.kill()
		h.start()
		c.still(func() {
			h.converged()
			c.check(fmt.Sprintf("kill %d (warm %d, after %s)", n+1, warm, last), warm)
		})
		if t.Failed() {
			break
		}
	}
	c.end()
	t.Logf("%d leases were granted meanwhile", c.granted)
}

// seeded returns the randomness of a test; GREENROOM_TEST_SEED repeats one.
func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	if text := os.Getenv("GREENROOM_TEST_SEED"); text != "" {
		seed = must(strconv.ParseUint(text, 10, 64))(t)
	}
	t.Logf("GREENROOM_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// scale wants so many warm guests. There is room on the shelf for those of the crowd, so that their coming and going is no
// work for the reconciler.
func (h *house) scale(warm int) {
	h.Helper()
	h.write(fleet{max: crashMax, warm: warm, size: warm + crashHolders, cache: `lease { ttl = "20s" }`})
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	_, line, _ := strings.Cut(lines[len(lines)-1], "msg=")
	return line[:min(len(line), 60)]
}

// crowd is clients that hold leases. While it is still, those who have a lease keep it and nobody else gets one.
type crowd struct {
	*house
	*held
	gate    sync.RWMutex // read-held while a lease is acquired or released
	mu      sync.Mutex
	leases  map[string]client.Lease // held, by id
	pids    map[string]int          // of their guests
	granted int
	stop    context.CancelFunc
	members sync.WaitGroup
}

func newCrowd(h *house, n int) *crowd {
	ctx, stop := context.WithCancel(context.Background())
	c := &crowd{house: h, held: newHeld(h.T), leases: map[string]client.Lease{}, pids: map[string]int{}, stop: stop}
	for range n {
		c.members.Go(func() {
			for ctx.Err() == nil && !h.Failed() {
				c.hold(rand.N(2 * time.Second))
			}
		})
	}
	h.Cleanup(c.end)
	return c
}

func (c *crowd) end() {
	c.stop()
	c.members.Wait()
}

func (c *crowd) still(do func()) {
	c.gate.Lock()
	defer c.gate.Unlock()
	do()
}

// hold is one lease from its request to its release. The client tries again while the server is away, by the same
// idempotency key; the lease is renewed in the background.
func (c *crowd) hold(length time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c.gate.RLock()
	l, err := c.api.Acquire(ctx, client.Request{Cache: "ci"}, nil)
	if err == nil {
		c.begin(l)
	}
	c.gate.RUnlock()
	if err != nil {
		c.Errorf("acquire: %v", err)
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
	case <-time.After(length):
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

func (c *crowd) begin(l client.Lease) {
	c.take(l)
	pids := c.living()[principal(l.Guest)]
	c.mu.Lock()
	defer c.mu.Unlock()
	c.granted++
	c.leases[l.ID] = l
	if len(pids) != 1 {
		c.Errorf("lease %s: guest %s has the processes %v, want one", l.ID, principal(l.Guest), pids)
		return
	}
	c.pids[l.ID] = pids[0]
}

func (c *crowd) finish(l client.Lease) {
	c.give(l)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.leases, l.ID)
	delete(c.pids, l.ID)
}

// check holds what the server says, after it was killed and has converged, against what the crowd has and what lives.
func (c *crowd) check(when string, warm int) {
	c.Helper()
	c.mu.Lock()
	mine, pids := maps.Clone(c.leases), maps.Clone(c.pids)
	c.mu.Unlock()
	guests := c.guests()
	shelved, leased := 0, map[string]string{}
	for _, g := range guests {
		switch g.State {
		case lease.Shelved:
			shelved++
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
	if shelved < warm || len(guests) > crashMax {
		c.Errorf("%s: %d of %d guests are shelved, want at least %d, and at most %d in all", when, shelved, len(guests), warm, crashMax)
	}
	c.matched(c.T, guests)
	c.Logf("%s: %d leased, %d shelved", when, len(mine), shelved)
}
