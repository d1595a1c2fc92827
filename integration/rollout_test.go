package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"greenroom/lease"
	"greenroom/lease/client"
)

func TestARolloutWaitsForHoldersAndKeepsTheCacheWarm(t *testing.T) {
	h := newHouse(t, options{})
	born := func(in string) fleet {
		return fleet{max: 8, warm: 3, size: 6, pool: fmt.Sprintf(`variables = { directory = %q }`, h.path(in))}
	}
	h.write(born("old"))
	h.start()
	h.converged()
	leases := []client.Lease{h.acquire(), h.acquire()}
	h.shelved(3)
	old := h.converged().Pools[0].Digest
	before, pids := h.guests(), h.living()

	stop := h.keepsWarm()
	h.write(born("new"))
	fresh := h.converged().Pools[0].Digest
	if fresh == old {
		t.Fatalf("the digest is %s as before", old)
	}
	during := h.guests()
	for _, l := range leases {
		g := during[l.Guest.Name]
		if g.State != lease.Leased || g.Lease != l.ID || g.Incarnation != l.Guest.Incarnation || g.Digest != old || g.Condemned != "" {
			t.Errorf("the rollout has touched leased guest %s: %+v", principal(l.Guest), g)
		}
		if was, is := pids[g.Principal()], h.pid(g); was[0] != is {
			t.Errorf("leased guest %s was process %d and is %d", g.Principal(), was[0], is)
		}
	}
	checkBorn(t, during, fresh, h.path("new"))

	for _, l := range leases {
		h.release(l.ID)
	}
	h.converged()
	stop()
	after := h.guests()
	for name, g := range after {
		if g.Digest != fresh {
			t.Errorf("guest %s is still of digest %s: %+v", name, g.Digest, g)
		}
	}
	checkBorn(t, after, fresh, h.path("new"))
	h.matched()
	for _, g := range before {
		if now, ok := after[g.Name]; ok && now.Incarnation == g.Incarnation {
			t.Errorf("guest %s of the old digest is still there", g.Principal())
		}
	}
}

// keepsWarm looks at cache ci until it is stopped: there must always be a guest on the shelf.
func (h *house) keepsWarm() (stop func()) {
	done := make(chan struct{})
	looks, low := 0, 1<<10
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			c, err := h.api.Cache(h.Context(), "ci")
			if err != nil {
				h.Errorf("look at the shelf: %v", err)
				return
			}
			looks++
			if low = min(low, c.Guests[lease.Shelved]); low == 0 {
				h.Errorf("the shelf is empty: %v", c.Guests)
				return
			}
		}
	})
	return func() {
		close(done)
		watching.Wait()
		h.Logf("%d looks at the shelf: never less than %d guests", looks, low)
		if looks < 50 {
			h.Errorf("only %d looks at the shelf", looks)
		}
	}
}

// checkBorn asserts that guests of a digest were made where its variables say.
func checkBorn(t *testing.T, guests map[string]lease.Guest, digest, dir string) {
	t.Helper()
	n := 0
	for _, g := range guests {
		var at struct{ Dir string }
		noError(t, json.Unmarshal(g.Attributes, &at))
		if ours := strings.HasPrefix(at.Dir, dir+"/"); ours != (g.Digest == digest) {
			t.Errorf("guest %s is of digest %s and lives in %s", g.Principal(), g.Digest, at.Dir)
		} else if ours {
			n++
		}
	}
	if n < 3 {
		t.Errorf("%d guests are of digest %s, want at least 3", n, digest)
	}
}
