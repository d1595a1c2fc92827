package watchdog

import (
	"context"
	"errors"
	"sync"
	"time"

	"greenroom/lease"
	"greenroom/specs"
)

const (
	soon    = 3 * time.Millisecond // from a guest's move to reading it again: somebody may wait for it to be alive
	lazily  = time.Second          // the same where a lease began or ended
	retry   = time.Second          // from an outage of the store to asking it again
	fewRead = 8                    // so many guests are read by themselves rather than with their pool
)

// job is work for a worker. What it returns is run by the loop, which alone touches the pools.
type job func(context.Context) func()

// chore is a job that an outage of the store calls off.
type chore struct {
	do      job
	callOff func()
}

// patrol is one Run: a loop that owns all state, and workers that do what may take time.
type patrol struct {
	*Watchdog
	pools     map[string]*pool
	timetable timetable
	queue     queue
	chores    []chore // calls on the store; they go before probes
	jobs      chan job
	done      chan func()
	fleet     *specs.Fleet // in force when guests were read last
	readAll   time.Time    // when to read every guest
	readOnce  bool         // every guest has been read
	readMoved time.Time    // when to read those that moved; zero: none did
	began     time.Time    // when the reading of every guest began; zero: it is not under way
	reading   int          // reads of the store under way
	readings  int          // of whole pools so far
	broken    bool         // a read of the present round has failed
	down      bool         // the store could not be reached
}

// Run watches until ctx ends. It returns nil; whatever goes wrong meanwhile is logged, and tried again.
func (w *Watchdog) Run(ctx context.Context) error {
	p := &patrol{
		Watchdog: w, pools: map[string]*pool{}, queue: queue{lines: map[*pool][]*check{}},
		jobs: make(chan job), done: make(chan func()), readAll: time.Now(),
	}
	var workers sync.WaitGroup
	for range w.o.Workers {
		workers.Go(func() { p.work(ctx) })
	}
	p.loop(ctx)
	workers.Wait()
	return nil
}

func (p *patrol) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-p.jobs:
			finish := j(ctx)
			select {
			case p.done <- finish:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (p *patrol) loop(ctx context.Context) {
	timer := time.NewTimer(p.o.Refresh)
	defer timer.Stop()
	for ctx.Err() == nil {
		wait := p.tick(time.Now())
		timer.Reset(wait)
		jobs, next, pop := p.next()
		select {
		case <-ctx.Done():
		case jobs <- next:
			pop()
		case finish := <-p.done:
			finish()
		case answer := <-p.questions:
			answer(p)
		case <-p.wake:
		case <-timer.C:
		}
	}
}

// tick does what is due and says how long nothing else will be.
func (p *patrol) tick(now time.Time) time.Duration {
	p.openMail(now)
	p.read(now)
	for c := p.timetable.take(now); c != nil; c = p.timetable.take(now) {
		c.flying = true
		p.queue.push(c)
	}
	until := p.readAll
	if !p.readMoved.IsZero() && p.readMoved.Before(until) {
		until = p.readMoved
	}
	if next := p.timetable.next(); !next.IsZero() && (p.reading > 0 || next.Before(until)) {
		until = next
	} else if p.reading > 0 {
		until = now.Add(p.o.Refresh) // the end of the reading wakes the loop
	}
	return max(time.Nanosecond, until.Sub(now)) // one of 0 crashes the race detector in a synctest bubble (golang/go#78156)
}

// next is the work that a free worker may take, and how to note that one has; the channel is nil when there is none.
func (p *patrol) next() (chan<- job, job, func()) {
	if len(p.chores) > 0 {
		return p.jobs, p.chores[0].do, func() { p.chores = p.chores[1:] }
	}
	for !p.queue.empty() {
		c := p.queue.peek()
		if !c.guest.gone && probed(c.guest.State) {
			return p.jobs, p.ask(c), func() { p.queue.pop(); c.asked = c.guest.pool.calls }
		}
		p.queue.pop()
		c.flying = false
	}
	return nil, nil, nil
}

func (p *patrol) ask(c *check) job {
	g, s := c.guest.Guest(), *c.spec
	return func(ctx context.Context) func() {
		r := p.count(g.Pool, p.probe(ctx, g, s))
		return func() {
			now := time.Now()
			p.carryOut(c.guest.pool.answer(c, r, now))
			p.settle(c.guest.pool, now)
		}
	}
}

// settle lets a pool decide about its dead, unless nothing could be done about them, and shows its brake.
func (p *patrol) settle(pl *pool, now time.Time) {
	if p.down {
		return
	}
	p.carryOut(pl.settle(now))
	why := pl.condition()
	if why == pl.shown {
		return
	}
	switch {
	case pl.shown == "":
		p.o.Log.Warn("the brake is on", "pool", pl.name, "reason", why)
	case why == "":
		p.o.Log.Info("the brake is off again", "pool", pl.name)
	}
	pl.shown = why
	p.mu.Lock()
	p.brakes[pl.name] = why
	p.mu.Unlock()
	p.o.Braked()
}

// carryOut has orders done. While the store is away they are dropped: the next result gives them again.
func (p *patrol) carryOut(orders []order) {
	for _, o := range orders {
		if p.down {
			o.guest.rest()
			continue
		}
		g := o.guest.Guest()
		p.chores = append(p.chores, chore{callOff: o.guest.rest, do: func(ctx context.Context) func() {
			after, err := p.execute(ctx, g, o)
			return func() { p.executed(o, after, err) }
		}})
	}
}

func (p *patrol) execute(ctx context.Context, g lease.Guest, o order) (lease.Guest, error) {
	switch {
	case o.boot:
		return p.o.Store.Booted(ctx, g)
	case o.health != nil:
		err := p.o.Store.SetHealth(ctx, g, *o.health)
		g.Health = *o.health
		return g, err
	}
	after, err := p.o.Store.Taint(ctx, system, g, *o.taint)
	if err == nil {
		p.o.Log.Warn("decided: taint", "pool", g.Pool, "cache", g.Cache, "guest", g.Name, "reason", o.taint.Reason)
	}
	return after, err
}

// executed takes in how an order went. That a guest has moved on meanwhile is no fault: it is read again.
func (p *patrol) executed(o order, after lease.Guest, err error) {
	g := o.guest
	if err != nil {
		g.tried = time.Now()
	}
	g.rest()
	switch {
	case errors.Is(err, context.Canceled) || g.gone:
	case err == nil:
		g.pool.update(time.Now(), after, p.scripted(after))
		p.settle(g.pool, time.Now())
	case errors.Is(err, lease.ErrUnavailable):
		p.outage(err)
	default:
		if !errors.Is(err, lease.ErrLeased) && !errors.Is(err, lease.ErrConflict) && !errors.Is(err, lease.ErrUnknownGuest) {
			p.o.Log.Error("the watchdog's order failed; it will be tried again", "pool", g.Pool, "guest", g.Name, "err", err)
		}
		p.Notify(lease.Change{Kind: lease.GuestMoved, Guest: g.Name})
	}
}

// scripted tells whether a script proves a guest of this cache alive between two leases.
func (p *patrol) scripted(g lease.Guest) bool {
	c := p.o.Store.Fleet().Cache(g.Cache)
	return c != nil && len(c.Reset.Body) > 0
}
