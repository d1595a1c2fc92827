// Package watchdog asks guests whether they are alive and has the dead replaced.
//
// It exists so that nobody is handed a dead guest, and so that nothing is killed by mistake: one failed ping condemns nobody,
// a leased guest is never tainted, trouble of this host is not held against guests, and when much of a pool looks dead at
// once it is the network or the provider that is sick, so that a brake stops all tainting in the pool until it is well again.
// The decisions are pure (verdict.go, pool.go); this file and patrol.go carry them out.
package watchdog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"greenroom/internal/ssh"
	"greenroom/lease"
	"greenroom/specs"
)

// The reasons of the watchdog's taints.
const (
	reasonDead     = "dead"        // probes failed
	reasonBoot     = "boot_failed" // never answered
	reasonVanished = "vanished"    // its provider took it away
)

var system = lease.Caller{Name: "watchdog", Role: lease.System}

// Options of a watchdog; Store is required, the rest has useful zero values.
type Options struct {
	Store        *lease.Store
	Signer       ssh.Signer            // the server's key, for exec probes
	Workers      int                   // most probes at once; default 64
	BootDeadline time.Duration         // for a new guest's first good answer; default 10m
	Refresh      time.Duration         // how often all guests are read from the store; default 30s; a move that is known of has one read at once
	Log          *slog.Logger          // default slog.Default()
	Braked       func()                // told of each change of Brakes; must not block
	Rand         func() float64        // jitter, in [0, 1); default math/rand/v2
	Registerer   prometheus.Registerer // where the metrics go; nil: nowhere
}

// Watchdog probes the guests of a store.
type Watchdog struct {
	o       Options
	probe   func(context.Context, lease.Guest, specs.Probe) Result
	metrics *metrics

	questions chan func(*patrol) // that the loop answers, which alone knows

	mu       sync.Mutex
	wake     chan struct{}
	moved    map[string]struct{} // guests to be read again
	turns    lease.Turns         // of guests that need not be
	gather   bool                // turns will be taken in soon
	hurry    bool                // and soon
	vanished map[string]vanished
	brakes   map[string]string // of every pool; "" when off
}

type vanished struct {
	guest    lease.Guest
	evidence string // empty: it has not
}

// New returns a watchdog that does nothing until Run.
func New(o Options) (*Watchdog, error) {
	if o.Store == nil {
		return nil, errors.New("a watchdog needs a store")
	}
	o.Workers = cmp.Or(o.Workers, 64)
	o.BootDeadline = cmp.Or(o.BootDeadline, 10*time.Minute)
	o.Refresh = cmp.Or(o.Refresh, 30*time.Second)
	o.Log = cmp.Or(o.Log, slog.Default())
	if o.Braked == nil {
		o.Braked = func() {}
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	w := &Watchdog{
		o: o, probe: newProber(o.Signer).probe, wake: make(chan struct{}, 1), questions: make(chan func(*patrol)),
		moved: map[string]struct{}{}, turns: lease.Turns{}, vanished: map[string]vanished{}, brakes: map[string]string{},
	}
	w.metrics = newMetrics(w)
	if o.Registerer != nil {
		if err := o.Registerer.Register(w.metrics); err != nil {
			return nil, fmt.Errorf("register the watchdog's metrics: %w", err)
		}
	}
	return w, nil
}

// Notify tells the watchdog of changes in the store. It never blocks.
func (w *Watchdog) Notify(changes ...lease.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range changes {
		w.notice(&changes[i])
	}
}

// notice needs w.mu.
func (w *Watchdog) notice(c *lease.Change) {
	name := c.Guest
	if name == "" && c.Lease != nil {
		name = c.Lease.Guest
	}
	if name == "" {
		return
	}
	if t, ok := c.Turn(); ok && w.turns.Note(t) {
		if !w.gather { // there are thousands a second: one wake-up takes in those of a moment
			w.gather = true
			time.AfterFunc(moment, w.signal)
		}
		return
	}
	w.moved[name] = struct{}{}
	w.hurry = w.hurry || c.Kind == lease.GuestMoved
	w.signal()
}

// moment is how long turns gather.
const moment = 50 * time.Millisecond

func (w *Watchdog) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Vanished tells the watchdog that the provider took guests away, as Terraform's plan has shown; evidence is what it showed.
// That is death: they are tainted as vanished if the pool's brake allows, whatever they answer. One under a lease is left
// alone, and its holder told. No evidence means that they are there, whatever was said of them before: a provider that is in
// trouble may know nothing of its machines for a moment. It returns at once; the rest is done by Run.
func (w *Watchdog) Vanished(_ context.Context, guests []lease.Guest, evidence string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range guests {
		w.vanished[g.Name] = vanished{g, evidence}
	}
	w.signal()
}

// Brakes says, for each pool whose brake is on, why nobody is tainted there.
func (w *Watchdog) Brakes() map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	on := maps.Clone(w.brakes)
	maps.DeleteFunc(on, func(_, why string) bool { return why == "" })
	return on
}

// Probe asks one guest now, with each probe of its pool, and says what it saw, a line for each. It changes no verdict.
// An error means that the guest did not prove alive, or that there is nothing to ask.
func (w *Watchdog) Probe(ctx context.Context, g lease.Guest) (string, error) {
	if g.Host == "" {
		return "", fmt.Errorf("guest %s has no address yet: it is %s", g.Name, g.State)
	}
	probes, _ := settings(w.o.Store.Fleet(), g.Pool)
	results := make([]Result, len(probes))
	var all sync.WaitGroup
	for i, s := range probes {
		all.Go(func() { results[i] = w.count(g.Pool, w.probe(ctx, g, s)) })
	}
	all.Wait()
	var err error
	lines := make([]string, len(results))
	for i, r := range results {
		if lines[i] = r.String(); r.Outcome != OK {
			err = errNotAlive
		}
	}
	return strings.Join(lines, "\n"), err
}

var errNotAlive = errors.New("the guest did not prove alive")

func (w *Watchdog) count(pool string, r Result) Result {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.metrics.count(pool, r.Outcome)
	return r
}

// settings are a pool's probes and brake. Guests of a pool that the spec has no more are probed by default.
func settings(fleet *specs.Fleet, name string) ([]specs.Probe, float64) {
	p := fleet.Pool(name)
	if p == nil {
		p = &specs.Pool{Brake: specs.Brake{MaxUnhealthy: specs.DefaultMaxUnhealthy}}
	}
	probes := p.Probes
	if len(probes) == 0 {
		probes = []specs.Probe{{}}
	}
	out := make([]specs.Probe, len(probes))
	for i, s := range probes {
		s.Kind = cmp.Or(s.Kind, specs.DefaultProbeKind)
		s.Every = cmp.Or(s.Every, specs.DefaultProbeEvery)
		s.Timeout = cmp.Or(s.Timeout, min(s.Every, specs.DefaultProbeTimeout))
		s.Failures = cmp.Or(s.Failures, specs.DefaultProbeFailures)
		out[i] = s
	}
	return out, p.Brake.MaxUnhealthy
}
