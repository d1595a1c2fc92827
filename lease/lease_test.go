package lease_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"greenroom/lease"
	"greenroom/lease/leasetest"
	"greenroom/specs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	alice = lease.Caller{Name: "alice", Owner: "platform", Role: lease.User}
	mallo = lease.Caller{Name: "mallory", Owner: "web", Role: lease.User}
	admin = lease.Caller{Name: "root", Owner: "ops", Role: lease.Admin}
)

func pool(name string, maximum int) *specs.Pool {
	return &specs.Pool{Name: name, Module: "local", Max: maximum, ShardSize: 25, Labels: map[string]string{"os": "debian"}, Capacity: map[string]float64{"cpus": 2}}
}

func ci() *specs.Cache {
	return &specs.Cache{
		Name: "ci", Owner: "platform", Pools: []string{"local"}, Warm: 2, Size: 4, Max: 6, Enabled: true,
		Lease: specs.Lease{TTL: time.Minute, Max: time.Hour}, Hold: specs.Hold{For: time.Hour, Max: 1},
	}
}

// bench is a store with a fleet in force, and what a test does with it.
type bench struct {
	*lease.Store
	t     testing.TB
	rdb   redis.UniversalClient
	fleet *specs.Fleet
	key   func(string) string
}

var prefixes atomic.Int64

func open(t testing.TB, rdb redis.UniversalClient, caches ...*specs.Cache) *bench {
	t.Helper()
	prefix := fmt.Sprintf("t%d", prefixes.Add(1))
	b := &bench{Store: lease.New(rdb, lease.Options{Prefix: prefix}), t: t, rdb: rdb}
	b.key = func(k string) string { return prefix + ":{ci}:" + k }
	b.fleet = &specs.Fleet{Revision: "r1", Pools: []*specs.Pool{pool("local", 8)}, Caches: caches}
	b.must(b.Open(t.Context()))
	b.must(b.Adopt(t.Context(), b.fleet))
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// shelf makes n guests for a cache and brings them to its shelf, or to whoever waits.
func (b *bench) shelf(cache string, n int) (made []lease.Guest) {
	b.t.Helper()
	for range n {
		g, err := b.Plan(b.t.Context(), b.fleet.Pool("local"), b.fleet.Cache(cache), "s1", "d1", false)
		b.must(err)
		made = append(made, b.boot(g))
	}
	return made
}

func (b *bench) boot(g lease.Guest) lease.Guest {
	b.t.Helper()
	return b.bootAs(g, lease.Machine{ID: g.Name, Host: "127.0.0.1", Port: 22})
}

// bootAs brings a guest up with the machine that its run made.
func (b *bench) bootAs(g lease.Guest, m lease.Machine) lease.Guest {
	b.t.Helper()
	ctx := b.t.Context()
	g, err := b.Claim(ctx, g, lease.Provisioning, "run1", "", 0)
	b.must(err)
	g, err = b.Publish(ctx, g, "run1", g.Incarnation, m)
	b.must(err)
	g, err = b.Booted(ctx, g)
	b.must(err)
	return g
}

func (b *bench) acquire(r lease.Request) lease.Lease {
	b.t.Helper()
	if r.Cache == "" {
		r.Cache = "ci"
	}
	l, err := b.Acquire(b.t.Context(), alice, r)
	b.must(err)
	return l
}

func (b *bench) state(name string) lease.State {
	b.t.Helper()
	g, err := b.Guest(b.t.Context(), name)
	b.must(err)
	return g.State
}

func (b *bench) look(id string) lease.Lease {
	b.t.Helper()
	l, err := b.Get(b.t.Context(), alice, id)
	b.must(err)
	return l
}

// past moves the end of something in a sorted set into the past: the store's clock cannot be moved.
func (b *bench) past(set, member string) {
	b.t.Helper()
	b.must(b.rdb.ZAdd(b.t.Context(), b.key(set), redis.Z{Score: float64(time.Now().Add(-time.Second).UnixMilli()), Member: member}).Err())
}

// runsOut moves the deadline of a lease into the past, unless it is over.
func (b *bench) runsOut(l lease.Lease) {
	b.t.Helper()
	const script = `local text = redis.call('GET', KEYS[1])
		if string.sub(text, 1, 6) ~= 'active' then return 0 end
		redis.call('SET', KEYS[1], (string.gsub(text, '^(' .. string.rep('[^\n]*\n', 8) .. ')[^\n]*', '%1' .. ARGV[1])))
		return redis.call('ZADD', KEYS[2], ARGV[1], ARGV[2])`
	over := time.Now().Add(-time.Second).UnixMilli()
	b.must(b.rdb.Eval(b.t.Context(), script, []string{b.key("lease:" + l.ID), b.key("in:local:leased")}, over, l.Guest).Err())
}

func TestAGuestGoesFromTheShelfToAHolderAndBack(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		b.shelf("ci", 2)
		first := b.acquire(lease.Request{Wait: lease.Forever})
		if first.Phase != lease.Active || !first.Hit || first.Source != "shelf" || b.state(first.Guest) != lease.Leased {
			t.Fatalf("want a hit from the shelf, got %+v", first)
		}
		renewed, err := b.Renew(t.Context(), alice, first.ID)
		b.must(err)
		if renewed.Deadline.Before(first.Deadline) || renewed.Deadline.After(renewed.Cap) {
			t.Errorf("renewed to %v, was %v, cap %v", renewed.Deadline, first.Deadline, renewed.Cap)
		}
		for range 2 {
			done, err := b.Release(t.Context(), alice, first.ID, lease.Release{Outcome: "pass"})
			b.must(err)
			if done.How != lease.Released || done.Outcome != "pass" || b.state(first.Guest) != lease.Shelved {
				t.Fatalf("want it released and shelved, got %+v", done)
			}
		}
		if again := b.acquire(lease.Request{}); again.Guest != first.Guest {
			t.Errorf("the guest used last is the warmest: want %s, got %s", first.Guest, again.Guest)
		}
		stock, err := b.Stock(t.Context(), "ci")
		b.must(err)
		want := map[string]int64{"hits": 2, "ended:released": 1}
		if diff := cmp.Diff(want, stock.Stats); diff != "" {
			t.Errorf("stats (-want +got):\n%s", diff)
		}
		if stock.In(lease.Leased) != 1 || stock.In(lease.Shelved) != 1 {
			t.Errorf("counts %v", stock.Counts)
		}
	})
}

