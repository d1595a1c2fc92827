package lease_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"greenroom/lease"
	"greenroom/lease/leasetest"
)

// A guest is on order from its plan, or from the claim that replaces it, until it is first of use to somebody.
func TestItIsToldOnceHowLongAGuestWasOnOrder(t *testing.T) {
	type order struct{ ordered, ready time.Time }
	tests := []struct {
		name  string
		story func(b *bench) []order
	}{
		{"from its plan to the shelf, and not at later leases", func(b *bench) []order {
			planned := b.plan()
			shelved := b.boot(planned)
			for range 2 {
				_, err := b.Release(b.t.Context(), alice, b.acquire(lease.Request{}).ID, lease.Release{})
				b.must(err)
			}
			return []order{{planned.Since, shelved.Since}}
		}},
		{"from its plan to the lease that waited for it", func(b *bench) []order {
			b.acquire(lease.Request{Wait: lease.Forever})
			planned := b.plan()
			leased := b.boot(planned)
			if leased.State != lease.Leased {
				b.t.Errorf("it is %s", leased.State)
			}
			return []order{{planned.Since, leased.Since}}
		}},
		{"from the claim that replaces it, however often it is claimed", func(b *bench) []order {
			planned := b.plan()
			shelved := b.boot(planned)
			_, err := b.Taint(b.t.Context(), admin, shelved, lease.Taint{Reason: "manual"})
			b.must(err)
			first := b.claim(shelved, lease.Replacing, "")
			b.claim(first, lease.Replacing, "run")
			again := b.replace(first)
			return []order{{planned.Since, shelved.Since}, {first.Since, again.Since}}
		}},
		{"with the time of what failed on the way", func(b *bench) []order {
			planned := b.plan()
			failed, err := b.Fail(b.t.Context(), b.claim(planned, lease.Provisioning, "run"), "run", "no such image")
			b.must(err)
			ready := b.replace(b.claim(failed, lease.Replacing, "run"))
			return []order{{planned.Since, ready.Since}}
		}},
		{"without the time in which it was kept aside", func(b *bench) []order {
			failed, err := b.Fail(b.t.Context(), b.claim(b.plan(), lease.Provisioning, "run"), "run", "no such image")
			b.must(err)
			held, err := b.Hold(b.t.Context(), admin, failed, time.Now().Add(time.Hour))
			b.must(err)
			_, err = b.Move(b.t.Context(), admin, lease.Step{Guest: held, From: []lease.State{lease.Held}, To: lease.Tainted})
			b.must(err)
			replacing := b.claim(held, lease.Replacing, "run")
			ready := b.replace(replacing)
			return []order{{replacing.Since, ready.Since}}
		}},
		{"from a plan that another server has made", func(b *bench) []order {
			other := lease.New(b.rdb, lease.Options{Prefix: "told"})
			b.must(other.Open(b.t.Context()))
			b.must(other.Adopt(b.t.Context(), b.fleet))
			planned, err := other.Plan(b.t.Context(), b.fleet.Pool("local"), b.fleet.Cache("ci"), "s1", "d1", false)
			b.must(err)
			return []order{{planned.Since, b.boot(planned).Since}}
		}},
		{"never of one that was found after the store was lost", func(b *bench) []order {
			g := lease.Guest{Name: "local-1", Pool: "local", Cache: "ci", Slot: 1, Incarnation: 1, Shard: "s1"}
			b.must(b.Found(b.t.Context(), g, lease.Machine{Host: "h"}, time.Now().Add(time.Hour)))
			_, err := b.Move(b.t.Context(), admin, lease.Step{Guest: g, From: []lease.State{lease.Quarantined}, To: lease.Shelved})
			b.must(err)
			return nil
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
				b := open(t, rdb, ci())
				var told []order
				b.Store = lease.New(rdb, lease.Options{Prefix: "told", Notify: one(func(c lease.Change) {
					if !c.Ordered.IsZero() {
						told = append(told, order{c.Ordered, c.Ready})
					}
				})})
				b.must(b.Open(t.Context()))
				b.must(b.Adopt(t.Context(), b.fleet))
				want := test.story(b)
				if diff := cmp.Diff(want, told, cmp.AllowUnexported(order{})); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func (b *bench) plan() lease.Guest {
	b.t.Helper()
	g, err := b.Plan(b.t.Context(), b.fleet.Pool("local"), b.fleet.Cache("ci"), "s1", "d1", false)
	b.must(err)
	return g
}

func (b *bench) claim(g lease.Guest, to lease.State, run string) lease.Guest {
	b.t.Helper()
	g, err := b.Claim(b.t.Context(), g, to, run, "", 0)
	b.must(err)
	return g
}

// replace makes the next incarnation of a guest that the run has claimed.
func (b *bench) replace(g lease.Guest) lease.Guest {
	b.t.Helper()
	g, err := b.Publish(b.t.Context(), g, "run", g.Incarnation+1, lease.Machine{Host: "127.0.0.1", Port: 22})
	b.must(err)
	g, err = b.Booted(b.t.Context(), g)
	b.must(err)
	return g
}
