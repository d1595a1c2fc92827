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

// giveBack releases a lease and returns what becomes of it and its guest.
func (b *bench) giveBack(l lease.Lease, how lease.Release) (lease.Lease, lease.Guest, []lease.Event) {
	b.t.Helper()
	ctx := b.t.Context()
	l, err := b.Release(ctx, alice, l.ID, how)
	b.must(err)
	if _, err := b.Release(ctx, mallo, l.ID, lease.Release{}); !errors.Is(err, lease.ErrNotYours) {
		b.t.Errorf("released by another: %v", err)
	}
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
	for range n {
		g, err := b.Plan(b.t.Context(), b.fleet.Pool("local"), b.fleet.Cache(cache), "s1", "d1", false)
		b.must(err)
		b.bootAs(g, m)
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

// eachWay runs a test on every store, with a mirror for every turn and without any.
func eachWay(t *testing.T, test func(t *testing.T, rdb redis.UniversalClient, turns int)) {
	for name, turns := range map[string]int{"by a mirror": 1, "by the scripts": 1000} {
		t.Run(name, func(t *testing.T) {
			leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) { test(t, rdb, turns) })
		})
	}
}

// What belongs to nobody may be used by anybody, but a lease of it is its holder's side's.
func TestALeaseWithoutAnOwnerIsNotEndedByOthers(t *testing.T) {
	eachWay(t, func(t *testing.T, rdb redis.UniversalClient, turns int) {
		spec := ci()
		spec.Owner = ""
		b := open(t, rdb, spec)
		b.MirrorFrom(turns)
		b.shelf("ci", 3)
		b.acquire(lease.Request{})
		nobody := lease.Caller{Name: "nobody", Role: lease.User}
		l, err := b.Acquire(t.Context(), nobody, lease.Request{Cache: "ci"})
		b.must(err)
		if _, err := b.Release(t.Context(), mallo, l.ID, lease.Release{}); !errors.Is(err, lease.ErrNotYours) {
			t.Errorf("released by another: %v", err)
		}
		if l, err = b.Release(t.Context(), nobody, l.ID, lease.Release{}); err != nil || l.How != lease.Released {
			t.Errorf("released by its holder: %+v, %v", l, err)
		}
	})
}

// That a lease was restored is no reason any more once it is over, or a token could take the guest from its next holder.
func TestARestoredLeaseLeavesNoReasonBehind(t *testing.T) {
	signer := lease.NewSigner(make([]byte, 32))
	eachWay(t, func(t *testing.T, rdb redis.UniversalClient, turns int) {
		b, l := lost(t, rdb, turns)
		ctx, token := t.Context(), signer.Sign(l)
		b.must(second(b.Restore(ctx, alice, signer, l.ID, token)))
		if _, err := b.Acquire(ctx, alice, lease.Request{Cache: "ci"}); !errors.Is(err, lease.ErrNoneReady) { // makes the mirror
			t.Errorf("there is a guest: %v", err)
		}
		b.release(l)
		b.acquire(lease.Request{})
		held := b.guest(l)
		if held.State != lease.Leased || held.Reason != "" {
			t.Errorf("with its next holder it is %s, reason %q", held.State, held.Reason)
		}
		later := l
		later.ID, later.Granted = "ci.LATER", time.Now().Add(time.Minute) // by a clock that was ahead
		if _, err := b.Restore(ctx, alice, signer, later.ID, signer.Sign(later)); !errors.Is(err, lease.ErrConflict) {
			t.Errorf("another token takes it away: %v", err)
		}
	})
}

// lost is a store that was lost, and a lease under the key "job" of a guest that was found again.
func lost(t *testing.T, rdb redis.UniversalClient, turns int) (*bench, lease.Lease) {
	t.Helper()
	b := open(t, rdb, ci())
	b.MirrorFrom(turns)
	g := b.shelf("ci", 1)[0]
	l := b.acquire(lease.Request{Key: "job"})
	ctx := t.Context()
	b.must(rdb.FlushAll(ctx).Err())
	b.must(b.Open(ctx))
	b.must(b.Adopt(ctx, b.fleet))
	b.must(b.Found(ctx, g, lease.Machine{ID: g.ID, Host: g.Host, Port: g.Port}, time.Now().Add(time.Hour)))
	return b, l
}