func TestAFreedGuestGoesStraightToTheHeadOfTheQueue(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		b.shelf("ci", 1)
		holder := b.acquire(lease.Request{})
		var line []lease.Lease
		for i := range 3 {
			l := b.acquire(lease.Request{Wait: lease.Forever})
			if l.Phase != lease.Queued || l.Position != i+1 {
				t.Fatalf("want place %d, got %+v", i+1, l)
			}
			line = append(line, l)
		}
		if _, err := b.Acquire(t.Context(), alice, lease.Request{Cache: "ci"}); !errors.Is(err, lease.ErrNoneReady) {
			t.Errorf("who does not want to wait gets ErrNoneReady, got %v", err)
		}
		_, err := b.Release(t.Context(), alice, line[1].ID, lease.Release{})
		b.must(err)
		_, err = b.Release(t.Context(), alice, holder.ID, lease.Release{})
		b.must(err)
		if l := b.look(line[0].ID); l.Phase != lease.Active || l.Hit || l.Guest != holder.Guest {
			t.Errorf("want the first in line to have %s, got %+v", holder.Guest, l)
		}
		if l := b.look(line[1].ID); l.How != lease.Cancelled {
			t.Errorf("want the second cancelled, got %+v", l)
		}
		if l := b.look(line[2].ID); l.Phase != lease.Queued || l.Position != 1 {
			t.Errorf("want the third to be first now, got %+v", l)
		}
		b.shelf("ci", 1)
		if l := b.look(line[2].ID); l.Phase != lease.Active || l.Source != "new" {
			t.Errorf("want a new guest handed over, got %+v", l)
		}
	})
}

func TestWaitReturnsWhenTheLeaseIsGranted(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		queued := b.acquire(lease.Request{Wait: lease.Forever})
		got := make(chan lease.Lease, 1)
		go func() {
			l, err := b.Wait(t.Context(), alice, queued.ID)
			if err != nil {
				t.Error(err)
			}
			got <- l
		}()
		b.shelf("ci", 1)
		if l := <-got; l.Phase != lease.Active {
			t.Errorf("want it active, got %+v", l)
		}
	})
}

func TestTheSameKeyIsTheSameLease(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		b.shelf("ci", 2)
		first := b.acquire(lease.Request{Key: "job-1"})
		again := b.acquire(lease.Request{Key: "job-1"})
		if again.ID != first.ID || !again.Replayed {
			t.Errorf("want %s again, got %+v", first.ID, again)
		}
		if _, err := b.Acquire(t.Context(), alice, lease.Request{Cache: "ci", Key: "job-1", TTL: 5 * time.Second}); !errors.Is(err, lease.ErrReplay) {
			t.Errorf("another request with the key: want ErrReplay, got %v", err)
		}
		other, err := b.Acquire(t.Context(), admin, lease.Request{Cache: "ci", Key: "job-1"})
		b.must(err)
		if other.ID == first.ID {
			t.Error("a key is the caller's own")
		}
	})
}

func TestAcquireRefuses(t *testing.T) {
	b := open(t, leasetest.Embedded(t), ci())
	long := strings.Repeat("k", 200)
	for _, c := range []struct {
		name string
		by   lease.Caller
		r    lease.Request
		want error
	}{
		{"a cache that the spec does not have", alice, lease.Request{Cache: "nope"}, lease.ErrUnknownCache},
		{"another owner's cache", mallo, lease.Request{Cache: "ci"}, lease.ErrNotYours},
		{"labels that no pool has", alice, lease.Request{Cache: "ci", Labels: map[string]string{"os": "plan9"}}, lease.ErrImpossible},
		{"more capacity than any pool has", alice, lease.Request{Cache: "ci", AtLeast: map[string]float64{"cpus": 64}}, lease.ErrImpossible},
		{"labels that no pool has, without a cache", alice, lease.Request{Labels: map[string]string{"os": "plan9"}}, lease.ErrImpossible},
		{"a key that is too long", alice, lease.Request{Cache: "ci", Key: long}, lease.ErrInvalid},
		{"a ttl below a second", alice, lease.Request{Cache: "ci", TTL: time.Millisecond}, lease.ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := b.Acquire(t.Context(), c.by, c.r); !errors.Is(err, c.want) {
				t.Errorf("want %v, got %v", c.want, err)
			}
		})
	}
	stock, err := b.Stock(t.Context(), "ci")
	b.must(err)
	if stock.Queue != 0 || len(stock.Stats) != 0 {
		t.Errorf("a refused request leaves nothing behind: %+v", stock)
	}
}

func TestALeaseIsItsOwnersOnly(t *testing.T) {
	b := open(t, leasetest.Embedded(t), ci())
	b.shelf("ci", 1)
	l := b.acquire(lease.Request{})
	if _, err := b.Get(t.Context(), mallo, l.ID); !errors.Is(err, lease.ErrNotYours) {
		t.Errorf("get: %v", err)
	}
	if _, err := b.Renew(t.Context(), mallo, l.ID); !errors.Is(err, lease.ErrNotYours) {
		t.Errorf("renew: %v", err)
	}
	if _, err := b.Release(t.Context(), mallo, l.ID, lease.Release{}); !errors.Is(err, lease.ErrNotYours) {
		t.Errorf("release: %v", err)
	}
	if _, err := b.Get(t.Context(), alice, "ci.NOSUCH"); !errors.Is(err, lease.ErrUnknownLease) {
		t.Errorf("unknown: %v", err)
	}
	if _, err := b.Get(t.Context(), alice, "{}"); !errors.Is(err, lease.ErrUnknownLease) {
		t.Errorf("nonsense: %v", err)
	}
}

