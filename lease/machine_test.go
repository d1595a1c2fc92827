package lease_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"greenroom/lease"
	"greenroom/lease/leasetest"
)

// machine drives a store with random calls beside a model of who must have what.
type machine struct {
	*bench
	active map[string]string // lease id -> guest
	queue  []string          // request ids of cache ci, in order
	ended  []string
	grants int

	seen, turned int // batches that the mirror has decided, at the last look and in all
}

func TestNoInterleavingBreaksThePromises(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		rapid.Check(t, func(rt *rapid.T) {
			spec := ci()
			spec.Reuse.Uses = rapid.IntRange(0, 3).Draw(rt, "uses")
			spec.Max = rapid.IntRange(1, 6).Draw(rt, "max")
			spec.Size = spec.Max
			m := &machine{bench: open(t, rdb, spec), active: map[string]string{}}
			rt.Repeat(map[string]func(*rapid.T){
				"": m.check, "plan": m.plan, "advance": m.advance, "acquire": m.acquireOne, "release": m.release,
				"release twice": m.releaseEnded, "claim": m.claim, "taint": m.taint, "cancel": m.cancel, "expire": m.expire, "draw": m.draw,
			})
		})
	})
}

// As above, with guests on the shelf whose leases come and go, which the server decides by its mirror, and all that makes that void.
func TestTurnsBreakNoPromise(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		turns := 0
		rapid.Check(t, func(rt *rapid.T) {
			spec := ci()
			spec.Reuse.Uses = rapid.SampledFrom([]int{0, 0, 3}).Draw(rt, "uses")
			spec.Size = rapid.IntRange(2, 6).Draw(rt, "size")
			m := &machine{bench: open(t, rdb, spec), active: map[string]string{}}
			m.MirrorFrom(1)
			m.shelf("ci", rapid.IntRange(1, 6).Draw(rt, "guests"))
			take, give := m.acquireOne, m.giveBack
			rt.Repeat(map[string]func(*rapid.T){
				"": m.check, "acquire": take, "acquire 2": take, "acquire 3": take, "release": give, "release 2": give, "release 3": give,
				"renew": m.renew, "discard": m.release, "release twice": m.releaseEnded, "taint": m.taint, "cancel": m.cancel, "expire": m.expire,
				"disable": m.disable, "advance": m.advance,
			})
			turns += m.turned
		})
		if turns < 200 {
			t.Errorf("only %d turns were decided by a mirror", turns)
		}
	})
}

// granted moves the requests at the head of the model's queue that the store has served.
func (m *machine) granted(t *rapid.T) {
	for len(m.queue) > 0 {
		l := m.look(m.queue[0])
		if l.Phase != lease.Active {
			break
		}
		m.active[l.ID] = l.Guest
		m.grants++
		m.queue = m.queue[1:]
	}
	for _, id := range m.queue {
		if l := m.look(id); l.Phase != lease.Queued {
			t.Fatalf("%s is %s although %s came before it", id, l.Phase, m.queue[0])
		}
	}
}

func (m *machine) plan(t *rapid.T) {
	cache := rapid.SampledFrom([]string{"ci", "local"}).Draw(t, "cache")
	_, err := m.Plan(m.t.Context(), m.fleet.Pool("local"), m.fleet.Cache(cache), "s", "d", false)
	if err != nil && !errors.Is(err, lease.ErrFull) {
		t.Fatal(err)
	}
}

func (m *machine) guests() []lease.Guest {
	all, err := m.Guests(m.t.Context(), "local")
	m.must(err)
	return all
}

