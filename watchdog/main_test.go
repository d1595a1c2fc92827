package watchdog

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"greenroom/internal/embedded"
	"greenroom/lease"
	"greenroom/specs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// yard is a real store with one pool of guests.
type yard struct {
	*lease.Store
	t     testing.TB
	fleet *specs.Fleet
	tell  func(lease.Change)
}

func newYard(t testing.TB, pool specs.Pool, caches ...*specs.Cache) *yard {
	t.Helper()
	y := &yard{t: t, tell: func(lease.Change) {}}
	if pool.Brake.MaxUnhealthy == 0 {
		pool.Brake.MaxUnhealthy = specs.DefaultMaxUnhealthy
	}
	y.fleet = &specs.Fleet{Revision: "r1", Pools: []*specs.Pool{&pool}, Caches: caches}
	redis, err := embedded.Open(embedded.Options{Dir: filepath.Join(t.TempDir(), "store"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := redis.Close(); err != nil {
			t.Error(err)
		}
	})
	y.Store = lease.New(redis.Client(), lease.Options{Notify: func(c lease.Change) { y.tell(c) }})
	if err := y.Adopt(t.Context(), y.fleet); err != nil {
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
		g, err = y.Claim(ctx, g, lease.Provisioning, "run1", "")
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