func TestALeasedGuestIsUntouchable(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		b.shelf("ci", 1)
		l := b.acquire(lease.Request{})
		g, err := b.Guest(t.Context(), l.Guest)
		b.must(err)
		for _, to := range []lease.State{lease.Replacing, lease.Retiring, lease.Provisioning} {
			if _, err := b.Claim(t.Context(), g, to, "run2", "test", 0); !errors.Is(err, lease.ErrLeased) {
				t.Errorf("claim for %s: want ErrLeased, got %v", to, err)
			}
		}
		if _, err := b.Taint(t.Context(), admin, g, lease.Taint{Reason: "dead"}); !errors.Is(err, lease.ErrLeased) {
			t.Errorf("taint: want ErrLeased, got %v", err)
		}
		if after, err := b.Taint(t.Context(), admin, g, lease.Taint{Reason: "manual", Condemn: true}); err != nil || after.State != lease.Leased {
			t.Errorf("condemn: %v, %v", after, err)
		}
		_, err = b.Release(t.Context(), alice, l.ID, lease.Release{})
		b.must(err)
		if s := b.state(g.Name); s != lease.Tainted {
			t.Errorf("a condemned guest is tainted when its lease ends, got %s", s)
		}
	})
}

func TestAReleasedGuestGoesWhereItsCacheSays(t *testing.T) {
	for _, c := range []struct {
		name    string
		cache   func(*specs.Cache)
		release lease.Release
		want    lease.State
		reason  string
	}{
		{"to the shelf", func(*specs.Cache) {}, lease.Release{}, lease.Shelved, ""},
		{"to be reset", func(c *specs.Cache) { c.Reset.Body = []byte("true") }, lease.Release{}, lease.Resetting, ""},
		{"away when its uses are up", func(c *specs.Cache) { c.Reuse.Uses = 1 }, lease.Release{}, lease.Tainted, "uses"},
		{"away when it is too old", func(c *specs.Cache) { c.Reuse.Age = time.Nanosecond * 1e6 }, lease.Release{}, lease.Tainted, "age"},
		{"away when the shelf is full", func(c *specs.Cache) { c.Size = 0; c.Warm = 0 }, lease.Release{}, lease.Tainted, "excess"},
		{"away when its holder says so", func(*specs.Cache) {}, lease.Release{Discard: true}, lease.Tainted, "unwanted"},
		{"aside when it is to be held", func(*specs.Cache) {}, lease.Release{Hold: time.Minute}, lease.Held, "hold"},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := ci()
			c.cache(spec)
			b := open(t, leasetest.Embedded(t), spec)
			b.shelf("ci", 1)
			l := b.acquire(lease.Request{})
			b.must(b.rdb.HSet(t.Context(), b.key("guest:"+l.Guest), "born", time.Now().Add(-time.Hour).UnixMilli()).Err())
			_, err := b.Release(t.Context(), alice, l.ID, c.release)
			b.must(err)
			g, err := b.Guest(t.Context(), l.Guest)
			b.must(err)
			if g.State != c.want || g.Reason != c.reason {
				t.Errorf("want %s (%s), got %s (%s)", c.want, c.reason, g.State, g.Reason)
			}
		})
	}
}

func TestHoldsHaveABudgetAndAnEnd(t *testing.T) {
	b := open(t, leasetest.Embedded(t), ci())
	b.shelf("ci", 2)
	one, two := b.acquire(lease.Request{}), b.acquire(lease.Request{})
	_, err := b.Release(t.Context(), alice, one.ID, lease.Release{Hold: time.Minute})
	b.must(err)
	if _, err := b.Release(t.Context(), alice, two.ID, lease.Release{Hold: time.Minute}); !errors.Is(err, lease.ErrHoldBudget) {
		t.Fatalf("want ErrHoldBudget, got %v", err)
	}
	if l := b.look(two.ID); l.Phase != lease.Active {
		t.Errorf("a refused release changes nothing, got %+v", l)
	}
	b.past("holds", one.Guest)
	b.must(b.Sweep(t.Context()))
	if s := b.state(one.Guest); s != lease.Tainted {
		t.Errorf("after the hold: %s", s)
	}
}

