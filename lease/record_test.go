package lease_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"greenroom/lease"
	"greenroom/lease/leasetest"
	"greenroom/specs"
)

// What people and modules write may have line breaks, and records are texts of lines.
func TestALineBreakMovesNothingInARecord(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		ctx := t.Context()
		g, err := b.Plan(ctx, b.fleet.Pool("local"), b.fleet.Cache("ci"), "s1", "d1", false)
		b.must(err)
		g, err = b.Claim(ctx, g, lease.Provisioning, "run1", "", 0)
		b.must(err)
		g, err = b.Publish(ctx, g, "run1", g.Incarnation, lease.Machine{ID: "1", Host: "a\nb", Port: 22, User: "c\nd", HostKey: "e\nf\n"})
		b.must(err)
		_, err = b.Booted(ctx, g)
		b.must(err)

		odd := lease.Caller{Name: "al\nice\\n", Owner: "plat\nform\\", Role: lease.User}
		b.fleet.Cache("ci").Owner = odd.Owner
		l, err := b.Acquire(ctx, odd, lease.Request{Cache: "ci", PublicKey: "# mine\nkey\n"})
		b.must(err)
		if l.Holder != odd.Name || l.Owner != odd.Owner {
			t.Errorf("leased by %q of %q", l.Holder, l.Owner)
		}
		look := func() lease.Lease {
			l, err := b.Get(ctx, odd, l.ID)
			b.must(err)
			return l
		}
		wantGuest := &lease.Guest{Name: g.Name, State: lease.Leased, Incarnation: 1, Host: "a\nb", Port: 22, User: "c\nd", HostKey: "e\nf\n"}
		if diff := cmp.Diff(wantGuest, l.Leased); diff != "" {
			t.Errorf("the guest of the grant (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(l, look()); diff != "" || l.PublicKey != "# mine\nkey\n" {
			t.Errorf("the lease of the grant and the one on record, with the key %q (-grant +record):\n%s", l.PublicKey, diff)
		}

		_, err = b.Renew(ctx, odd, l.ID)
		b.must(err)
		_, err = b.Taint(ctx, admin, g, lease.Taint{Reason: "odd\nsmell", Evidence: "one\ntwo", Condemn: true})
		b.must(err)
		ended, err := b.Release(ctx, odd, l.ID, lease.Release{Outcome: "fail"})
		b.must(err)
		again := look()
		ended.Replayed = again.Replayed
		if diff := cmp.Diff(ended, again); diff != "" || again.How != lease.Released || again.Outcome != "fail" || again.PublicKey != l.PublicKey {
			t.Errorf("as it ended and on record (-ended +record):\n%s", diff)
		}
		events, err := b.Events(ctx, g.Name, 2)
		b.must(err)
		for i := range events {
			events[i].Time = l.Granted
		}
		want := []lease.Event{
			{Time: l.Granted, Guest: g.Name, Cache: "ci", Incarnation: 1, From: lease.Leased, To: lease.Tainted, Actor: odd.Name, Lease: l.ID, Reason: "odd smell", Detail: "released: fail"},
			{Time: l.Granted, Guest: g.Name, Cache: "ci", Incarnation: 1, From: lease.Leased, To: lease.Leased, Actor: "root", Lease: l.ID, Reason: "condemned: odd smell", Detail: "one\ntwo"},
		}
		if diff := cmp.Diff(want, events); diff != "" {
			t.Errorf("history (-want +got):\n%s", diff)
		}
	})
}

// A key is found again as it is written down, or a request that is sent twice gets a second guest.
func TestASpareIsLeasedOnceUnderAKeyWithABackslash(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb)
		b.fleet = &specs.Fleet{Revision: "r2", Pools: []*specs.Pool{pool("local", 1), pool("other", 8)}}
		b.must(b.Adopt(t.Context(), b.fleet))
		b.shelf("local", 1)
		r := lease.Request{Key: `a\b`}
		first, err := b.Acquire(t.Context(), alice, r)
		b.must(err)
		again, err := b.Acquire(t.Context(), alice, r)
		b.must(err)
		if again.ID != first.ID || !again.Replayed {
			t.Errorf("leased %s and then %s", first.ID, again.ID)
		}
	})
}

func TestALeaseIsForgottenWithItsKey(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		b.shelf("ci", 2)
		old, kept := b.acquire(lease.Request{Key: "old"}), b.acquire(lease.Request{Key: "kept"})
		for _, l := range []lease.Lease{old, kept} {
			_, err := b.Release(t.Context(), alice, l.ID, lease.Release{})
			b.must(err)
		}
		b.must(b.rdb.LPush(t.Context(), b.key("over"), "1 "+old.ID, "1 ci.NOT-THERE").Err())
		b.must(b.Sweep(t.Context()))
		if _, err := b.Get(t.Context(), alice, old.ID); !errors.Is(err, lease.ErrUnknownLease) {
			t.Errorf("the record: %v", err)
		}
		if l := b.acquire(lease.Request{Key: "old"}); l.Replayed || l.Phase != lease.Active {
			t.Errorf("the key of the forgotten lease gives %+v", l)
		}
		if l := b.acquire(lease.Request{Key: "kept"}); l.ID != kept.ID || !l.Replayed {
			t.Errorf("the other key gives %+v, want %s", l, kept.ID)
		}
	})
}