// A token is proof of a lease on one guest, and no more where its key has led to another guest meanwhile.
func TestATokenRestoresNoOtherGuest(t *testing.T) {
	signer := lease.NewSigner(make([]byte, 32))
	eachWay(t, func(t *testing.T, rdb redis.UniversalClient, turns int) {
		b, before := lost(t, rdb, turns)
		ctx, token := t.Context(), signer.Sign(before)
		b.shelf("ci", 2)
		b.acquire(lease.Request{})
		now := b.acquire(lease.Request{Key: "job"})
		if now.ID != before.ID || now.Guest == before.Guest {
			t.Fatalf("leased %s on %s, and again %s on %s", before.ID, before.Guest, now.ID, now.Guest)
		}
		l, err := b.Restore(ctx, alice, signer, before.ID, token)
		if !errors.Is(err, lease.ErrConflict) {
			t.Errorf("the token gives %+v, %v", l, err)
		}
		if diff := cmp.Diff(now, b.look(now.ID)); diff != "" || b.state(before.Guest) != lease.Quarantined {
			t.Errorf("%s is %s, and the lease that the key leads to (-before +after):\n%s", before.Guest, b.state(before.Guest), diff)
		}
		if l, err := b.Restore(ctx, alice, signer, now.ID, signer.Sign(now)); err != nil || l.Guest != now.Guest {
			t.Errorf("its own token gives %+v, %v", l, err)
		}
	})
}

func TestAnOverrideKeepsTheMirrorAwayUntilItEnds(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		b.MirrorFrom(1)
		b.shelf("ci", 2)
		turned := func() bool {
			b.release(b.acquire(lease.Request{}))
			b.release(b.acquire(lease.Request{}))
			return b.Turned("ci") > 0
		}
		b.must(b.Toggle(t.Context(), admin, "ci", lease.Override{Enabled: true, Until: time.Now().Add(time.Hour)}))
		if turned() {
			t.Error("a mirror decides while an override is in force")
		}
		b.must(rdb.HSet(t.Context(), b.key("override"), "until", time.Now().Add(-time.Second).UnixMilli()).Err())
		if !turned() {
			t.Error("no mirror decides although the override is over")
		}
	})
}

// A time to live is kept in whole milliseconds, and so it is answered.
func TestATTLIsAnsweredAsItIsOnRecord(t *testing.T) {
	eachWay(t, func(t *testing.T, rdb redis.UniversalClient, turns int) {
		b := open(t, rdb, ci())
		b.MirrorFrom(turns)
		b.shelf("ci", 2)
		b.acquire(lease.Request{})
		l := b.acquire(lease.Request{TTL: 1500500 * time.Microsecond})
		if diff := cmp.Diff(b.look(l.ID), l); diff != "" {
			t.Errorf("the answer is not what is on record (-want +got):\n%s", diff)
		}
	})
}

// A store that takes no more does nothing by halves: what has no deadline would never end.
func TestALeaseHasItsDeadlineAlsoWhereMemoryIsUsedUp(t *testing.T) {
	rdb := leasetest.Redis(t).Client
	calls := map[string]func(b *bench, l lease.Lease) error{
		"acquire": func(b *bench, _ lease.Lease) error {
			return second(b.Acquire(b.t.Context(), alice, lease.Request{Cache: "ci", Key: "3"}))
		},
		"release": func(b *bench, l lease.Lease) error {
			return second(b.Release(b.t.Context(), alice, l.ID, lease.Release{}))
		},
	}
	for name, call := range calls {
		for way, turns := range map[string]int{"by a mirror": 1, "by the scripts": 1000} {
			t.Run(name+" "+way, func(t *testing.T) {
				b := open(t, rdb, ci())
				b.MirrorFrom(turns)
				b.shelf("ci", 4)
				b.acquire(lease.Request{Key: "1"}) // makes the mirror
				l := b.acquire(lease.Request{Key: "2"})
				before := b.record()
				b.must(rdb.ConfigSet(t.Context(), "maxmemory", "1").Err())
				err := call(b, l)
				b.must(rdb.ConfigSet(t.Context(), "maxmemory", "0").Err())
				if !errors.Is(err, lease.ErrUnavailable) {
					t.Errorf("want ErrUnavailable, got %v", err)
				}
				if diff := cmp.Diff(before, b.record()); diff != "" {
					t.Errorf("it has left something (-before +after):\n%s", diff)
				}
				if err := call(b, l); err != nil {
					t.Errorf("with memory again: %v", err)
				}
			})
		}
	}
}