func TestTimeEndsLeasesAndRequests(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		b.must(b.Sweep(t.Context()))
		b.shelf("ci", 1)
		held := b.acquire(lease.Request{})
		gone := b.acquire(lease.Request{Wait: lease.Forever})
		next := b.acquire(lease.Request{Wait: lease.Forever})
		b.past("patience", gone.ID)
		b.runsOut(held)
		b.must(b.Sweep(t.Context()))
		if l := b.look(held.ID); l.How != lease.Expired {
			t.Errorf("want it expired, got %+v", l)
		}
		if _, err := b.Renew(t.Context(), alice, held.ID); !errors.Is(err, lease.ErrOver) {
			t.Errorf("renewing it: want ErrOver, got %v", err)
		}
		if l := b.look(gone.ID); l.How != lease.Abandoned {
			t.Errorf("want it abandoned, got %+v", l)
		}
		if l := b.look(next.ID); l.Phase != lease.Active || l.Guest != held.Guest {
			t.Errorf("want the guest handed on, got %+v", l)
		}
	})
}

// The deadline that a gap has moved is that of the lease's TTL again once it is renewed.
func TestARenewalAfterAGapMovesTheDeadlineBack(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		b.must(b.Sweep(t.Context()))
		b.shelf("ci", 1)
		l := b.acquire(lease.Request{TTL: 10 * time.Second})
		b.pause(l)
		moved := b.look(l.ID)
		b.renewed(l)
		back := b.look(l.ID)
		if !back.Deadline.Before(moved.Deadline) || b.places()[l.Guest].After(back.Deadline) {
			t.Errorf("it was moved to %v, renewed to %v, and is looked at at %v", moved.Deadline, back.Deadline, b.places()[l.Guest])
		}
	})
}

func TestASweepLooksAtAllThatIsDue(t *testing.T) {
	const many = 230 // more than one script does
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		spec := ci()
		spec.Max, spec.Size = many, many
		b := open(t, rdb, spec)
		b.fleet.Pools[0].Max = many
		b.must(b.Adopt(t.Context(), b.fleet))
		b.must(b.Sweep(t.Context()))
		b.shelf("ci", many)
		var all []lease.Lease
		for i := range many {
			if i%20 == 0 {
				b.must(b.Sweep(t.Context())) // on a slow machine it would be a gap
			}
			all = append(all, b.acquire(lease.Request{}))
		}
		b.must(b.Sweep(t.Context()))
		for i, l := range all {
			if i%2 == 0 {
				b.past("in:local:leased", l.Guest) // too early
			} else {
				b.runsOut(l)
			}
		}
		b.must(b.Sweep(t.Context()))
		for i, l := range all {
			switch now := b.look(l.ID); {
			case i%2 == 0 && (now.Phase != lease.Active || !b.places()[l.Guest].Equal(l.Deadline)):
				t.Fatalf("%s goes on until %v: %+v, looked at at %v", l.ID, l.Deadline, now, b.places()[l.Guest])
			case i%2 == 1 && now.How != lease.Expired:
				t.Fatalf("%s has run out: %+v", l.ID, now)
			}
		}
		listed, err := b.Leases(t.Context(), "ci", many)
		b.must(err)
		inOrder := slices.IsSortedFunc(listed, func(a, b lease.Lease) int { return a.Deadline.Compare(b.Deadline) })
		if len(listed) != many/2 || !inOrder {
			t.Errorf("%d leases are listed, in the order of their deadlines: %v", len(listed), inOrder)
		}
	})
}

