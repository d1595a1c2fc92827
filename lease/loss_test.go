package lease_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"greenroom/lease"
	"greenroom/lease/leasetest"
	"greenroom/specs"
)

// cutConn loses one answer: the server has executed the command, and the connection is gone.
type cutConn struct {
	net.Conn
	armed *atomic.Bool
}

func (c cutConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil && c.armed.CompareAndSwap(true, false) {
		return 0, errors.Join(io.EOF, c.Close())
	}
	return n, err
}

func TestAnAcquireThatIsSentTwiceTakesOneGuest(t *testing.T) {
	s := leasetest.Redis(t)
	var armed atomic.Bool
	rdb := redis.NewClient(&redis.Options{Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", s.Socket)
		return cutConn{conn, &armed}, err
	}})
	defer func() { _ = rdb.Close() }()
	b := open(t, rdb, ci())
	b.shelf("ci", 3)
	first := b.acquire(lease.Request{})
	armed.Store(true)
	l := b.acquire(lease.Request{})
	for _, id := range []string{first.ID, l.ID} {
		_, err := b.Release(t.Context(), alice, id, lease.Release{})
		b.must(err)
	}
	for i := range 3 {
		if name := lease.GuestName("local", i+1); b.state(name) != lease.Shelved {
			t.Errorf("%s is %s", name, b.state(name))
		}
	}
}

// hook changes what happens to commands on their way.
type hook struct {
	process  func(next redis.ProcessHook) redis.ProcessHook
	pipeline func(next redis.ProcessPipelineHook) redis.ProcessPipelineHook
}

func (hook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	if h.process == nil {
		return next
	}
	return h.process(next)
}

func (h hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	if h.pipeline == nil {
		return next
	}
	return h.pipeline(next)
}

func TestAPlanWhoseAnswerIsLostLosesNoSlot(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		cut(rdb, true, strings.TrimSuffix(b.key(""), ":"))
		plan := func() error {
			_, err := b.Plan(t.Context(), b.fleet.Pool("local"), b.fleet.Cache("ci"), "s1", "d1", false)
			return err
		}
		if err := plan(); !errors.Is(err, lease.ErrUnavailable) {
			t.Fatalf("want ErrUnavailable, got %v", err)
		}
		b.must(b.Mend(t.Context(), "local"))
		for range 5 {
			b.must(plan())
		}
		guests, err := b.Guests(t.Context(), "local")
		b.must(err)
		if len(guests) != 6 {
			t.Errorf("want the one whose answer was lost and five more, got %d", len(guests))
		}
	})
}

func TestAGuestThatMovesWhileItIsReadIsNotLeftOut(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		g := b.shelf("local", 1)[0]
		done := false
		rdb.AddHook(hook{pipeline: func(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
			return func(ctx context.Context, cmds []redis.Cmder) error {
				if !done {
					done = true
					_, err := b.Draw(ctx, g, b.fleet.Cache("ci"))
					b.must(err)
				}
				return next(ctx, cmds)
			}
		}})
		guests, err := b.Guests(t.Context(), "local")
		b.must(err)
		if len(guests) != 1 || guests[0].Cache != "ci" {
			t.Errorf("got %+v", guests)
		}
	})
}

func TestAHoldCanBeExtendedAndStillEnds(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		g := b.shelf("ci", 1)[0]
		for i := range 2 {
			held, err := b.Hold(t.Context(), admin, g, time.Now().Add(time.Duration(i+1)*time.Hour))
			b.must(err)
			g = held
		}
		b.past("holds", g.Name)
		b.must(b.Sweep(t.Context()))
		if s := b.state(g.Name); s != lease.Tainted {
			t.Errorf("after the hold it is %s", s)
		}
	})
}

