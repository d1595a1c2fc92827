package lease_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/redis/go-redis/v9"

	"greenroom/lease"
	"greenroom/lease/leasetest"
	"greenroom/specs"
)

// Whether a mirror decides a call or the scripts do, must not be seen.
func TestAMirrorDecidesAsTheScriptsDo(t *testing.T) {
	pass := lease.Release{Outcome: "pass"}
	tests := []struct {
		name  string
		cache func(*specs.Cache)
		reset bool // by the module
		then  func(b *bench, l lease.Lease)
		how   lease.Release
		want  lease.State
	}{
		{name: "shelved", how: pass, want: lease.Shelved},
		{name: "uses", cache: func(c *specs.Cache) { c.Reuse.Uses = 1 }, how: pass, want: lease.Tainted},
		{name: "uses left", cache: func(c *specs.Cache) { c.Reuse.Uses = 2 }, how: pass, want: lease.Shelved},
		{name: "young", cache: func(c *specs.Cache) { c.Reuse.Age = time.Hour }, how: pass, want: lease.Shelved},
		{name: "old", cache: func(c *specs.Cache) { c.Reuse.Age = time.Millisecond }, then: (*bench).ages, how: pass, want: lease.Tainted},
		{name: "excess", cache: func(c *specs.Cache) { c.Size = 1 }, how: pass, want: lease.Tainted},
		{name: "script", cache: func(c *specs.Cache) { c.Reset.Body = []byte("true") }, how: pass, want: lease.Resetting},
		{name: "module", reset: true, how: pass, want: lease.Resetting},
		{name: "hold", how: lease.Release{Outcome: "fail", Hold: time.Minute}, want: lease.Held},
		{name: "discard", how: lease.Release{Discard: true}, want: lease.Tainted},
		{name: "condemned", then: (*bench).condemn, how: pass, want: lease.Tainted},
		{name: "condemned, and mirrored again", then: (*bench).condemnAgain, how: pass, want: lease.Tainted},
		{name: "ill", then: (*bench).ail, how: pass, want: lease.Shelved},
		{name: "other settings", then: (*bench).settle, how: pass, want: lease.Tainted},
		{name: "no settings", then: (*bench).drop, how: pass, want: lease.Tainted},
		{name: "a gap", then: (*bench).pause, how: pass, want: lease.Shelved},
		{name: "renewed", then: (*bench).renewed, how: pass, want: lease.Shelved},
	}
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				play := func(turns int) (lease.Lease, lease.Guest, []lease.Event) {
					spec := ci()
					if tt.cache != nil {
						tt.cache(spec)
					}
					b := open(t, rdb, spec)
					b.MirrorFrom(turns)
					b.stand("ci", 3, lease.Machine{Host: "127.0.0.1", Port: 22, Reset: tt.reset})
					b.acquire(lease.Request{Key: "1"}) // makes the mirror
					l := b.acquire(lease.Request{Key: "2"})
					if turned := b.Turned("ci") > 0; tt.name == "shelved" && turned != (turns == 1) {
						t.Errorf("decided by a mirror: %v", turned)
					}
					if tt.then != nil {
						tt.then(b, l)
						_, _ = b.Acquire(t.Context(), alice, lease.Request{Cache: "ci", Key: "3"}) // makes it again, where there is one to be made
					}
					return b.giveBack(l, tt.how)
				}
				l1, g1, e1 := play(1)
				l2, g2, e2 := play(1000)
				if g1.State != tt.want {
					t.Errorf("the guest is %s, want %s", g1.State, tt.want)
				}
				unlike := cmpopts.IgnoreTypes(time.Time{})
				if diff := cmp.Diff([]any{l2, g2, e2}, []any{l1, g1, e1}, unlike); diff != "" {
					t.Errorf("by the scripts and by a mirror (-scripts +mirror):\n%s", diff)
				}
			})
		}
	})
}

// giveBack releases a lease, which another can't, and returns what becomes of it and its guest.
func (b *bench) giveBack(l lease.Lease, how lease.Release) (lease.Lease, lease.Guest, []lease.Event) {
	b.t.Helper()
	ctx := b.t.Context()
	if _, err := b.Release(ctx, mallo, l.ID, lease.Release{}); !errors.Is(err, lease.ErrNotYours) {
		b.t.Errorf("released by another: %v", err)
	}
	l, err := b.Release(ctx, alice, l.ID, how)
	b.must(err)
	if diff := cmp.Diff(b.look(l.ID), l); diff != "" {
		b.t.Errorf("the answer is not what is on record (-want +got):\n%s", diff)
	}
	events, err := b.Events(ctx, l.Guest, 100)
	b.must(err)
	return l, b.guest(l), events
}