// advance takes one guest a step further on its road, as the reconciler, the watchdog and the preparers do.
func (m *machine) advance(t *rapid.T) {
	all := m.guests()
	if len(all) == 0 {
		t.Skip("no guest")
	}
	g, ctx := rapid.SampledFrom(all).Draw(t, "guest"), m.t.Context()
	var err error
	switch g.State {
	case lease.Planned:
		_, err = m.Claim(ctx, g, lease.Provisioning, "run", "", 0)
	case lease.Provisioning:
		_, err = m.Publish(ctx, g, "run", g.Incarnation, lease.Machine{Host: "h", Port: 1})
	case lease.Booting:
		_, err = m.Booted(ctx, g)
	case lease.Tainted:
		_, err = m.Claim(ctx, g, lease.Replacing, "run", "", 0)
	case lease.Replacing:
		_, err = m.Publish(ctx, g, "run", g.Incarnation+1, lease.Machine{Host: "h", Port: 1})
	case lease.Retiring:
		err = m.Remove(ctx, g, "run", "excess")
	}
	m.must(err)
	m.granted(t)
}

func (m *machine) acquireOne(t *rapid.T) {
	waits := rapid.Bool().Draw(t, "waits")
	r := lease.Request{Cache: "ci"}
	if waits {
		r.Wait = lease.Forever
	}
	l, err := m.Acquire(m.t.Context(), alice, r)
	switch {
	case errors.Is(err, lease.ErrNoneReady) && !waits:
	case err != nil:
		t.Fatal(err)
	case l.Phase == lease.Active:
		if len(m.queue) > 0 {
			t.Fatalf("granted past %d that wait", len(m.queue))
		}
		if diff := cmp.Diff(m.look(l.ID), l); diff != "" {
			t.Fatalf("the answer is not what is on record (-want +got):\n%s", diff)
		}
		m.active[l.ID] = l.Guest
		m.grants++
	default:
		m.queue = append(m.queue, l.ID)
	}
}

func (m *machine) anyActive(t *rapid.T) string {
	ids := make([]string, 0, len(m.active))
	for id := range m.active {
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		t.Skip("no lease")
	}
	slices.Sort(ids)
	return ids[rapid.IntRange(0, len(ids)-1).Draw(t, "lease")]
}

func (m *machine) release(t *rapid.T) {
	m.end(t, lease.Release{Discard: rapid.Bool().Draw(t, "discard")})
}

func (m *machine) giveBack(t *rapid.T) { m.end(t, lease.Release{Outcome: "pass"}) }

func (m *machine) end(t *rapid.T, how lease.Release) {
	id := m.anyActive(t)
	l, err := m.Release(m.t.Context(), alice, id, how)
	m.must(err)
	if diff := cmp.Diff(m.look(id), l); diff != "" {
		t.Fatalf("the answer is not what is on record (-want +got):\n%s", diff)
	}
	delete(m.active, id)
	m.ended = append(m.ended, id)
	m.granted(t)
}

func (m *machine) renew(t *rapid.T) {
	id := m.anyActive(t)
	l, err := m.Renew(m.t.Context(), alice, id)
	m.must(err)
	if l.Guest != m.active[id] {
		t.Fatalf("lease %s is on %s, model %s", id, l.Guest, m.active[id])
	}
}

// disable has nobody served for one request.
func (m *machine) disable(t *rapid.T) {
	m.must(m.Toggle(m.t.Context(), admin, "ci", lease.Override{By: "root"}))
	if _, err := m.Acquire(m.t.Context(), alice, lease.Request{Cache: "ci"}); !errors.Is(err, lease.ErrNoneReady) {
		t.Fatalf("a disabled cache answered %v", err)
	}
	m.must(m.Untoggle(m.t.Context(), admin, "ci"))
	m.granted(t)
}

func (m *machine) releaseEnded(t *rapid.T) {
	if len(m.ended) == 0 {
		t.Skip("nothing ended")
	}
	l, err := m.Release(m.t.Context(), alice, rapid.SampledFrom(m.ended).Draw(t, "id"), lease.Release{})
	m.must(err)
	if l.Phase != lease.Ended {
		t.Fatalf("an ended lease is %s", l.Phase)
	}
}

func (m *machine) expire(t *rapid.T) {
	id := m.anyActive(t)
	m.runsOut(lease.Lease{ID: id, Guest: m.active[id]})
	m.must(m.Sweep(m.t.Context()))
	delete(m.active, id)
	m.ended = append(m.ended, id)
	m.granted(t)
}