func TestAKeyWithoutACacheIsStillOneLease(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		b.fleet = &specs.Fleet{Revision: "r2", Pools: []*specs.Pool{pool("alpha", 2), pool("local", 8)}}
		b.must(b.Adopt(t.Context(), b.fleet))
		g, err := b.Plan(t.Context(), b.fleet.Pool("alpha"), b.fleet.Cache("alpha"), "s", "d", false)
		b.must(err)
		b.boot(g)
		b.shelf("local", 1)
		one, err := b.Acquire(t.Context(), alice, lease.Request{Key: "k1"})
		b.must(err)
		two, err := b.Acquire(t.Context(), alice, lease.Request{Key: "k1"})
		b.must(err)
		if one.ID != two.ID {
			t.Errorf("%s on %s, then %s on %s", one.ID, one.Guest, two.ID, two.Guest)
		}
	})
}

func TestAGuestThatIsKnownIsNotFoundAgainElsewhere(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		spare := b.shelf("local", 1)[0]
		_, err := b.Draw(t.Context(), spare, b.fleet.Cache("ci"))
		b.must(err)
		l := b.acquire(lease.Request{})
		if err := b.Found(t.Context(), spare, lease.Machine{Host: "h", Port: 1}, time.Now().Add(time.Hour)); !errors.Is(err, lease.ErrConflict) {
			t.Errorf("want ErrConflict, got %v", err)
		}
		if g, err := b.Guest(t.Context(), spare.Name); err != nil || g.State != lease.Leased || g.Lease != l.ID {
			t.Errorf("got %+v, %v", g, err)
		}
	})
}

func TestOnlyARunTakesWhatItIsMakingOffTheRecord(t *testing.T) {
	b := open(t, leasetest.Embedded(t), ci())
	g, err := b.Plan(t.Context(), b.fleet.Pool("local"), b.fleet.Cache("ci"), "s1", "d1", false)
	b.must(err)
	_, err = b.Claim(t.Context(), g, lease.Provisioning, "run1", "", 0)
	b.must(err)
	if err := b.Remove(t.Context(), g, "", "outdated"); !errors.Is(err, lease.ErrConflict) {
		t.Errorf("want ErrConflict, got %v", err)
	}
}

func TestAWriterThatLostItsShardIsRefused(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		g, err := b.Plan(t.Context(), b.fleet.Pool("local"), b.fleet.Cache("ci"), "s1", "d1", false)
		b.must(err)
		_, err = b.Claim(t.Context(), g, lease.Provisioning, "new", "", 8)
		b.must(err)
		if _, err := b.Claim(t.Context(), g, lease.Provisioning, "old", "", 7); !errors.Is(err, lease.ErrConflict) {
			t.Errorf("want ErrConflict, got %v", err)
		}
	})
}

func TestAQuarantinedGuestIsNotTaintedByHand(t *testing.T) {
	b := open(t, leasetest.Embedded(t), ci())
	g := lease.Guest{Name: "local-1", Pool: "local", Cache: "ci", Slot: 1, Incarnation: 3, Shard: "s", Digest: "d"}
	b.must(b.Found(t.Context(), g, lease.Machine{Host: "h", Port: 1}, time.Now().Add(time.Hour)))
	if _, err := b.Taint(t.Context(), admin, g, lease.Taint{Reason: "manual"}); !errors.Is(err, lease.ErrConflict) {
		t.Errorf("want ErrConflict, got %v", err)
	}
}

func TestACacheThatIsNotInForceQueuesNobody(t *testing.T) {
	b := open(t, leasetest.Embedded(t), ci())
	b.must(b.rdb.Del(t.Context(), b.key("policy")).Err()) // as the store is while a fleet is being adopted, or was lost
	if _, err := b.Acquire(t.Context(), alice, lease.Request{Cache: "ci", Wait: lease.Forever}); !errors.Is(err, lease.ErrUnavailable) {
		t.Errorf("want ErrUnavailable, got %v", err)
	}
}

