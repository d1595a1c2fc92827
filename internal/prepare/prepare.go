// Package prepare runs a cache's scripts in its guests: prepare when a guest enters the cache, reset after each lease.
//
// It exists so that a guest reaches the shelf only in the condition that its cache promises. The store is the truth: a guest in
// state preparing or resetting wants its script, whoever put it there and however often. So nothing is lost by a crash, but
// a script may run again from its beginning, after a crash or a broken connection: scripts must be repeatable.
package prepare

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"greenroom/internal/ssh"
	"greenroom/lease"
	"greenroom/specs"
)

var system = lease.Caller{Name: "prepare", Role: lease.System}

// Options of a preparer; Store and Signer are required, the rest has useful zero values.
type Options struct {
	Store   *lease.Store
	Signer  ssh.Signer    // the server's key, which guests are born to trust
	Workers int           // most scripts at once, of one pool at most half of them (at least 1); default 32
	Prepare time.Duration // deadline of a prepare script; default 10m
	Reset   time.Duration // deadline of a reset script; default 2m
	Reach   time.Duration // how long a guest may refuse to be connected to; default 1m
	Look    time.Duration // how often the store is searched for guests that wait; default 1m
	Log     *slog.Logger  // default slog.Default()
}

// Preparer brings guests from preparing and resetting to the shelf, or has them tainted.
type Preparer struct {
	o     Options
	queue *queue
}

// New returns a preparer that does nothing until Run.
func New(o Options) (*Preparer, error) {
	if o.Store == nil || o.Signer == nil {
		return nil, errors.New("a preparer needs a store and a key")
	}
	o.Workers = cmp.Or(o.Workers, 32)
	o.Prepare = cmp.Or(o.Prepare, 10*time.Minute)
	o.Reset = cmp.Or(o.Reset, 2*time.Minute)
	o.Reach = cmp.Or(o.Reach, time.Minute)
	o.Look = cmp.Or(o.Look, time.Minute)
	o.Log = cmp.Or(o.Log, slog.Default())
	return &Preparer{o: o, queue: newQueue(max(1, o.Workers/2))}, nil
}

// Notify tells the preparer of changes in the store. It never blocks.
func (p *Preparer) Notify(changes ...lease.Change) {
	for i := range changes {
		p.notice(&changes[i])
	}
}

func (p *Preparer) notice(c *lease.Change) {
	due := waits(c.State)
	switch c.Kind {
	case lease.Unsure:
		due = true
	case lease.LeaseEnded:
		due = due || c.State == ""
	case lease.GuestMoved:
	default:
		return
	}
	if due && c.Guest != "" {
		p.queue.put(c.Guest)
	}
}

func waits(s lease.State) bool { return s == lease.Preparing || s == lease.Resetting }

// Run works until ctx ends. It returns nil; whatever goes wrong meanwhile is logged, and tried again.
func (p *Preparer) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	for range p.o.Workers {
		all.Go(func() {
			for name, ok := p.queue.take(ctx); ok; name, ok = p.queue.take(ctx) {
				p.look(ctx, name)
				p.queue.done(name)
			}
		})
	}
	p.search(ctx)
	return nil
}

const (
	unadopted = 100 * time.Millisecond // between looks for a fleet
	retry     = time.Second            // between calls on a store that is away
)

// search finds the guests that wait: those of before the start, and those whose notice was lost.
func (p *Preparer) search(ctx context.Context) {
	away := false
	for wait := time.Duration(0); pause(ctx, wait); {
		if !p.adopted() {
			wait = unadopted
			continue
		}
		wait = p.o.Look
		err := p.enqueueWaiting(ctx)
		if err != nil && ctx.Err() == nil {
			wait = retry
			if !away {
				p.o.Log.Error("cannot look for guests that wait to be prepared or reset", "err", err)
			}
		}
		away = err != nil
	}
}

// adopted tells whether a fleet is in force. Before that no script is known, and a guest without one would be shelved as it is.
func (p *Preparer) adopted() bool {
	fleet := p.o.Store.Fleet()
	return fleet.Revision != "" || len(fleet.Pools) > 0
}