func TestANewMachineHasNoUses(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		spec := ci()
		spec.Reuse.Uses = 1
		b := open(t, rdb, spec)
		b.shelf("ci", 1)
		l := b.release(b.acquire(lease.Request{}))
		used := b.guest(l)
		g, err := b.Claim(t.Context(), used, lease.Replacing, "run", "", 0)
		b.must(err)
		b.must(second(b.Publish(t.Context(), g, "run", g.Incarnation+1, lease.Machine{Host: "127.0.0.1", Port: 22})))
		if now := b.guest(l); used.Uses != 1 || now.Uses != 0 || now.Incarnation != 2 {
			t.Errorf("%d uses, and those of incarnation %d: %d", used.Uses, now.Incarnation, now.Uses)
		}
	})
}

func TestTimeInWhichNobodyCouldRenewEndsNothing(t *testing.T) {
	b := open(t, leasetest.Embedded(t), ci())
	b.must(b.Sweep(t.Context()))
	b.shelf("ci", 1)
	held := b.acquire(lease.Request{})
	waiting := b.acquire(lease.Request{Wait: lease.Forever})
	b.past("patience", waiting.ID)
	b.runsOut(held)
	b.must(b.rdb.Set(t.Context(), b.key("swept"), time.Now().Add(-time.Hour).UnixMilli(), 0).Err())
	b.must(b.Sweep(t.Context()))
	if l := b.look(held.ID); l.Phase != lease.Active || time.Until(l.Deadline) < time.Minute {
		t.Errorf("want the lease alive with grace, got %+v", l)
	}
	if l := b.look(waiting.ID); l.Phase != lease.Queued {
		t.Errorf("want the request in line, got %+v", l)
	}
}

func TestMaxIsNeverExceeded(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		small := ci()
		small.Max = 3
		b := open(t, rdb, small)
		var wg sync.WaitGroup
		var made atomic.Int64
		for range 10 {
			wg.Go(func() {
				_, err := b.Plan(t.Context(), b.fleet.Pool("local"), b.fleet.Cache("ci"), "s1", "d1", false)
				if err == nil {
					made.Add(1)
				} else if !errors.Is(err, lease.ErrFull) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if made.Load() != 3 {
			t.Errorf("want 3 planned, got %d", made.Load())
		}
		for range 10 {
			_, err := b.Plan(t.Context(), b.fleet.Pool("local"), b.fleet.Cache("local"), "s1", "d1", false)
			if err == nil {
				made.Add(1)
			}
		}
		guests, err := b.Guests(t.Context(), "local")
		b.must(err)
		if len(guests) != 8 || made.Load() != 8 {
			t.Errorf("want the pool's max of 8, got %d of %d", len(guests), made.Load())
		}
	})
}

func TestASpareIsDrawnIntoACache(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		spec := ci()
		spec.Prepare.Body = []byte("true")
		b := open(t, rdb, spec)
		spare := b.shelf("local", 1)[0]
		if spare.State != lease.Shelved || spare.Cache != "local" {
			t.Fatalf("want a spare, got %+v", spare)
		}
		drawn, err := b.Draw(t.Context(), spare, b.fleet.Cache("ci"))
		b.must(err)
		if drawn.State != lease.Preparing || drawn.Cache != "ci" || drawn.Host != "127.0.0.1" {
			t.Fatalf("got %+v", drawn)
		}
		ready, err := b.Prepared(t.Context(), drawn)
		b.must(err)
		if ready.State != lease.Shelved {
			t.Errorf("got %+v", ready)
		}
		guests, err := b.Guests(t.Context(), "local")
		b.must(err)
		if len(guests) != 1 || guests[0].Cache != "ci" {
			t.Errorf("want it once, in the cache: %+v", guests)
		}
		events, err := b.Events(t.Context(), spare.Name, 50)
		b.must(err)
		if len(events) < 6 || events[0].To != lease.Shelved {
			t.Errorf("history: %+v", events)
		}
	})
}

func TestADrawThatACrashCutShortIsFinished(t *testing.T) {
	b := open(t, leasetest.Embedded(t), ci())
	spare := b.shelf("local", 1)[0]
	to := "ci"
	_, err := b.Move(t.Context(), admin, lease.DrawStep(spare, to))
	b.must(err)
	b.must(b.Mend(t.Context(), "local"))
	if g, err := b.Guest(t.Context(), spare.Name); err != nil || g.Cache != "ci" || g.State != lease.Shelved {
		t.Errorf("got %+v, %v", g, err)
	}
	left, err := b.CacheGuests(t.Context(), "local")
	b.must(err)
	if len(left) != 0 {
		t.Errorf("left behind: %+v", left)
	}
}

