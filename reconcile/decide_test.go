package reconcile

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"greenroom/lease"
	"greenroom/specs"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// world is an inventory in memory in which actions happen at once or step by step.
type world struct {
	Snapshot
	runs int
}

func newWorld(fleet *specs.Fleet) *world {
	w := &world{Snapshot: Snapshot{Fleet: fleet, Digests: map[string]string{}, Now: epoch}}
	for _, p := range fleet.Pools {
		w.Digests[p.Name] = "digest-1"
	}
	return w
}

func fleetOf(pools []*specs.Pool, caches ...*specs.Cache) *specs.Fleet {
	return &specs.Fleet{Revision: "r1", Pools: pools, Caches: caches}
}

func testPool(name string, maximum, spare int) *specs.Pool {
	return &specs.Pool{Name: name, Module: "local", Max: maximum, Spare: spare, ShardSize: 3, Rollout: specs.Rollout{MaxUnavailable: 1}}
}

func testCache(name string, warm, size, maximum int, pools ...string) *specs.Cache {
	return &specs.Cache{Name: name, Pools: pools, Warm: warm, Size: size, Max: maximum, Enabled: true}
}

func (w *world) put(pool, cache string, state lease.State) *lease.Guest {
	slot := 1
	for slices.ContainsFunc(w.Guests, func(g lease.Guest) bool { return g.Pool == pool && g.Slot == slot }) {
		slot++
	}
	w.runs++
	w.Guests = append(w.Guests, lease.Guest{
		Name: lease.GuestName(pool, slot), Pool: pool, Cache: cache, Slot: slot, Incarnation: 1, State: state,
		Digest: w.Digests[pool], Shard: ShardID(pool, w.Digests[pool], 1), Since: w.Now.Add(time.Duration(w.runs) * time.Millisecond), Born: w.Now,
	})
	return &w.Guests[len(w.Guests)-1]
}

func (w *world) fill(pool, cache string, n int) {
	for range n {
		w.put(pool, cache, lease.Shelved)
	}
}

// apply does an action as the store would, refusing what the store would refuse.
func (w *world) apply(a Action) error {
	if a.Verb == Provision {
		g := w.put(a.Pool, a.Cache, lease.Planned)
		g.Shard = a.Shard
		return w.checkMax()
	}
	i := slices.IndexFunc(w.Guests, func(g lease.Guest) bool { return g.Name == a.Guest.Name })
	if i < 0 {
		return fmt.Errorf("%v: no such guest", a)
	}
	g := &w.Guests[i]
	allowed := map[Verb][]lease.State{
		Replace: {lease.Tainted, lease.Failed}, Retire: {lease.Booting, lease.Shelved, lease.Tainted, lease.Failed}, Draw: {lease.Shelved},
	}[a.Verb]
	if !slices.Contains(allowed, g.State) {
		return fmt.Errorf("%v: the guest is %s", a, g.State)
	}
	switch a.Verb {
	case Replace:
		g.State = lease.Replacing
	case Retire:
		g.State, g.Reason = lease.Retiring, a.Reason
	case Draw:
		g.State, g.Cache = lease.Preparing, a.Cache
	}
	return w.checkMax()
}

func (w *world) checkMax() error {
	pools, caches := map[string]int{}, map[string]int{}
	for _, g := range w.Guests {
		pools[g.Pool]++
		caches[g.Cache]++
	}
	for _, p := range w.Fleet.Pools {
		if pools[p.Name] > max(p.Max, w.before(p.Name)) {
			return fmt.Errorf("pool %s has %d of at most %d", p.Name, pools[p.Name], p.Max)
		}
	}
	for _, c := range w.Fleet.Caches {
		if caches[c.Name] > c.Max {
			return fmt.Errorf("cache %s has %d of at most %d", c.Name, caches[c.Name], c.Max)
		}
	}
	return nil
}

// before is how many guests a pool may have because it had them before its max was lowered.
func (w *world) before(pool string) int {
	n := 0
	for _, g := range w.Guests {
		if g.Pool == pool && g.State != lease.Planned {
			n++
		}
	}
	return n
}

// finish lets every run end well.
func (w *world) finish() {
	w.Now = w.Now.Add(time.Second)
	w.Guests = slices.DeleteFunc(w.Guests, func(g lease.Guest) bool { return g.State == lease.Retiring })
	for i := range w.Guests {
		g := &w.Guests[i]
		switch g.State {
		case lease.Replacing:
			g.Incarnation++
			g.State, g.Since, g.Born = lease.Shelved, w.Now, w.Now
		case lease.Planned, lease.Provisioning, lease.Booting, lease.Preparing, lease.Resetting:
			g.State, g.Since = lease.Shelved, w.Now
		}
	}
	w.serveQueue()
}

// serveQueue does what the store's scripts do: who waits is served from the shelf at once.
func (w *world) serveQueue() {
	w.Demand = slices.DeleteFunc(w.Demand, func(d Want) bool {
		for i := range w.Guests {
			g := &w.Guests[i]
			if g.State == lease.Shelved && g.Cache == d.Cache && slices.Contains(d.Pools, g.Pool) {
				g.State = lease.Leased
				return true
			}
		}
		return false
	})
}

func (w *world) count(cache string, states ...lease.State) int {
	n := 0
	for _, g := range w.Guests {
		if g.Cache == cache && slices.Contains(states, g.State) {
			n++
		}
	}
	return n
}

// converge repeats Decide and its consequences until it has nothing to ask for.
func (w *world) converge(t interface{ Fatalf(string, ...any) }) {
	w.serveQueue()
	for range 60 {
		actions := Decide(w.Snapshot)
		if len(actions) == 0 && w.settled() {
			return
		}
		for _, a := range actions {
			if err := w.apply(a); err != nil {
				t.Fatalf("%v", err)
			}
		}
		w.finish()
	}
	t.Fatalf("no end of it: %v\n%v", Decide(w.Snapshot), w.Guests)
}

func (w *world) settled() bool {
	return !slices.ContainsFunc(w.Guests, func(g lease.Guest) bool {
		return slices.Contains([]lease.State{lease.Planned, lease.Provisioning, lease.Booting, lease.Preparing, lease.Resetting, lease.Replacing, lease.Retiring, lease.Failed}, g.State)
	})
}

func verbs(actions []Action) map[string]int {
	out := map[string]int{}
	for _, a := range actions {
		key := string(a.Verb)
		if a.Reason != "" {
			key += " " + a.Reason
		}
		out[key]++
	}
	return out
}

// ageing is a fleet in which ci has no room, and web replaces what is older than an hour.
func ageing(maximum int) *specs.Fleet {
	web := testCache("web", 2, maximum, maximum, "a")
	web.Reuse.Age = time.Hour
	return fleetOf([]*specs.Pool{testPool("a", 8, 0)}, testCache("ci", 2, 2, 2, "a"), web)
}

// breakCI puts one guest of ci on its shelf while another does not come up, and lets those of web grow old.
func (w *world) breakCI(state lease.State) {
	w.fill("a", "web", 2)
	w.Now = w.Now.Add(2 * time.Hour)
	w.fill("a", "ci", 1)
	w.put("a", "ci", state).Failures = 3
}