func TestAStoreThatIsLostTakesNothingNewBeforeItIsOpenedAgain(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		b.shelf("ci", 1)
		empty := func() bool {
			t.Helper()
			empty, err := b.Empty(t.Context())
			b.must(err)
			return empty
		}
		if empty() {
			t.Error("it is empty before it is lost")
		}
		b.must(rdb.FlushDB(t.Context()).Err())
		if !empty() {
			t.Error("it is not empty after it was lost")
		}
		for name, err := range map[string]error{
			"a plan":  second(b.Plan(t.Context(), b.fleet.Pool("local"), b.fleet.Cache("ci"), "s1", "d1", false)),
			"a fleet": b.Adopt(t.Context(), b.fleet),
		} {
			if !errors.Is(err, lease.ErrUnavailable) {
				t.Errorf("%s: want ErrUnavailable, got %v", name, err)
			}
		}
		if guests, err := b.Guests(t.Context(), "local"); err != nil || len(guests) > 0 || !empty() {
			t.Errorf("guests %v, %v; empty %v", guests, err, empty())
		}
		b.must(b.Open(t.Context()))
		if !empty() {
			t.Error("it is not empty before a fleet is in force")
		}
		b.must(b.Adopt(t.Context(), b.fleet))
		b.must(b.Open(t.Context())) // changes nothing
		b.shelf("ci", 1)
		if empty() {
			t.Error("it is empty")
		}
	})
}

func TestAfterALossTheNewestHolderHasTheGuest(t *testing.T) {
	k := lease.NewSigner([]byte("0123456789abcdef0123456789abcdef"))
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		b.shelf("ci", 1)
		old := b.acquire(lease.Request{})
		b.must(second(b.Release(t.Context(), alice, old.ID, lease.Release{})))
		now := b.acquire(lease.Request{})
		g, err := b.Guest(t.Context(), now.Guest)
		b.must(err)
		old.Granted = now.Granted.Add(-time.Second) // as where some time lies between
		oldToken, newToken := k.Sign(old), k.Sign(now)

		b.must(b.rdb.FlushAll(t.Context()).Err())
		b.must(b.Open(t.Context()))
		b.must(b.Adopt(t.Context(), b.fleet))
		b.must(b.Found(t.Context(), g, lease.Machine{ID: g.ID, Host: g.Host, Port: g.Port}, time.Now().Add(time.Hour)))
		b.must(second(b.Restore(t.Context(), alice, k, old.ID, oldToken)))
		back, err := b.Restore(t.Context(), alice, k, now.ID, newToken)
		b.must(err)
		if g, err = b.Guest(t.Context(), g.Name); err != nil || back.Phase != lease.Active || g.Lease != now.ID {
			t.Errorf("%+v on %+v, %v", back, g, err)
		}
		if l := b.look(old.ID); l.Phase != lease.Ended || l.How != lease.Expired {
			t.Errorf("the earlier lease is %+v", l)
		}
		if _, err := b.Renew(t.Context(), alice, old.ID); !errors.Is(err, lease.ErrOver) {
			t.Errorf("its holder is told %v", err)
		}
		if _, err := b.Restore(t.Context(), alice, k, old.ID, oldToken); !errors.Is(err, lease.ErrOver) {
			t.Errorf("and then %v", err)
		}
		stock, err := b.Stock(t.Context(), "ci")
		b.must(err)
		if n := stock.In(lease.Leased); n != 1 {
			t.Errorf("%d leased", n)
		}
	})
}