func TestADisabledCacheQueuesAndServesWhenItIsEnabledAgain(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		b.shelf("ci", 1)
		b.must(b.Toggle(t.Context(), admin, "ci", lease.Override{Enabled: false, Reason: "maintenance"}))
		l := b.acquire(lease.Request{Wait: lease.Forever})
		if l.Phase != lease.Queued {
			t.Fatalf("want it queued, got %+v", l)
		}
		b.must(b.Untoggle(t.Context(), admin, "ci"))
		if l := b.look(l.ID); l.Phase != lease.Active {
			t.Errorf("want it served, got %+v", l)
		}
	})
}

func TestALostStoreGivesAGuestBackToItsHolder(t *testing.T) {
	k := lease.NewSigner([]byte("0123456789abcdef0123456789abcdef"))
	b := open(t, leasetest.Embedded(t), ci())
	b.shelf("ci", 1)
	l := b.acquire(lease.Request{})
	token := k.Sign(l)
	g, err := b.Guest(t.Context(), l.Guest)
	b.must(err)

	lost := open(t, b.rdb, ci())
	lost.must(lost.Found(t.Context(), g, lease.Machine{ID: g.ID, Host: g.Host, Port: g.Port}, time.Now().Add(time.Hour)))
	if s := lost.state(g.Name); s != lease.Quarantined {
		t.Fatalf("want it quarantined, got %s", s)
	}
	if _, err := lost.Restore(t.Context(), alice, lease.NewSigner([]byte("another key, another key, another")), l.ID, token); !errors.Is(err, lease.ErrInvalid) {
		t.Errorf("a forged token: %v", err)
	}
	if _, err := lost.Restore(t.Context(), mallo, k, l.ID, token); !errors.Is(err, lease.ErrNotYours) {
		t.Errorf("a foreign token: %v", err)
	}
	back, err := lost.Restore(t.Context(), alice, k, l.ID, token)
	lost.must(err)
	if back.Guest != g.Name || back.Phase != lease.Active || lost.state(g.Name) != lease.Leased {
		t.Errorf("got %+v", back)
	}
}

func TestOneWriterPerShard(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		first, err := b.Lock(t.Context(), "local", "s1", "a", time.Minute)
		b.must(err)
		if _, err := b.Lock(t.Context(), "local", "s1", "b", time.Minute); !errors.Is(err, lease.ErrLocked) {
			t.Errorf("want ErrLocked, got %v", err)
		}
		same, err := b.Lock(t.Context(), "local", "s1", "a", time.Minute)
		b.must(err)
		b.must(b.Unlock(t.Context(), "local", "s1", "a"))
		next, err := b.Lock(t.Context(), "local", "s1", "b", time.Minute)
		b.must(err)
		if same != first || next <= first {
			t.Errorf("tokens %d, %d, %d: want a renewal to keep it and a new writer's to be higher", first, same, next)
		}
	})
}

func TestAStoreThatIsAwaySaysSo(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})
	defer func() { _ = rdb.Close() }()
	if err := lease.New(rdb, lease.Options{}).Ping(t.Context()); !errors.Is(err, lease.ErrUnavailable) {
		t.Errorf("want ErrUnavailable, got %v", err)
	}
}

func TestAReleaseIsToldOnce(t *testing.T) {
	var ends int
	b := open(t, leasetest.Embedded(t), ci())
	told := lease.New(b.rdb, lease.Options{Prefix: strings.SplitN(b.key(""), ":", 2)[0], Notify: one(func(c lease.Change) {
		if c.Kind == lease.LeaseEnded {
			ends++
		}
	})})
	b.shelf("ci", 1)
	l := b.acquire(lease.Request{})
	for range 3 {
		_, err := told.Release(t.Context(), alice, l.ID, lease.Release{})
		b.must(err)
	}
	if ends != 1 {
		t.Errorf("told %d times", ends)
	}
}

func TestTheStockCountsGuestsOfPoolsThatTheCacheHasLeft(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		b.shelf("ci", 2)
		moved := ci()
		moved.Pools = []string{"other"}
		b.must(b.Adopt(t.Context(), &specs.Fleet{Revision: "r2", Pools: []*specs.Pool{pool("local", 8), pool("other", 8)}, Caches: []*specs.Cache{moved}}))
		st, err := b.Stock(t.Context(), "ci")
		b.must(err)
		if st.Counts["local"][lease.Shelved] != 2 || st.Counts["other"][lease.Shelved] != 0 || len(st.Counts) != 2 {
			t.Errorf("counts %v", st.Counts)
		}
	})
}

func TestWhatDoesNotComeUpIsCountedUntilItDoes(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := ci()
		c.Prepare = specs.Script{Path: "prepare.sh", Body: []byte("exit 1")}
		b := open(t, rdb, c)
		g, err := b.Plan(t.Context(), b.fleet.Pool("local"), b.fleet.Cache("ci"), "s1", "d1", false)
		b.must(err)
		g, err = b.Claim(t.Context(), g, lease.Provisioning, "run", "", 0)
		b.must(err)
		g, err = b.Fail(t.Context(), g, "run", "no quota")
		b.must(err)
		for _, broken := range []func(lease.Guest) (lease.Guest, error){
			func(g lease.Guest) (lease.Guest, error) {
				return b.Taint(t.Context(), admin, g, lease.Taint{Reason: "boot_failed", From: []lease.State{lease.Booting}})
			},
			func(g lease.Guest) (lease.Guest, error) {
				if g, err = b.Booted(t.Context(), g); err != nil {
					return g, err
				}
				return b.Taint(t.Context(), admin, g, lease.Taint{Reason: "prepare_failed", From: []lease.State{lease.Preparing}})
			},
		} {
			before := g.Failures
			g, err = b.Publish(t.Context(), b.claim(g, lease.Replacing, "run"), "run", g.Incarnation+1, lease.Machine{ID: "x", Host: "h", Port: 1})
			b.must(err)
			g, err = broken(g)
			b.must(err)
			if g.State != lease.Tainted || g.Failures != before+1 {
				t.Errorf("it is %s (%s) after %d failures, want %d", g.State, g.Reason, g.Failures, before+1)
			}
		}
		b.replace(b.claim(g, lease.Replacing, "run"))
		g, err = b.Guest(t.Context(), g.Name)
		b.must(err)
		if g, err = b.Prepared(t.Context(), g); err != nil || g.State != lease.Shelved || g.Failures != 0 {
			t.Errorf("it is %s after %d failures: %v", g.State, g.Failures, err)
		}
		if g, err = b.Taint(t.Context(), admin, g, lease.Taint{Reason: "manual"}); err != nil || g.Failures != 0 {
			t.Errorf("one that had come up has %d failures: %v", g.Failures, err)
		}
	})
}

func TestARequestEndsWhenItsCacheHasNoneOfItsPoolsAnyMore(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		b.fleet.Pools = append(b.fleet.Pools, pool("other", 8))
		queued := b.acquire(lease.Request{Wait: lease.Forever})
		adopt := func(revision string, pools ...string) {
			t.Helper()
			changed := ci()
			changed.Pools = pools
			b.fleet.Revision, b.fleet.Caches = revision, []*specs.Cache{changed}
			b.must(b.Adopt(t.Context(), b.fleet))
		}
		adopt("r2", "other", "local")
		if l := b.look(queued.ID); l.Phase != lease.Queued {
			t.Errorf("it is %s (%s) while one of its pools is left", l.Phase, l.How)
		}
		adopt("r3", "other")
		if l := b.look(queued.ID); l.Phase != lease.Ended || l.How != lease.Removed {
			t.Errorf("it is %s (%s), and would wait for ever", l.Phase, l.How)
		}
	})
}
