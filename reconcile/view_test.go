package reconcile

import (
	"context"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"greenroom/lease"
	"greenroom/lease/leasetest"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/terraform"
	"greenroom/specs"
)

// counter counts the commands that go to the store, and in how many round trips.
type counter struct{ n, trips atomic.Int64 }

func (c *counter) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (c *counter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { c.n.Add(1); c.trips.Add(1); return next(ctx, cmd) }
}

func (c *counter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.n.Add(int64(len(cmds)))
		c.trips.Add(1)
		return next(ctx, cmds)
	}
}

// ticking is a loop that is ticked by hand, on a clock of its own.
func ticking(t *testing.T, fleet *specs.Fleet) (l *Loop, store *lease.Store, commands *counter, clock *atomic.Int64) {
	t.Helper()
	rdb := leasetest.Embedded(t)
	commands, clock = &counter{}, &atomic.Int64{}
	clock.Store(time.Now().Unix())
	store = lease.New(rdb, lease.Options{Notify: func(c ...lease.Change) { l.Notify(c...) }})
	l = New(Options{
		Store: store, Writer: "test", Now: func() time.Time { return time.Unix(clock.Load(), 0) },
		OpenDriver: func(ctx context.Context) (*terraform.Driver, error) {
			return terraform.New(ctx, terraform.Options{StateDir: t.TempDir(), Self: "/bin/true"})
		},
	})
	t.Cleanup(l.detach)
	l.Offer(Revision{Fleet: fleet})
	for range 3 {
		if err := l.tick(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	rdb.AddHook(commands)
	return l, store, commands, clock
}

func cold(pools int) *specs.Fleet {
	f := &specs.Fleet{Revision: "cold"}
	for n := range pools {
		name := "p" + string(rune('a'+n%26)) + string(rune('a'+n/26%26)) + string(rune('a'+n/676))
		f.Pools = append(f.Pools, &specs.Pool{Name: name, Module: "local", Max: 5, ShardSize: 5, Variables: []byte("{}"), Rollout: specs.Rollout{MaxUnavailable: 1}})
	}
	return f
}

func TestATickAfterWhichNothingHasHappenedReadsAlmostNothing(t *testing.T) {
	l, store, commands, clock := ticking(t, cold(50))
	tick := func() int64 {
		t.Helper()
		before := commands.n.Load()
		if err := l.tick(t.Context()); err != nil {
			t.Fatal(err)
		}
		return commands.n.Load() - before
	}
	if n := tick(); n > 1 { // whether the store is empty
		t.Errorf("an idle tick sends %d commands", n)
	}
	if err := store.Toggle(t.Context(), lease.Caller{Name: "alice", Role: lease.Admin}, "paaa", lease.Override{}); err != nil {
		t.Fatal(err)
	}
	if n := tick(); n < 2 || n > 10 {
		t.Errorf("a tick after a change of one cache sends %d commands", n)
	}
	if n := tick(); n > 1 {
		t.Errorf("the tick after that sends %d commands", n)
	}
	clock.Add(61)
	if n := tick(); n < 100 {
		t.Errorf("a tick after a minute sends %d commands: it must read all again", n)
	}
}

func TestANoticeBeforeTheFirstPassIsKept(t *testing.T) {
	v := newView()
	v.notice([]lease.Change{{Kind: lease.GuestMoved, Cache: "ci", Guest: "local-1"}})
	if v.idle() {
		t.Error("nothing is to be read")
	}
}

func TestWhatTimeAloneBringsAboutIsSeen(t *testing.T) {
	l, store, _, clock := ticking(t, cold(1))
	admin := lease.Caller{Name: "alice", Role: lease.Admin}
	if err := store.Toggle(t.Context(), admin, "paaa", lease.Override{Until: time.Unix(clock.Load()+30, 0)}); err != nil {
		t.Fatal(err)
	}
	if err := l.tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !l.snapshot().Off["paaa"] {
		t.Error("the override is not seen")
	}
	clock.Add(31)
	if !l.due() {
		t.Error("nothing is due at the end of the override")
	}
	if l.snapshot().Off["paaa"] {
		t.Error("the override goes on")
	}
}

func TestANewShardsModuleIsKeptBeforeItsFirstRun(t *testing.T) {
	l, _, _, _ := ticking(t, cold(1))
	if err := l.tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.ensureShard("paaa-0123abcd-1", "paaa"); err != nil {
		t.Fatal(err)
	}
	known := l.metaOf("paaa-0123abcd-1").module()
	if known.Digest == "" || known.FS != nil {
		t.Fatalf("the shard knows %+v of its module", known)
	}
	if err := l.terraform().KeepModule(known); err != nil { // which can't be had from anywhere else
		t.Error(err)
	}
}

// BenchmarkIdleTick is a tick over a thousand pools with nothing to do.
func BenchmarkIdleTick(b *testing.B) {
	rdb := leasetest.Embedded(b)
	var l *Loop
	l = New(Options{
		Store: lease.New(rdb, lease.Options{Notify: func(c ...lease.Change) { l.Notify(c...) }}), Writer: "test",
		OpenDriver: func(ctx context.Context) (*terraform.Driver, error) {
			return terraform.New(ctx, terraform.Options{StateDir: b.TempDir(), Self: "/bin/true"})
		},
	})
	b.Cleanup(l.detach)
	l.Offer(Revision{Fleet: cold(1000)})
	for range 3 {
		if err := l.tick(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("nothing happened", func(b *testing.B) {
		for b.Loop() {
			if err := l.tick(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("woken", func(b *testing.B) {
		for b.Loop() {
			l.nudge()
			if err := l.tick(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("all read again", func(b *testing.B) {
		for b.Loop() {
			l.view.forget()
			if err := l.tick(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestAPassWaitsOnlyForWhatTheLastOneHasCost(t *testing.T) {
	const rest, calm, most = 10 * time.Millisecond, 200 * time.Millisecond, time.Second
	for _, test := range []struct {
		name       string
		wake, lull time.Duration // after the last pass; 0: never
		want       time.Duration
	}{
		{name: "nothing happens", want: most},
		{name: "an event at once", wake: time.Millisecond, want: rest},
		{name: "an event later", wake: 50 * time.Millisecond, want: 51 * time.Millisecond},
		{name: "one without hurry at once", lull: time.Millisecond, want: calm},
		{name: "one without hurry later", lull: 300 * time.Millisecond, want: 301 * time.Millisecond},
		{name: "one without hurry, then an event", lull: time.Millisecond, wake: 50 * time.Millisecond, want: 51 * time.Millisecond},
		{name: "an event, then one without hurry", lull: 50 * time.Millisecond, wake: time.Millisecond, want: rest},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := New(Options{Debounce: time.Millisecond})
				for bell, at := range map[chan struct{}]time.Duration{l.wake: test.wake, l.lull: test.lull} {
					if at > 0 {
						time.AfterFunc(at, func() { l.stir(bell) })
					}
				}
				began := time.Now()
				if !l.pauseFor(t.Context(), most, rest, calm) || time.Since(began) != test.want {
					t.Errorf("after %v, want %v", time.Since(began), test.want)
				}
			})
		})
	}
}

func TestAPausedPoolSaysWhoPausedItAndWhy(t *testing.T) {
	l, store, _, _ := ticking(t, cold(1))
	for reason, want := range map[string]string{"moving racks": "paused by bob: moving racks", "": "paused by bob"} {
		if err := store.SetPause(t.Context(), "paaa", &lease.Pause{By: "bob", Reason: reason}); err != nil {
			t.Fatal(err)
		}
		l.Wake()
		if err := l.tick(t.Context()); err != nil {
			t.Fatal(err)
		}
		st, err := l.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(st.Pools[0].Conditions, func(c condition.Condition) bool { return c.Reason == "Paused" })
		if i < 0 || st.Pools[0].Conditions[i].Message != want {
			t.Errorf("want %q in %+v", want, st.Pools[0].Conditions)
		}
	}
}