func TestRequestsThatLapseTogetherAllEndAsTheyShouldAndAreTold(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b, told := open(t, rdb, ci()), make(chan string, 1000)
		b.Store = lease.New(rdb, lease.Options{Prefix: strings.SplitN(b.key(""), ":", 2)[0], Notify: one(func(c lease.Change) {
			if c.Kind == lease.LeaseEnded {
				told <- c.Lease.ID
			}
		})})
		b.must(b.Adopt(t.Context(), b.fleet))
		b.must(b.Sweep(t.Context()))
		b.shelf("ci", 1)
		held := b.acquire(lease.Request{})
		var ids []string
		for range 150 {
			ids = append(ids, b.acquire(lease.Request{Wait: 20 * time.Millisecond}).ID)
		}
		last := b.look(ids[len(ids)-1])
		for time.Now().Before(last.WaitUntil.Add(10 * time.Millisecond)) {
			b.must(b.Ping(t.Context()))
		}
		b.runsOut(held)
		b.must(b.Sweep(t.Context()))
		for _, id := range ids {
			if l := b.look(id); l.How != lease.TimedOut {
				t.Fatalf("%s is %s, %s", id, l.Phase, l.How)
			}
		}
		of := map[string]bool{held.ID: true}
		for len(of) < 151 {
			select {
			case id := <-told:
				of[id] = true
			case <-time.After(time.Minute):
				t.Fatalf("told of %d ends only", len(of)-1)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }

// spares is the cache that a pool has under its own name.
func spares() *specs.Cache {
	return &specs.Cache{
		Name: "local", Invisible: true, Pools: []string{"local"}, Size: 4, Max: 8, Enabled: true,
		Lease: specs.Lease{TTL: time.Minute, Max: time.Hour}, Reuse: specs.Reuse{Uses: 1},
	}
}

// cut makes the next script that has all of certain arguments end without an answer: before it was carried out, or after.
func cut(rdb redis.UniversalClient, carriedOut bool, arguments ...string) {
	armed := true
	rdb.AddHook(hook{process: func(next redis.ProcessHook) redis.ProcessHook {
		return func(ctx context.Context, cmd redis.Cmder) error {
			missing := func(argument string) bool { return !slices.Contains(cmd.Args(), any(argument)) }
			if !armed || slices.ContainsFunc(arguments, missing) {
				return next(ctx, cmd)
			}
			if armed = false; carriedOut {
				_ = next(ctx, cmd)
			}
			cmd.SetErr(os.ErrDeadlineExceeded)
			return os.ErrDeadlineExceeded
		}
	}})
}

func TestADrawWhoseAnswerIsLostGivesAGuestToOneHolder(t *testing.T) {
	for name, fleet := range map[string]func(*specs.Fleet){
		"the cache stays":                  func(*specs.Fleet) {},
		"the cache is removed before Mend": func(f *specs.Fleet) { f.Revision, f.Caches = "r2", f.Caches[1:] },
	} {
		t.Run(name, func(t *testing.T) {
			leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
				b := open(t, rdb, ci(), spares())
				g := b.shelf("local", 1)[0]
				cut(rdb, true, "create")
				if _, err := b.Draw(t.Context(), g, b.fleet.Cache("ci")); !errors.Is(err, lease.ErrUnavailable) {
					t.Fatalf("want ErrUnavailable, got %v", err)
				}
				one := b.acquire(lease.Request{Cache: "ci"})
				changed := *b.fleet
				fleet(&changed)
				b.must(b.Adopt(t.Context(), &changed))
				b.must(b.Mend(t.Context(), "local"))
				two, err := b.Acquire(t.Context(), admin, lease.Request{})
				if !errors.Is(err, lease.ErrNoneReady) {
					t.Errorf("%s has %s, and so has %s: %v", one.ID, one.Guest, two.ID, err)
				}
				if left, err := b.CacheGuests(t.Context(), "local"); err != nil || len(left) > 0 {
					t.Errorf("the old record is left: %v, %v", left, err)
				}
			})
		})
	}
}

func TestADrawThatIsCutShortAtItsEndLeavesNoRecord(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci(), spares())
		g := b.shelf("local", 1)[0]
		cut(rdb, false, "move", "gone")
		if _, err := b.Draw(t.Context(), g, b.fleet.Cache("ci")); !errors.Is(err, lease.ErrUnavailable) {
			t.Fatalf("want ErrUnavailable, got %v", err)
		}
		b.must(b.Mend(t.Context(), "local"))
		if left, err := b.CacheGuests(t.Context(), "local"); err != nil || len(left) > 0 {
			t.Errorf("the old record is left: %v, %v", left, err)
		}
		now, err := b.Guest(t.Context(), g.Name)
		b.must(err)
		b.must(b.Remove(t.Context(), b.claim(now, lease.Retiring, "run"), "run", "excess"))
		if _, err := b.Plan(t.Context(), b.fleet.Pool("local"), b.fleet.Cache("local"), "s1", "d1", false); err != nil {
			t.Errorf("the next spare: %v", err)
		}
	})
}