// stand brings n guests of a kind to the shelf.
func (b *bench) stand(cache string, n int, m lease.Machine) {
	b.t.Helper()
	ctx := b.t.Context()
	for range n {
		g, err := b.Plan(ctx, b.fleet.Pool("local"), b.fleet.Cache(cache), "s1", "d1", false)
		b.must(err)
		g, err = b.Claim(ctx, g, lease.Provisioning, "run1", "", 0)
		b.must(err)
		g, err = b.Publish(ctx, g, "run1", g.Incarnation, m)
		b.must(err)
		_, err = b.Booted(ctx, g)
		b.must(err)
	}
}

func (b *bench) guest(l lease.Lease) lease.Guest {
	b.t.Helper()
	g, err := b.Guest(b.t.Context(), l.Guest)
	b.must(err)
	return g
}

func (b *bench) ages(l lease.Lease) {
	for !b.Now().After(l.Granted.Add(2 * time.Millisecond)) {
		b.look(l.ID)
	}
}

func (b *bench) condemn(l lease.Lease) {
	_, err := b.Taint(b.t.Context(), admin, b.guest(l), lease.Taint{Reason: "manual", Condemn: true})
	b.must(err)
}

// condemnAgain has the mirror made anew while the lease goes on.
func (b *bench) condemnAgain(l lease.Lease) {
	other := b.acquire(lease.Request{Key: "other"})
	b.condemn(l)
	_, err := b.Release(b.t.Context(), alice, other.ID, lease.Release{Discard: true})
	b.must(err)
}

func (b *bench) ail(l lease.Lease) { b.must(b.SetHealth(b.t.Context(), b.guest(l), "no answer")) }

func (b *bench) settle(lease.Lease) {
	b.fleet.Caches[0].Reuse.Uses = 1
	b.must(b.Adopt(b.t.Context(), b.fleet))
}

func (b *bench) drop(lease.Lease) {
	b.must(b.Adopt(b.t.Context(), &specs.Fleet{Revision: "r2", Pools: b.fleet.Pools, Caches: []*specs.Cache{{
		Name: "other", Owner: "platform", Pools: []string{"local"}, Enabled: true, Max: 1, Lease: specs.Lease{TTL: time.Minute, Max: time.Hour},
	}}}))
}

func (b *bench) pause(lease.Lease) {
	b.must(b.rdb.Set(b.t.Context(), b.key("swept"), time.Now().Add(-time.Hour).UnixMilli(), 0).Err())
	b.must(b.Sweep(b.t.Context()))
}

func (b *bench) renewed(l lease.Lease) {
	_, err := b.Renew(b.t.Context(), alice, l.ID)
	b.must(err)
}

// Who sends a request again before it was answered gets one guest.
func TestAKeyThatComesTwiceAtOnceIsGrantedOnce(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		spec := ci()
		spec.Max, spec.Size = 6, 6
		b := open(t, rdb, spec)
		b.MirrorFrom(1)
		b.shelf("ci", 6)
		turned := 0
		for round := range 20 {
			ids := make([]string, 32)
			var all sync.WaitGroup
			for i := range ids {
				all.Go(func() { ids[i] = b.acquire(lease.Request{Key: fmt.Sprint(round, i%4)}).ID })
			}
			all.Wait()
			turned += b.Turned("ci")
			slices.Sort(ids)
			ids = slices.Compact(ids)
			st, err := b.Stock(t.Context(), "ci")
			b.must(err)
			if len(ids) != 4 || st.Leases != 4 || st.In(lease.Leased) != 4 || st.In(lease.Shelved) != 2 {
				t.Fatalf("4 keys, %d ids, %d leases, guests %v", len(ids), st.Leases, st.Counts)
			}
			for _, id := range ids {
				all.Go(func() {
					_, err := b.Release(t.Context(), alice, id, lease.Release{})
					b.must(err)
				})
			}
			all.Wait()
		}
		if turned == 0 {
			t.Error("no mirror has decided anything")
		}
	})
}
