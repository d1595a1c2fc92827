package prepare

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
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

// yard is a real store with the pool "p" and the cache "ci", and one real guest.
type yard struct {
	*lease.Store
	t     *testing.T
	fleet *specs.Fleet
	key   ssh.Signer
	info  guestd.Info
	home  string
	tell  func(...lease.Change)
	queue *queue      // of the preparer that runs
	away  atomic.Bool // the store cannot be reached
	first atomic.Pointer[first]
	other *lease.Store // of another server
}

// first is what happens to the store before the first command that has a word in it.
type first struct {
	word string
	do   func()
}

// outage is a redis.Hook that lets no command through while the store is away, and others to the store first.
type outage struct{ *yard }

func (o outage) DialHook(next redis.DialHook) redis.DialHook { return next }

func (o outage) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if o.away.Load() {
			return redis.ErrClosed
		}
		if f := o.first.Load(); f != nil && slices.Contains(cmd.Args(), any(f.word)) && o.first.CompareAndSwap(f, nil) {
			f.do()
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

func newYard(t *testing.T, cache specs.Cache) *yard {
	t.Helper()
	t.Parallel() // most of the time goes into waiting for guests to start and stop
	y := &yard{t: t, tell: func(...lease.Change) {}}
	cache.Name, cache.Pools, cache.Size, cache.Max, cache.Enabled = "ci", []string{"p"}, 5, 5, true
	cache.Lease = specs.Lease{TTL: time.Minute, Max: time.Hour}
	y.fleet = &specs.Fleet{Revision: "r1", Pools: []*specs.Pool{{Name: "p", Max: 5, Spare: 5}}, Caches: []*specs.Cache{&cache}}
	store, err := embedded.Open(embedded.Options{Dir: filepath.Join(t.TempDir(), "store"), Log: slog.New(slog.DiscardHandler)})
	y.must(err)
	t.Cleanup(func() { y.must(store.Close()) })
	store.Client().AddHook(outage{y})
	y.Store = lease.New(store.Client(), lease.Options{Notify: func(c ...lease.Change) { y.tell(c...) }})
	y.other = lease.New(store.Client(), lease.Options{})
	y.must(y.Open(t.Context()))
	y.must(y.Adopt(t.Context(), y.fleet))
	return y
}

func (y *yard) must(err error) {
	y.t.Helper()
	if err != nil {
		y.t.Fatal(err)
	}
}

// spawn starts the guest.
func (y *yard) spawn() {
	y.t.Helper()
	key, line, err := ssh.NewEphemeral()
	y.must(err)
	self, err := os.Executable()
	y.must(err)
	dir := filepath.Join(y.t.TempDir(), "guest")
	y.t.Cleanup(func() {
		if err := guestd.Stop(context.Background(), dir); err != nil {
			y.t.Error(err)
		}
	})
	y.info, err = guestd.Start(y.t.Context(), guestd.Options{
		Dir: dir, Serve: []string{self, "serve"},
		Birth: guestd.Birth{Name: "p-1", Incarnation: 1, Isolation: guestd.IsolationProcess, AuthorizedKeys: []string{line}},
	})
	y.must(err)
	y.key, y.home = key, filepath.Join(dir, "home")
}

func (y *yard) machine() lease.Machine {
	return lease.Machine{Host: y.info.Host, Port: y.info.Port, User: y.info.User, HostKey: y.info.HostKey}
}

// boot puts a guest on record that has been seen alive.
func (y *yard) boot(cache string, m lease.Machine) lease.Guest {
	y.t.Helper()
	return y.bootOf("p", cache, m)
}

// bootOf is boot for a guest of any pool.
func (y *yard) bootOf(pool, cache string, m lease.Machine) lease.Guest {
	y.t.Helper()
	ctx := y.t.Context()
	g, err := y.Plan(ctx, y.fleet.Pool(pool), y.fleet.Cache(cache), "s1", "d1", false)
	y.must(err)
	g, err = y.Claim(ctx, g, lease.Provisioning, "run1", "", 0)
	y.must(err)
	g, err = y.Publish(ctx, g, "run1", g.Incarnation, m)
	y.must(err)
	g, err = y.Booted(ctx, g)
	y.must(err)
	return g
}

// run runs a preparer until the test ends or stop is called.
func (y *yard) run(o Options) (stop func()) {
	y.t.Helper()
	o.Store, o.Signer, o.Log = y.Store, y.key, slog.New(slog.DiscardHandler)
	p, err := New(o)
	y.must(err)
	y.tell, y.queue = p.Notify, p.queue
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx); close(done) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			y.t.Error(err)
		}
	}
	y.t.Cleanup(stop)
	return stop
}

func (y *yard) awaits(state lease.State) lease.Guest {
	y.t.Helper()
	var g lease.Guest
	y.eventually("the guest is "+string(state), func() bool {
		var err error
		g, err = y.Guest(y.t.Context(), "p-1")
		y.must(err)
		return g.State == state
	})
	return g
}

func (y *yard) eventually(what string, ok func() bool) {
	y.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			y.t.Fatal("it never came to pass that " + what)
		}
	}
}

// idle waits until the preparer has nothing to look at.
func (y *yard) idle() {
	y.t.Helper()
	y.eventually("the preparer is idle", func() bool {
		y.queue.mu.Lock()
		defer y.queue.mu.Unlock()
		return len(y.queue.known) == 0
	})
}

func (y *yard) read(file string) string {
	text, _ := os.ReadFile(filepath.Join(y.home, file))
	return string(text)
}

func attributes(t *testing.T, v any) json.RawMessage {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func shell(body string) specs.Script { return specs.Script{Path: "scripts/x.sh", Body: []byte(body)} }