func TestARequestIsNotAbandonedBeforeTheFirstSweepAfterATimeAway(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		b.shelf("ci", 1)
		first, queued := b.acquire(lease.Request{}), b.acquire(lease.Request{Wait: lease.Forever})
		away := time.Now().Add(-time.Hour)
		b.must(rdb.Set(t.Context(), b.key("swept"), away.UnixMilli(), 0).Err())
		b.must(rdb.ZAdd(t.Context(), b.key("patience"), redis.Z{Score: float64(away.Add(time.Minute).UnixMilli()), Member: queued.ID}).Err())
		if _, err := b.Release(t.Context(), alice, first.ID, lease.Release{}); err != nil {
			t.Fatal(err)
		}
		if l := b.look(queued.ID); l.Phase != lease.Active {
			t.Errorf("it is %s (%s)", l.Phase, l.How)
		}
	})
}

func TestNothingIsUnknownInAStoreThatWasLost(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		g := b.shelf("ci", 1)[0]
		l := b.acquire(lease.Request{})
		signer := lease.NewSigner(make([]byte, 32))
		token := signer.Sign(l)
		calls := map[string]func() error{
			"get":     func() error { _, err := b.Get(t.Context(), alice, l.ID); return err },
			"renew":   func() error { _, err := b.Renew(t.Context(), alice, l.ID); return err },
			"release": func() error { _, err := b.Release(t.Context(), alice, l.ID, lease.Release{}); return err },
			"restore": func() error { _, err := b.Restore(t.Context(), alice, signer, l.ID, token); return err },
			"guest":   func() error { _, err := b.Guest(t.Context(), g.Name); return err },
		}
		all := func(when string, want map[string]error) {
			t.Helper()
			for name, call := range calls {
				if err := call(); !errors.Is(err, want[name]) {
					t.Errorf("%s, %s: got %v, want %v", when, name, err, want[name])
				}
			}
		}
		b.must(rdb.FlushAll(t.Context()).Err())
		away := map[string]error{}
		for name := range calls {
			away[name] = lease.ErrUnavailable
		}
		all("lost", away)
		b.must(b.Open(t.Context()))
		all("open", away)
		b.must(b.Adopt(t.Context(), b.fleet))
		unknown := lease.ErrUnknownLease
		all("rebuilt without the guest", map[string]error{
			"get": unknown, "renew": unknown, "release": unknown, "restore": unknown, "guest": lease.ErrUnknownGuest,
		})
	})
}

func TestWhoeverDoesNotKnowWhatWasDoneIsHeardOf(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		g := b.shelf("ci", 1)[0]
		unsure := 0
		prefix, _, _ := strings.Cut(b.key(""), ":")
		b.Store = lease.New(rdb, lease.Options{Prefix: prefix, Notify: one(func(c lease.Change) {
			if c.Kind == lease.Unsure && c.Guest == g.Name {
				unsure++
			}
		})})
		b.must(b.Adopt(t.Context(), b.fleet))
		var l lease.Lease
		for _, step := range []struct {
			name string
			do   func() error
		}{
			{"acquire", func() error { l = b.acquire(lease.Request{Key: "k"}); return nil }},
			{"step of a guest that was leased", func() error { _, err := b.Prepared(t.Context(), g); return err }},
			{"release", func() error { _, err := b.Release(t.Context(), alice, l.ID, lease.Release{}); return err }},
			{"step that was taken", func() error { _, err := b.Prepared(t.Context(), g); return err }},
		} {
			unsure = 0
			first := step.do()
			if first == nil && unsure > 0 {
				t.Errorf("the first %s is not sure", step.name)
			}
			if err := step.do(); unsure == 0 {
				t.Errorf("the second %s (%v) is sure", step.name, err)
			}
		}
	})
}

func TestASweepTellsThatTheStoreWasLost(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		lost := 0
		prefix, _, _ := strings.Cut(b.key(""), ":")
		b.Store = lease.New(rdb, lease.Options{Prefix: prefix, Notify: one(func(c lease.Change) {
			if c.Kind == lease.StoreLost {
				lost++
			}
		})})
		b.must(b.Sweep(t.Context()))
		b.must(b.Sweep(t.Context()))
		if lost != 0 {
			t.Error("told of a store that is there")
		}
		b.must(rdb.FlushAll(t.Context()).Err())
		b.must(b.Sweep(t.Context()))
		if lost != 1 {
			t.Errorf("told %d times, want once", lost)
		}
	})
}