func TestDecide(t *testing.T) {
	one := func() *specs.Fleet { return fleetOf([]*specs.Pool{testPool("a", 8, 0)}, testCache("ci", 2, 4, 6, "a")) }
	for _, c := range []struct {
		name  string
		fleet *specs.Fleet
		given func(w *world)
		want  map[string]int
	}{
		{"makes what is missing to warm", one(), func(*world) {}, map[string]int{"provision warm": 2}},
		{"makes nothing beyond what is on its way", one(), func(w *world) {
			w.put("a", "ci", lease.Booting)
			w.put("a", "ci", lease.Planned)
		}, map[string]int{}},
		{"counts a leased guest as none of the warm ones", one(), func(w *world) { w.put("a", "ci", lease.Leased) }, map[string]int{"provision warm": 2}},
		{"serves who waits before it warms up, within max", one(), func(w *world) {
			for range 5 {
				w.Demand = append(w.Demand, Want{"ci", []string{"a"}})
			}
		}, map[string]int{"provision demand": 5, "provision warm": 1}},
		{"replaces a dead guest in its slot", one(), func(w *world) {
			w.put("a", "ci", lease.Shelved)
			w.put("a", "ci", lease.Tainted).Reason = "dead"
		}, map[string]int{"replace dead": 1}},
		{"retires a dead guest that nobody needs", one(), func(w *world) {
			w.put("a", "ci", lease.Shelved)
			w.put("a", "ci", lease.Shelved)
			w.put("a", "ci", lease.Tainted).Reason = "uses"
		}, map[string]int{"retire uses": 1}},
		{"takes another slot when one has just failed", one(), func(w *world) {
			w.put("a", "ci", lease.Shelved)
			g := w.put("a", "ci", lease.Failed)
			g.Failures, g.Since, g.Reason = 3, w.Now, "run_failed"
		}, map[string]int{"provision warm": 1}},
		{"keeps a failed guest for its next try while the pool backs off", one(), func(w *world) {
			w.Backoff = map[string]bool{"a": true}
			w.put("a", "ci", lease.Shelved)
			w.put("a", "ci", lease.Failed).Failures = 1
		}, map[string]int{}},
		{"rests before it tries again what did not come up, and makes no other in its stead", one(), func(w *world) {
			w.put("a", "ci", lease.Tainted).Failures = 1
			w.Demand = append(w.Demand, Want{"ci", []string{"a"}})
		}, map[string]int{}},
		{"tries again what did not come up", one(), func(w *world) {
			g := w.put("a", "ci", lease.Tainted)
			g.Failures, g.Reason, g.Since = 1, "prepare_failed", w.Now.Add(-2*time.Second)
			w.put("a", "ci", lease.Shelved)
		}, map[string]int{"replace prepare_failed": 1}},
		{"makes another while one rests, where one has come up", one(), func(w *world) {
			w.put("a", "ci", lease.Tainted).Failures = 1
			w.put("a", "ci", lease.Leased)
			w.put("a", "ci", lease.Shelved)
		}, map[string]int{"provision warm": 1}},
		{"takes another pool while one rests", fleetOf([]*specs.Pool{testPool("a", 8, 0), testPool("b", 8, 0)}, testCache("ci", 1, 4, 6, "a", "b")), func(w *world) {
			w.put("a", "ci", lease.Tainted).Failures = 3
		}, map[string]int{"provision warm": 1}},
		{"keeps the slot of what rests though nobody wants it", one(), func(w *world) {
			w.put("a", "ci", lease.Tainted).Failures = 3
			w.put("a", "ci", lease.Shelved)
			w.put("a", "ci", lease.Shelved)
		}, map[string]int{}},
		{"retires what is beyond the size", one(), func(w *world) {
			for range 6 {
				w.put("a", "ci", lease.Shelved)
			}
		}, map[string]int{"retire excess": 2}},
		{"does nothing to a pool that is paused", one(), func(w *world) {
			w.Paused = map[string]bool{"a": true}
			w.put("a", "ci", lease.Tainted)
		}, map[string]int{}},
		{"makes nothing while a pool backs off, and retires all the same", one(), func(w *world) {
			w.Backoff = map[string]bool{"a": true}
			for range 5 {
				w.put("a", "ci", lease.Shelved)
			}
			w.Demand = append(w.Demand, Want{"ci", []string{"b"}})
		}, map[string]int{"retire excess": 1}},
		{"draws a spare rather than making a guest", fleetOf([]*specs.Pool{testPool("a", 8, 1)}, testCache("ci", 1, 4, 6, "a")), func(w *world) {
			w.put("a", "a", lease.Shelved)
		}, map[string]int{"draw warm": 1}},
		{"puts the new beside the old while max allows", one(), func(w *world) {
			w.put("a", "ci", lease.Shelved)
			w.put("a", "ci", lease.Shelved)
			w.Digests["a"] = "digest-2"
		}, map[string]int{"provision warm": 1}},
		{"takes one old guest away first when max allows no other way", fleetOf([]*specs.Pool{testPool("a", 2, 0)}, testCache("ci", 2, 2, 2, "a")), func(w *world) {
			w.put("a", "ci", lease.Shelved)
			w.put("a", "ci", lease.Shelved)
			w.Digests["a"] = "digest-2"
		}, map[string]int{"retire outdated": 1}},
		{
			"takes no more at once from all caches of a pool than it allows",
			fleetOf([]*specs.Pool{testPool("a", 9, 0)}, testCache("ci", 3, 3, 3, "a"), testCache("qa", 3, 3, 3, "a"), testCache("web", 3, 3, 3, "a")), func(w *world) {
				for _, cache := range []string{"ci", "qa", "web"} {
					w.fill("a", cache, 3)
				}
				w.Digests["a"] = "digest-2"
			},
			map[string]int{"retire outdated": 1},
		},
		{
			"waits with the next cache until what came in the place of an old guest is up",
			fleetOf([]*specs.Pool{testPool("a", 6, 0)}, testCache("ci", 3, 3, 3, "a"), testCache("web", 3, 3, 3, "a")), func(w *world) {
				w.fill("a", "ci", 2)
				w.fill("a", "web", 3)
				w.Digests["a"] = "digest-2"
				w.put("a", "ci", lease.Booting)
			},
			map[string]int{},
		},
		{
			"waits with the next cache while what came in the place of an old guest does not come up",
			fleetOf([]*specs.Pool{testPool("a", 6, 0)}, testCache("ci", 3, 3, 3, "a"), testCache("web", 3, 3, 3, "a")), func(w *world) {
				w.fill("a", "ci", 2)
				w.fill("a", "web", 3)
				w.Digests["a"] = "digest-2"
				w.put("a", "ci", lease.Tainted).Failures = 3
			},
			map[string]int{},
		},
		{
			"goes on in a full cache while another has room and makes guests because some are leased",
			fleetOf([]*specs.Pool{testPool("a", 9, 0)}, testCache("ci", 2, 6, 6, "a"), testCache("web", 2, 2, 2, "a")), func(w *world) {
				w.fill("a", "web", 2)
				w.Digests["a"] = "digest-2"
				w.put("a", "ci", lease.Leased)
				w.put("a", "ci", lease.Booting)
				w.put("a", "ci", lease.Booting)
			},
			map[string]int{"retire outdated": 1},
		},
		{
			"goes on in a full cache while nothing comes up in another that has room",
			fleetOf([]*specs.Pool{testPool("a", 9, 0)}, testCache("ci", 2, 6, 6, "a"), testCache("web", 2, 2, 2, "a")), func(w *world) {
				w.fill("a", "web", 2)
				w.Digests["a"] = "digest-2"
				w.put("a", "ci", lease.Tainted).Failures = 3
			},
			map[string]int{"retire outdated": 1},
		},
		{
			"makes the new beside the old while another cache that is full is broken",
			ageing(4), func(w *world) { w.breakCI(lease.Tainted) },
			map[string]int{"provision warm": 1},
		},
		{
			"goes on in a full cache while another that is full is broken",
			ageing(2), func(w *world) { w.breakCI(lease.Tainted) },
			map[string]int{"retire age": 1},
		},
		{
			"goes on in a full cache while one of another that is full is tried again",
			ageing(2), func(w *world) { w.breakCI(lease.Preparing) },
			map[string]int{"retire age": 1},
		},
		{
			"makes the new beside the old while what came in the place of an old guest elsewhere does not come up",
			fleetOf([]*specs.Pool{testPool("a", 9, 0)}, testCache("ci", 2, 2, 2, "a"), testCache("web", 2, 4, 4, "a")), func(w *world) {
				w.fill("a", "ci", 1)
				w.fill("a", "web", 2)
				w.Digests["a"] = "digest-2"
				w.put("a", "ci", lease.Tainted).Failures = 3
			},
			map[string]int{"provision warm": 1},
		},
		{
			"takes an old guest away beyond warm while what came in the place of one elsewhere does not come up",
			fleetOf([]*specs.Pool{testPool("a", 5, 0)}, testCache("ci", 2, 2, 2, "a"), testCache("web", 2, 3, 3, "a")), func(w *world) {
				w.fill("a", "ci", 1)
				w.fill("a", "web", 2)
				w.Digests["a"] = "digest-2"
				w.fill("a", "web", 1)
				w.put("a", "ci", lease.Tainted).Failures = 3
			},
			map[string]int{"retire outdated": 1},
		},
		{
			"waits with the next cache while nothing of a new digest has come up, though none of the old is left in the first",
			fleetOf([]*specs.Pool{testPool("a", 2, 0)}, testCache("ci", 1, 1, 1, "a"), testCache("web", 1, 1, 1, "a")), func(w *world) {
				w.fill("a", "web", 1)
				w.Digests["a"] = "digest-2"
				w.put("a", "ci", lease.Tainted).Failures = 3
			},
			map[string]int{},
		},
		{
			"goes on in a full cache of another pool while what came from the first does not come up",
			fleetOf([]*specs.Pool{testPool("a", 2, 0), testPool("b", 2, 0)}, testCache("ci", 2, 2, 2, "a", "b"), testCache("web", 2, 2, 2, "b")), func(w *world) {
				w.fill("a", "ci", 1)
				w.fill("b", "web", 2)
				w.Digests["a"], w.Digests["b"] = "digest-2", "digest-2"
				w.put("a", "ci", lease.Tainted).Failures = 3
			},
			map[string]int{"retire outdated": 1},
		},
		{
			"waits with a pool while a guest of another comes in the place of one of its own",
			fleetOf([]*specs.Pool{testPool("a", 4, 0), testPool("b", 4, 0)}, testCache("ci", 2, 2, 2, "a", "b"), testCache("web", 2, 2, 2, "b")), func(w *world) {
				w.fill("b", "ci", 1)
				w.fill("b", "web", 2)
				w.Digests["b"] = "digest-2"
				w.put("a", "ci", lease.Booting)
			},
			map[string]int{},
		},
		{"never touches a leased guest of an old digest", fleetOf([]*specs.Pool{testPool("a", 2, 0)}, testCache("ci", 0, 2, 2, "a")), func(w *world) {
			w.put("a", "ci", lease.Leased)
			w.Digests["a"] = "digest-2"
		}, map[string]int{}},
		{"retires the idle guests of a pool that the spec has no more", fleetOf(nil), func(w *world) {
			w.put("a", "ci", lease.Shelved)
			w.put("a", "ci", lease.Leased)
			w.put("a", "ci", lease.Held)
		}, map[string]int{"retire removed": 1}},
		{
			"takes an idle guest beyond another cache's warm when a pool is full and somebody waits",
			fleetOf([]*specs.Pool{testPool("a", 3, 0)}, testCache("ci", 0, 3, 3, "a"), testCache("web", 1, 3, 3, "a")), func(w *world) {
				for range 3 {
					w.put("a", "web", lease.Shelved)
				}
				w.Demand = append(w.Demand, Want{"ci", []string{"a"}})
			},
			map[string]int{"retire excess": 1},
		},
		{"prefers the pool named first and spills over", fleetOf([]*specs.Pool{testPool("a", 1, 0), testPool("b", 5, 0)}, testCache("ci", 3, 4, 6, "a", "b")), func(*world) {}, map[string]int{"provision warm": 3}},
		{"retires idle guests when a pool's max was lowered", fleetOf([]*specs.Pool{testPool("a", 1, 0)}, testCache("ci", 0, 1, 1, "a"), testCache("web", 0, 1, 1, "a")), func(w *world) {
			w.put("a", "ci", lease.Shelved)
			w.put("a", "web", lease.Shelved)
		}, map[string]int{"retire excess": 1}},
		{
			"makes place for who waits in a cache that is full of guests that cannot serve it",
			fleetOf([]*specs.Pool{testPool("big", 4, 0), testPool("small", 4, 0)}, testCache("ci", 2, 2, 2, "small", "big")), func(w *world) {
				w.put("small", "ci", lease.Shelved)
				w.put("small", "ci", lease.Shelved)
				w.Demand = append(w.Demand, Want{"ci", []string{"big"}})
			},
			map[string]int{"retire excess": 1},
		},
		{"goes on with a rollout while guests of the new digest come and go", one(), func(w *world) {
			w.put("a", "ci", lease.Shelved)
			w.put("a", "ci", lease.Shelved)
			w.Digests["a"] = "digest-2"
			w.put("a", "ci", lease.Resetting)
		}, map[string]int{"provision warm": 1}},
		{"leaves alone what is broken in a stalled shard, and counts it as nobody's", one(), func(w *world) {
			w.put("a", "ci", lease.Tainted)
			w.put("a", "ci", lease.Provisioning)
			id := ShardID("a", "digest-1", 1)
			w.Stalled, w.Busy = map[string]bool{id: true}, map[string]bool{id: true}
		}, map[string]int{"provision warm": 2}},
		{"retires a guest that has not answered yet when its pool is gone", fleetOf(nil), func(w *world) {
			w.put("a", "ci", lease.Booting)
		}, map[string]int{"retire removed": 1}},
		{"warms nothing up in a disabled cache", one(), func(w *world) { w.Off = map[string]bool{"ci": true} }, map[string]int{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(c.fleet)
			if c.fleet.Pool("a") == nil {
				w.Digests["a"] = "digest-1"
			}
			c.given(w)
			if diff := cmp.Diff(c.want, verbs(Decide(w.Snapshot))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnOpenShardThatIsBusyIsNotWaitedFor(t *testing.T) {
	w := newWorld(fleetOf([]*specs.Pool{testPool("a", 8, 0)}, testCache("ci", 2, 4, 6, "a")))
	w.put("a", "ci", lease.Booting)
	w.Busy = map[string]bool{ShardID("a", "digest-1", 1): true}
	if got := Decide(w.Snapshot); len(got) != 1 || got[0].Shard != ShardID("a", "digest-1", 2) {
		t.Errorf("want one guest in the second shard, got %v", got)
	}
}

// Who waits for a guest waits for the plan of all that its shard has.
func TestWhoWaitsGetsAShardThatIsAtMostHalfFull(t *testing.T) {
	pool := testPool("a", 20, 0)
	pool.ShardSize = 4
	shard := func(n int) string { return ShardID("a", "digest-1", n) }
	for _, c := range []struct {
		name   string
		guests []int // in the first shards
		waits  int
		warm   int // to make besides
		want   []string
	}{
		{"half full is not too full", []int{2}, 1, 0, []string{shard(1)}},
		{"more than half full", []int{3}, 1, 0, []string{shard(2)}},
		{"the fuller of those that will do", []int{1, 3, 2}, 1, 0, []string{shard(3)}},
		{"once it is open it is filled", []int{2, 3}, 3, 0, []string{shard(1), shard(1), shard(3)}},
		{"nobody waits", []int{1, 3}, 0, 2, []string{shard(2), shard(1)}},
		{"the one that is open already", []int{3}, 1, 1, []string{shard(2), shard(2)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			total := 0
			for _, n := range c.guests {
				total += n
			}
			w := newWorld(fleetOf([]*specs.Pool{pool}, testCache("full", total, total, total, "a"), testCache("ci", c.warm, 8, 8, "a")))
			for i, n := range c.guests {
				for range n {
					w.put("a", "full", lease.Shelved).Shard = shard(i + 1)
				}
			}
			for range c.waits {
				w.Demand = append(w.Demand, Want{"ci", []string{"a"}})
			}
			var got []string
			for _, a := range Decide(w.Snapshot) {
				got = append(got, a.Shard)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestARolloutReplacesAllAndNeverEmptiesTheShelf(t *testing.T) {
	for _, maximum := range []int{3, 4, 8} {
		t.Run(fmt.Sprintf("with max %d", maximum), func(t *testing.T) {
			w := newWorld(fleetOf([]*specs.Pool{testPool("a", maximum, 0)}, testCache("ci", 3, 3, maximum, "a")))
			w.converge(t)
			w.Digests["a"] = "digest-2"
			for range 40 {
				actions := Decide(w.Snapshot)
				for _, a := range actions {
					if err := w.apply(a); err != nil {
						t.Fatal(err)
					}
				}
				if n := w.count("ci", lease.Shelved); n < 2 {
					t.Fatalf("%d shelved in the middle of a rollout", n)
				}
				w.finish()
			}
			for _, g := range w.Guests {
				if g.Digest != "digest-2" {
					t.Errorf("%s is of %s", g.Name, g.Digest)
				}
			}
			if n := w.count("ci", lease.Shelved); n != 3 {
				t.Errorf("%d shelved at the end", n)
			}
		})
	}
}

func TestARolloutTakesFromEachPoolAtItsOwnPace(t *testing.T) {
	for _, first := range []string{"a", "b"} {
		t.Run("the worthiest is of "+first, func(t *testing.T) {
			wide := testPool("a", 8, 0)
			wide.Rollout.MaxUnavailable = 3
			w := newWorld(fleetOf([]*specs.Pool{wide, testPool("b", 8, 0)}, testCache("ci", 6, 6, 6, "a", "b")))
			last := map[string]string{"a": "b", "b": "a"}[first]
			w.fill(last, "ci", 3)
			w.fill(first, "ci", 3)
			w.Digests["a"], w.Digests["b"] = "digest-2", "digest-2"
			got := map[string]int{}
			for _, a := range Decide(w.Snapshot) {
				got[string(a.Verb)+" of "+a.Pool]++
			}
			if got["retire of b"] > 1 || got["retire of a"]+got["retire of b"] != 3 {
				t.Errorf("%v", got)
			}
		})
	}
}

func TestARolloutKeepsThePaceOfItsPoolsInAllCachesTogether(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawRollout(t)
		w.converge(t)
		for _, p := range w.Fleet.Pools {
			w.Digests[p.Name] = "digest-2"
		}
		for range 400 {
			actions := Decide(w.Snapshot)
			for _, a := range actions {
				if err := w.apply(a); err != nil {
					t.Fatal(err)
				}
			}
			w.checkPace(t)
			if len(actions) == 0 && w.settled() {
				break
			}
			w.finishSome(func() bool { return rapid.Bool().Draw(t, "ends") })
		}
		for _, g := range w.Guests {
			if g.Digest != "digest-2" {
				t.Fatalf("%s in %s is of %s at the end", g.Name, g.Cache, g.Digest)
			}
		}
	})
}

// drawRollout makes a fleet that can be warm as a whole, with some room or none.
func drawRollout(t *rapid.T) *world {
	a, b := testPool("a", 0, 0), testPool("b", 0, 0)
	a.Rollout.MaxUnavailable = rapid.IntRange(1, 3).Draw(t, "pace a")
	fleet := fleetOf([]*specs.Pool{a, b})
	for _, name := range []string{"ci", "qa", "web"} {
		from := rapid.SampledFrom([][]string{{"a"}, {"b"}, {"a", "b"}}).Draw(t, name+" from")
		warm := rapid.IntRange(0, 4).Draw(t, name+" warm")
		c := testCache(name, warm, warm+1, warm+rapid.IntRange(0, 2).Draw(t, name+" more"), from...)
		fleet.Caches = append(fleet.Caches, c)
		for _, p := range from {
			fleet.Pool(p).Max += warm
		}
	}
	for _, p := range fleet.Pools {
		p.Max += rapid.IntRange(0, 2).Draw(t, p.Name+" more")
	}
	return newWorld(fleet)
}

// checkPace finds more guests missing because of a rollout than the pools allow: what is not warm, where nobody leases.
func (w *world) checkPace(t *rapid.T) {
	missing, retiring := map[string]int{}, map[string]int{}
	all, paces := 0, 0
	for _, c := range w.Fleet.Caches {
		n := max(0, c.Warm-w.count(c.Name, lease.Shelved))
		all += n
		if len(c.Pools) == 1 {
			missing[c.Pools[0]] += n
		}
	}
	for _, g := range w.Guests {
		if g.State == lease.Retiring && g.Reason == "outdated" {
			retiring[g.Pool]++
		}
	}
	for _, p := range w.Fleet.Pools {
		pace := p.Rollout.MaxUnavailable
		paces += pace
		if missing[p.Name] > pace || retiring[p.Name] > pace {
			t.Fatalf("pool %s lacks %d and retires %d, its pace is %d: %v", p.Name, missing[p.Name], retiring[p.Name], pace, w.Guests)
		}
	}
	if all > paces {
		t.Fatalf("%d guests are missing, the pools allow %d: %v", all, paces, w.Guests)
	}
}

// finishSome lets some of what is under way end well; one at least, or none would be a matter of luck.
func (w *world) finishSome(ends func() bool) {
	w.Now = w.Now.Add(time.Second)
	first := true
	w.Guests = slices.DeleteFunc(w.Guests, func(g lease.Guest) bool {
		gone := g.State == lease.Retiring && (first || ends())
		first = first && !gone
		return gone
	})
	for i := range w.Guests {
		if g := &w.Guests[i]; g.State == lease.Planned && (first || ends()) {
			g.State, g.Since, first = lease.Shelved, w.Now, false
		}
	}
}

// drawWorld makes a random fleet with a random inventory.
func drawWorld(t *rapid.T) *world {
	fleet := drawFleet(t)
	w := newWorld(fleet)
	names := []string{"a", "b"}
	for _, p := range names {
		if w.Digests[p] == "" {
			w.Digests[p] = "digest-1"
		}
	}
	states := append(slices.Clone(lease.States), lease.Shelved, lease.Leased, lease.Shelved)
	for range rapid.IntRange(0, 10).Draw(t, "guests") {
		pool := rapid.SampledFrom(names).Draw(t, "pool")
		cache := rapid.SampledFrom([]string{"ci", "web", pool}).Draw(t, "cache")
		g := w.put(pool, cache, rapid.SampledFrom(states).Draw(t, "state"))
		if rapid.Bool().Draw(t, "old") {
			g.Digest, g.Shard = "digest-0", ShardID(pool, "digest-0", 1)
		}
		if w.checkMax() != nil || fleet.Pool(pool) != nil && w.before(pool) > fleet.Pool(pool).Max {
			w.Guests = w.Guests[:len(w.Guests)-1]
		}
	}
	for range rapid.IntRange(0, 4).Draw(t, "demand") {
		c := rapid.SampledFrom(fleet.AllCaches()).Draw(t, "wants")
		w.Demand = append(w.Demand, Want{c.Name, c.Pools})
	}
	return w
}

func drawFleet(t *rapid.T) *specs.Fleet {
	pools := []*specs.Pool{testPool("a", rapid.IntRange(1, 8).Draw(t, "max a"), 0)}
	if rapid.Bool().Draw(t, "two pools") {
		b := testPool("b", rapid.IntRange(1, 8).Draw(t, "max b"), 0)
		b.Spare = rapid.IntRange(0, min(2, b.Max)).Draw(t, "spare b")
		b.Rollout.MaxUnavailable = rapid.IntRange(1, 3).Draw(t, "pace b")
		pools = append(pools, b)
	}
	fleet := &specs.Fleet{Revision: "r", Pools: pools}
	for _, name := range []string{"ci", "web"} {
		from := []string{"a"}
		if len(pools) > 1 && rapid.Bool().Draw(t, name+" of both") {
			from = []string{"b", "a"}
		}
		maximum := rapid.IntRange(1, 8).Draw(t, name+" max")
		size := rapid.IntRange(0, maximum).Draw(t, name+" size")
		fleet.Caches = append(fleet.Caches, testCache(name, rapid.IntRange(0, size).Draw(t, name+" warm"), size, maximum, from...))
	}
	return fleet
}

func TestDecideKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		first := Decide(w.Snapshot)
		if diff := cmp.Diff(fmt.Sprint(first), fmt.Sprint(Decide(w.Snapshot))); diff != "" {
			t.Fatalf("the same question, another answer:\n%s", diff)
		}
		before := map[string]int{}
		for _, c := range w.Fleet.Caches {
			before[c.Name] = w.count(c.Name, lease.Shelved)
		}
		seen := map[string]bool{}
		for _, a := range first {
			if a.Guest.State == lease.Leased {
				t.Fatalf("%v touches a leased guest", a)
			}
			if a.Guest.Name != "" && seen[a.Guest.Name] {
				t.Fatalf("%v: twice in one answer", a)
			}
			seen[a.Guest.Name] = true
			if err := w.apply(a); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range w.Fleet.Caches {
			if n := w.count(c.Name, lease.Shelved); n < min(before[c.Name], c.Warm, max(1, c.Warm-3)) && !shrinks(first, c.Name) && c.Warm > 1 {
				t.Fatalf("cache %s goes from %d to %d shelved, warm is %d: %v", c.Name, before[c.Name], n, c.Warm, first)
			}
		}
	})
}

// shrinks tells that guests went because a pool is over its max or gone, which comes before warm.
func shrinks(actions []Action, cache string) bool {
	return slices.ContainsFunc(actions, func(a Action) bool {
		return a.Cache == cache && a.Verb == Retire && (a.Reason == "excess" || a.Reason == "removed")
	})
}

func TestDecideComesToAnEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		w.converge(t)
		for _, g := range w.Guests {
			if g.State == lease.Tainted || g.State == lease.Failed {
				t.Fatalf("%s is still %s", g.Name, g.State)
			}
		}
		for _, c := range w.Fleet.Caches {
			room := 0
			for _, name := range c.Pools {
				p := w.Fleet.Pool(name)
				room += p.Max - w.before(name)
			}
			total := 0
			for _, g := range w.Guests {
				if g.Cache == c.Name {
					total++
				}
			}
			if n := w.count(c.Name, lease.Shelved); n < c.Warm && room > 0 && total < c.Max {
				t.Fatalf("cache %s has %d of %d warm although there is room for %d", c.Name, n, c.Warm, room)
			}
			if n := w.count(c.Name, lease.Shelved); n > c.Size {
				t.Fatalf("cache %s has %d shelved, size is %d", c.Name, n, c.Size)
			}
		}
	})
}

func TestEachGuestOfManySmallShardsGetsItsOwn(t *testing.T) {
	pool := testPool("p", 30_000, 0)
	pool.ShardSize = 1
	w := newWorld(fleetOf([]*specs.Pool{pool}, testCache("c", 30_000, 30_000, 30_000, "p")))
	seen := map[string]bool{}
	for _, a := range Decide(w.Snapshot) { // a search of all shards for each guest would take minutes
		if seen[a.Shard] {
			t.Fatalf("two guests in %s", a.Shard)
		}
		seen[a.Shard] = true
	}
	if len(seen) != 30_000 {
		t.Errorf("%d shards", len(seen))
	}
}
