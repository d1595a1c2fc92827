package watchdog

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"greenroom/internal/embedded"
	"greenroom/internal/guestd"
	"greenroom/internal/ssh"
	"greenroom/lease"
	"greenroom/specs"
)

// TestMain lets the test binary be a guest's process, as the greenroom binary is in earnest.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := guestd.Serve(ctx, os.Args[2]); err != nil {
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// spawn starts a real guest and returns how to reach it, its server's key and its guestd's process id.
func spawn(t *testing.T) (lease.Guest, ssh.Signer, int) {
	t.Helper()
	key, line, err := ssh.NewEphemeral()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "guest")
	t.Cleanup(func() {
		if err := guestd.Stop(context.Background(), dir); err != nil {
			t.Error(err)
		}
	})
	info, err := guestd.Start(t.Context(), guestd.Options{
		Dir: dir, Serve: []string{self, "serve"},
		Birth: guestd.Birth{Name: "p-1", Incarnation: 1, Isolation: guestd.IsolationProcess, AuthorizedKeys: []string{line}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return lease.Guest{Name: "p-1", Pool: "p", Host: info.Host, Port: info.Port, User: info.User, HostKey: info.HostKey}, key, info.PID
}

// yard is a real store with one pool of guests.
type yard struct {
	*lease.Store
	t      testing.TB
	fleet  *specs.Fleet
	client redis.UniversalClient
	tell   func(...lease.Change)
	away   atomic.Bool // the store cannot be reached
}

// outage is a redis.Hook that lets no command through while the store is away.
type outage struct{ away *atomic.Bool }

func (o outage) DialHook(next redis.DialHook) redis.DialHook { return next }

func (o outage) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if o.away.Load() {
			return redis.ErrClosed
		}
		return next(ctx, cmd)
	}
}

func (o outage) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if o.away.Load() {
			return redis.ErrClosed
		}
		return next(ctx, cmds)
	}
}

func newYard(t testing.TB, pool specs.Pool, caches ...*specs.Cache) *yard {
	t.Helper()
	y := &yard{t: t, tell: func(...lease.Change) {}}
	if pool.Brake.MaxUnhealthy == 0 {
		pool.Brake.MaxUnhealthy = specs.DefaultMaxUnhealthy
	}
	y.fleet = &specs.Fleet{Revision: "r1", Pools: []*specs.Pool{&pool}, Caches: caches}
	store, err := embedded.Open(embedded.Options{Dir: filepath.Join(t.TempDir(), "store"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	store.Client().AddHook(outage{&y.away})
	y.client = store.Client()
	y.Store = lease.New(y.client, lease.Options{Notify: func(c ...lease.Change) { y.tell(c...) }})
	if err := errors.Join(y.Open(t.Context()), y.Adopt(t.Context(), y.fleet)); err != nil {
		t.Fatal(err)
	}
	return y
}

// boot puts a new guest of the pool on record, at an address, waiting to be seen alive.
func (y *yard) boot(cache string, m lease.Machine) lease.Guest {
	y.t.Helper()
	ctx := y.t.Context()
	g, err := y.Plan(ctx, y.fleet.Pools[0], y.fleet.Cache(cache), "s1", "d1", false)
	if err == nil {
		g, err = y.Claim(ctx, g, lease.Provisioning, "run1", "", 0)
	}
	if err == nil {
		g, err = y.Publish(ctx, g, "run1", g.Incarnation, m)
	}
	if err != nil {
		y.t.Fatal(err)
	}
	return g
}

// shelve is boot for n guests that have been seen alive.
func (y *yard) shelve(cache string, n int) []lease.Guest {
	y.t.Helper()
	var out []lease.Guest
	for range n {
		g, err := y.Booted(y.t.Context(), y.boot(cache, lease.Machine{Host: "127.0.0.1", Port: 1, User: "ci"}))
		if err != nil {
			y.t.Fatal(err)
		}
		out = append(out, g)
	}
	return out
}

// found puts a guest on the shelf of its pool by the shortest way there is.
func (y *yard) found(slot int) {
	y.t.Helper()
	g := lease.Guest{Name: lease.GuestName("p", slot), Pool: "p", Cache: "p", Slot: slot, Incarnation: 1}
	err := y.Found(y.t.Context(), g, lease.Machine{Host: "127.0.0.1", Port: 1}, time.Now())
	if err == nil {
		g, err = y.Move(y.t.Context(), system, lease.Step{Guest: g, From: []lease.State{lease.Quarantined}, To: lease.Shelved})
	}
	if err != nil || g.State != lease.Shelved {
		y.t.Fatal(g.State, err)
	}
}

func (y *yard) guest(name string) lease.Guest {
	y.t.Helper()
	g, err := y.Guest(y.t.Context(), name)
	if err != nil {
		y.t.Fatal(err)
	}
	return g
}

// eventually polls until ok; in a synctest bubble the time it waits is not real.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatal("it never came to pass that " + what)
		}
	}
}

// run runs a watchdog until the test ends, fed with the store's changes.
func run(t testing.TB, y *yard, o Options, probe func(context.Context, lease.Guest, specs.Probe) Result) *Watchdog {
	t.Helper()
	o.Store = y.Store
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	w, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if probe != nil {
		w.probe = probe
	}
	y.tell = w.Notify
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }
