package reconcile

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"greenroom/lease"
	"greenroom/reconcile/plan"
	"greenroom/specs"
)

// rows is a fleet of so many pools with a full cache each, and its guests. A shared cache makes one part of them all.
func rows(pools, guests int, shared bool) (*specs.Fleet, []lease.Guest) {
	f, names := &specs.Fleet{Revision: "base"}, []string{}
	var all []lease.Guest
	for i := range pools {
		p := testPool(fmt.Sprintf("p%d", i), guests, 0)
		p.Variables = []byte(`{}`)
		f.Pools, names = append(f.Pools, p), append(names, p.Name)
		f.Caches = append(f.Caches, testCache(fmt.Sprintf("c%d", i), guests, guests, guests, p.Name))
		digest := sideOf(f).recipes[p.Name].digest
		for n := 1; n <= guests; n++ {
			all = append(all, lease.Guest{
				Name: lease.GuestName(p.Name, n), Pool: p.Name, Cache: f.Caches[i].Name, Slot: n, Incarnation: 1, State: lease.Shelved,
				Digest: digest, Shard: ShardID(p.Name, digest, 1), Since: epoch, Born: epoch,
			})
		}
	}
	if shared {
		f.Caches = append(f.Caches, testCache("shared", 0, 0, 1, names...))
	}
	return f, all
}

// rolled is the preview of a new image in all pools, each of which takes another time to make a guest.
func rolled(base *specs.Fleet, guests []lease.Guest) plan.Plan {
	head := *base
	head.Revision, head.Pools = "head", nil
	for _, p := range base.Pools {
		q := *p
		q.UserData = "new"
		head.Pools = append(head.Pools, &q)
	}
	pv := &previewing{loop: New(Options{}), now: epoch, guests: guests, ready: map[string]time.Duration{}}
	for i, p := range base.Pools {
		pv.ready[p.Name] = 40*time.Second + time.Duration(i)*17*time.Millisecond
	}
	pv.readyOf = func(pool string) time.Duration { return pv.ready[pool] }
	pv.base, pv.head = sideOf(base), sideOf(&head)
	pv.base.play(context.Background(), pv.snapshot(pv.base), pv)
	pv.head.play(context.Background(), pv.snapshot(pv.head), pv)
	return pv.plan()
}

// A rollout goes one by one, and each step asks Decide. Were it asked about the whole fleet each time, this would take many minutes.
func TestAPreviewOfManyGuestsComesToAnEnd(t *testing.T) {
	for name, c := range map[string]struct {
		pools, guests int
		shared        bool
	}{
		"many pools": {500, 10, false}, "many pools that a cache brings together": {20, 50, true}, "one wide pool": {1, 2000, false},
	} {
		t.Run(name, func(t *testing.T) {
			base, guests := rows(c.pools, c.guests, c.shared)
			if got := rolled(base, guests).Summary.Replace; got != len(guests) {
				t.Errorf("%d of %d guests are replaced", got, len(guests))
			}
		})
	}
}

func TestAWideRolloutIsShortOfAsMuchAsANarrowOne(t *testing.T) {
	for _, n := range []int{50, 200, 500, 1000} {
		base, guests := rows(1, n, false)
		want := &plan.Dip{Warm: n, Lowest: n - 1, Seconds: float64(41 * n), Measured: true}
		if diff := cmp.Diff(want, rolled(base, guests).Caches[0].Dip); diff != "" {
			t.Errorf("%d guests: %s", n, diff)
		}
	}
}

func TestAWideRolloutIsAsShortInEachOfManyCaches(t *testing.T) {
	const caches, warm = 100, 3
	base, guests := rows(1, caches*warm, false)
	base.Caches = nil
	for i := range caches {
		base.Caches = append(base.Caches, testCache(fmt.Sprint("c", i), warm, warm, warm, "p0"))
	}
	for i := range guests {
		guests[i].Cache = base.Caches[i/warm].Name
	}
	want := &plan.Dip{Warm: warm, Lowest: warm - 1, Seconds: 41 * warm, Measured: true}
	for _, c := range rolled(base, guests).Caches {
		if diff := cmp.Diff(want, c.Dip); diff != "" && !c.Invisible {
			t.Fatalf("cache %s: %s", c.Cache, diff)
		}
	}
}

func TestAForecastThatNobodyWaitsForEnds(t *testing.T) {
	base, guests := rows(1, 10, false)
	base.Pools[0].UserData = "new"
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	pv := &previewing{readyOf: func(string) time.Duration { return time.Second }, guests: guests, now: epoch}
	sd := sideOf(base)
	if sd.play(ctx, pv.snapshot(sd), pv); !errors.Is(pv.err, context.Canceled) {
		t.Errorf("it ended with %v", pv.err)
	}
}

func TestPartsHaveNothingToDoWithEachOther(t *testing.T) {
	s := Snapshot{
		Fleet: fleetOf([]*specs.Pool{testPool("a", 1, 0), testPool("b", 1, 0), testPool("c", 1, 0), testPool("d", 1, 0)}, testCache("ci", 0, 1, 1, "a", "b"), testCache("web", 0, 1, 1, "c")),
		Guests: []lease.Guest{
			{Name: "a-1", Pool: "a", Cache: "ci"}, {Name: "c-1", Pool: "c", Cache: "old"}, {Name: "x-1", Pool: "x", Cache: "old"}, {Name: "y-1", Pool: "y", Cache: "y"},
		},
		Demand: []Want{{Cache: "web"}},
	}
	var got []string
	for _, p := range parts(s) {
		text := ""
		for _, q := range p.Fleet.AllCaches() {
			text += q.Name + " "
		}
		for _, g := range p.Guests {
			text += g.Name + " "
		}
		got = append(got, fmt.Sprint(text, len(p.Demand)))
	}
	if diff := cmp.Diff([]string{"a b ci a-1 0", "d 0", "c web c-1 x-1 1", "y-1 0"}, got); diff != "" {
		t.Error(diff)
	}
}