func (m *machine) cancel(t *rapid.T) {
	if len(m.queue) == 0 {
		t.Skip("nobody waits")
	}
	i := rapid.IntRange(0, len(m.queue)-1).Draw(t, "place")
	_, err := m.Release(m.t.Context(), alice, m.queue[i], lease.Release{})
	m.must(err)
	m.ended = append(m.ended, m.queue[i])
	m.queue = slices.Delete(m.queue, i, i+1)
}

func (m *machine) claim(t *rapid.T) {
	all := m.guests()
	if len(all) == 0 {
		t.Skip("no guest")
	}
	g := rapid.SampledFrom(all).Draw(t, "guest")
	to := rapid.SampledFrom([]lease.State{lease.Retiring, lease.Replacing, lease.Provisioning}).Draw(t, "to")
	_, err := m.Claim(m.t.Context(), g, to, "run", "test", 0)
	if g.State == lease.Leased && !errors.Is(err, lease.ErrLeased) {
		t.Fatalf("claimed the leased %s for %s: %v", g.Name, to, err)
	}
}

func (m *machine) taint(t *rapid.T) {
	all := m.guests()
	if len(all) == 0 {
		t.Skip("no guest")
	}
	g := rapid.SampledFrom(all).Draw(t, "guest")
	_, err := m.Taint(m.t.Context(), admin, g, lease.Taint{Reason: "dead", Condemn: rapid.Bool().Draw(t, "condemn")})
	if err != nil && !errors.Is(err, lease.ErrLeased) && !errors.Is(err, lease.ErrConflict) {
		t.Fatal(err)
	}
}

func (m *machine) draw(t *rapid.T) {
	for _, g := range m.guests() {
		if g.State == lease.Shelved && g.Cache == "local" {
			if _, err := m.Draw(m.t.Context(), g, m.fleet.Cache("ci")); err != nil && !errors.Is(err, lease.ErrFull) {
				t.Fatal(err)
			}
			m.granted(t)
			return
		}
	}
	t.Skip("no spare")
}

// check compares the whole store with the model.
func (m *machine) check(t *rapid.T) {
	if n := m.Turned("ci"); n != m.seen {
		m.turned += max(0, n-m.seen)
		m.seen = n
	}
	holders, all := map[string]string{}, m.guests()
	counts := map[string]int{}
	for _, g := range all {
		counts[g.Cache]++
		if (g.State == lease.Leased) != (g.Lease != "") {
			t.Fatalf("%s is %s with lease %q", g.Name, g.State, g.Lease)
		}
		if g.State == lease.Leased {
			holders[g.Lease] = g.Name
		}
	}
	if len(holders) != len(m.active) {
		t.Fatalf("leased %v, model %v", holders, m.active)
	}
	for id, guest := range m.active {
		if holders[id] != guest {
			t.Fatalf("lease %s: store says %s, model %s", id, holders[id], guest)
		}
	}
	if len(all) > m.fleet.Pool("local").Max || counts["ci"] > m.fleet.Cache("ci").Max {
		t.Fatalf("%d guests, %v by cache", len(all), counts)
	}
	m.checkStock(t, "ci", counts["ci"])
}

func (m *machine) checkStock(t *rapid.T, c string, guests int) {
	st, err := m.Stock(m.t.Context(), c)
	m.must(err)
	if st.In(lease.States...) != guests {
		t.Fatalf("the indices count %d, on record are %d", st.In(lease.States...), guests)
	}
	if got := st.Stats["hits"] + st.Stats["misses"]; int(got) != m.grants {
		t.Fatalf("%d hits and misses, %d grants", got, m.grants)
	}
	if st.Queue != len(m.queue) || st.Leases != len(m.active) {
		t.Fatalf("queue %d, model %d; leases %d, model %d", st.Queue, len(m.queue), st.Leases, len(m.active))
	}
	if st.Queue > 0 && st.In(lease.Shelved) > 0 {
		t.Fatalf("%d wait while %d are shelved", st.Queue, st.In(lease.Shelved))
	}
}