// enqueueWaiting reads the guests of those caches alone that have some to prepare or reset.
func (p *Preparer) enqueueWaiting(ctx context.Context) error {
	caches, err := p.o.Store.Caches(ctx)
	if err != nil {
		return err
	}
	stocks, err := p.o.Store.Stocks(ctx, caches...)
	if err != nil {
		return err
	}
	for _, stock := range stocks {
		if stock.In(lease.Preparing, lease.Resetting) == 0 {
			continue
		}
		guests, err := p.o.Store.CacheGuests(ctx, stock.Cache)
		if err != nil {
			return err
		}
		for _, g := range guests {
			if waits(g.State) {
				p.queue.put(g.Name)
			}
		}
	}
	return nil
}

// look does what the guest of that name wants by now, which may be nothing.
func (p *Preparer) look(ctx context.Context, name string) {
	if !p.adopted() {
		return
	}
	g, err := p.o.Store.Guest(ctx, name)
	switch {
	case errors.Is(err, lease.ErrUnknownGuest) || ctx.Err() != nil:
	case err != nil:
		p.o.Log.Error("cannot read a guest that waits; it will be looked at again", "guest", name, "err", err)
	case waits(g.State) && !g.Drawing():
		p.serve(ctx, g)
	}
}

// serve runs what the guest's cache wants and tells the store how it went.
func (p *Preparer) serve(ctx context.Context, g lease.Guest) {
	s := p.scriptFor(g)
	err := p.visit(ctx, g, s)
	if ctx.Err() != nil {
		return
	}
	for {
		tell := p.settle(ctx, g, s, err)
		if !errors.Is(tell, lease.ErrUnavailable) {
			p.logEnd(ctx, g, s, err, tell)
			return
		}
		if !pause(ctx, retry) {
			return
		}
	}
}

func (p *Preparer) logEnd(ctx context.Context, g lease.Guest, s script, err, tell error) {
	log := p.o.Log.With("pool", g.Pool, "cache", g.Cache, "guest", g.Name)
	switch {
	case ctx.Err() != nil, errors.Is(tell, lease.ErrConflict), errors.Is(tell, lease.ErrLeased), errors.Is(tell, lease.ErrUnknownGuest):
	case tell != nil:
		log.Error("cannot record how a guest's "+s.kind+" went; it will be run again", "err", tell)
	case err != nil:
		log.Warn("decided: taint", "reason", s.kind+"_failed", "err", err)
	}
}

// settle records the end of a script. A guest that is no longer in the state that wanted it is left alone: another server on the
// store may have brought it on. One that is in that state anew is told by its time, and one that leaves it at this moment by the
// store.
func (p *Preparer) settle(ctx context.Context, g lease.Guest, s script, failure error) error {
	if failure == nil {
		_, err := p.o.Store.Prepared(ctx, g)
		return err
	}
	now, err := p.o.Store.Guest(ctx, g.Name)
	if err != nil {
		return err
	}
	if now.State != g.State || now.Incarnation != g.Incarnation || !now.Since.Equal(g.Since) {
		return lease.ErrConflict
	}
	_, err = p.o.Store.Taint(ctx, system, g, lease.Taint{
		Reason: s.kind + "_failed", Evidence: failure.Error(), Death: true, From: []lease.State{g.State},
	})
	return err
}

// pause waits, and tells whether ctx still goes on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

// scriptFor picks the script that the guest's state wants. Where the spec has none any more it is empty.
func (p *Preparer) scriptFor(g lease.Guest) script {
	c := p.o.Store.Fleet().Cache(g.Cache)
	if c == nil {
		c = &specs.Cache{}
	}
	if g.State == lease.Preparing {
		return script{kind: "prepare", spec: c.Prepare, limit: p.o.Prepare}
	}
	return script{kind: "reset", spec: c.Reset, limit: p.o.Reset, part: partCommand(g)}
}
