package reconcile

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"greenroom/lease"
	"greenroom/reconcile/condition"
	"greenroom/specs"
)

func TestStatusAsksFewQuestionsHoweverManyPoolsThereAre(t *testing.T) {
	l, _, commands, _ := ticking(t, cold(50))
	before := commands.n.Load()
	if st, err := l.Status(t.Context()); err != nil || len(st.Pools) != 50 {
		t.Fatalf("%d pools, %v", len(st.Pools), err)
	}
	if n := commands.n.Load() - before; n > 10 {
		t.Errorf("it sends %d commands", n)
	}
	before = commands.n.Load()
	if err := l.Trouble(); err != nil {
		t.Errorf("in good order there is %v", err)
	}
	if n := commands.n.Load() - before; n > 0 {
		t.Errorf("to ask for trouble sends %d commands", n)
	}
}

func TestStatusCountsGuestsAlsoWhileTheStoreIsAway(t *testing.T) {
	l, store, _, _ := ticking(t, cold(1))
	f := l.inForce()
	if err := store.SetPause(t.Context(), "paaa", &lease.Pause{By: "bob"}); err != nil { // else a run would begin
		t.Fatal(err)
	}
	id := ShardID("paaa", l.recipe("paaa").digest, 1)
	if err := l.ensureShard(id, "paaa"); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Plan(t.Context(), f.Pool("paaa"), f.Cache("paaa"), id, l.recipe("paaa").digest, false); err != nil {
		t.Fatal(err)
	}
	l.Wake()
	if err := l.tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	away, cancel := context.WithCancel(t.Context())
	cancel()
	for name, ctx := range map[string]context.Context{"": t.Context(), "context canceled": away} {
		st, err := l.Status(ctx)
		if err != nil || st.Store != name || st.Pools[0].Guests[lease.Planned] != 1 || len(st.Pools[0].Shards) != 1 || st.Pools[0].Shards[0].Guests != 1 {
			t.Errorf("with the store's error %q: %+v, %v", name, st, err)
		}
		if got := condition.Of(st.Pools[0].Conditions, condition.Reconciling).Message; got != "1 planned" {
			t.Errorf("it is busy with %q", got)
		}
	}
}

func TestAStoreThatCanBeReadAndNotWrittenIsAway(t *testing.T) {
	l, _, _, _ := ticking(t, cold(1))
	full := fmt.Errorf("%w: no space left on device", lease.ErrUnavailable)
	l.storeErr = full
	st, err := l.Status(t.Context())
	if ready := condition.Of(st.Conditions, condition.Ready); err != nil || st.Store != full.Error() || ready.Status || ready.Reason != "StoreUnavailable" {
		t.Errorf("%+v, %v", st, err)
	}
	if err := l.Trouble(); !errors.Is(err, full) {
		t.Errorf("the trouble is %v", err)
	}
}

func TestAPoolWaitsForTheBreakersOfItsOwnAndItsShardsModules(t *testing.T) {
	for module, want := range map[string][2]string{"new": {"BreakerOpen", ""}, "old": {"BreakerOpen", "BreakerOpen"}, "": {"", ""}} {
		l, _, _, _ := moved()
		l.breaker(module).until = l.o.Now().Add(time.Minute)
		l.judge(Snapshot{Fleet: fleetOf([]*specs.Pool{testPool("a", 1, 0)}), Guests: []lease.Guest{{Name: "gone-1", Pool: "gone"}}, Now: l.o.Now()})
		for i, pool := range []string{"a", "gone"} {
			if c := l.pools[pool].conditions[condition.Waiting]; strings.TrimPrefix(c.Reason, "NotWaiting") != want[i] {
				t.Errorf("the breaker of %q is open: pool %s says %+v", module, pool, c)
			}
		}
	}
}

// Whatever looks at all guests, shards or pools for each pool takes seconds for a fleet as large as this.
func BenchmarkALargeFleet(b *testing.B) {
	const pools, guests = 2000, 50
	l, s := New(Options{}), Snapshot{Fleet: &specs.Fleet{Revision: "large"}, Digests: map[string]string{}, Now: epoch}
	for i := range pools {
		p := testPool(fmt.Sprint("p", i), guests, 0)
		s.Fleet.Pools, s.Digests[p.Name] = append(s.Fleet.Pools, p), "digest-1"
		s.Fleet.Caches = append(s.Fleet.Caches, testCache(fmt.Sprint("c", i), guests, guests, guests, p.Name))
		for n := 1; n <= guests; n++ {
			shard := ShardID(p.Name, "digest-1", 1+n/25)
			l.shard(shard, p.Name)
			s.Guests = append(s.Guests, lease.Guest{
				Name: lease.GuestName(p.Name, n), Pool: p.Name, Cache: s.Fleet.Caches[i].Name, Slot: n, Shard: shard, Digest: "digest-1", State: lease.Shelved, Since: epoch,
			})
		}
	}
	b.Run("is judged", func(b *testing.B) {
		for b.Loop() {
			l.judge(s)
		}
	})
	b.Run("is decided", func(b *testing.B) {
		for b.Loop() {
			Decide(s)
		}
	})
}
