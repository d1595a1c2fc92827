// Package reconcile brings the inventory of guests towards the specs. Decide, which is pure, says what must
// happen; the loop carries it out, one Terraform run per shard, and publishes what came of it.
//
// Its state is in the store and in the shards' directories, so that a killed process loses nothing: a guest that is claimed
// and has no run under way is simply work that is due.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"greenroom/lease"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/plan"
	"greenroom/reconcile/terraform"
	"greenroom/specs"
)

// Options of a loop. Store and OpenDriver are needed.
type Options struct {
	Store *lease.Store
	// OpenDriver finds Terraform. It is called again until it succeeds; leases are served without it.
	OpenDriver func(context.Context) (*terraform.Driver, error)
	// Writer names this server among those on one store; it must survive a restart.
	Writer string
	// AuthorizedKeys are given to every guest at its birth.
	AuthorizedKeys []string
	// Source says where the specs come from, for people.
	Source string
	// FleetFile keeps the last good fleet, so that a restart on a bad spec goes on with it. Empty: not kept.
	FleetFile string
	// Vanished is told of guests that their provider took away; without evidence, of those that it has.
	Vanished func(ctx context.Context, guests []lease.Guest, evidence string)
	// Held is told of a revision that must not come into force before somebody approves it, with its preview, and returns
	// the id of the plan by which people will know it. It must not block.
	Held func(Revision, *Preview) (plan string)
	// Adopted is told that another revision is in force. It must not block.
	Adopted func()
	// ApprovalsFile keeps approvals of revisions that are not in force yet. Empty: not kept over a restart.
	ApprovalsFile string
	// Brakes says for which pools the watchdog's brake holds, and why.
	Brakes func() map[string]string

	Debounce   time.Duration // events within it make one tick; default 1ms
	Every      time.Duration // between ticks without an event; default 10s
	DriftEvery time.Duration // between looks for drift at one shard; default 15m
	Reread     time.Duration // after which all of the store is read again without a notice; default 1m
	Runs       int           // most runs at once, no more than the driver allows; default 4
	Registry   prometheus.Registerer
	Log        *slog.Logger
	Now        func() time.Time
}

// Loop is the reconciler. Run it once; its other methods may be called concurrently.
type Loop struct {
	o       Options
	metrics *metrics
	wake    chan struct{} // something needs a pass
	lull    chan struct{} // something wants a pass, and nobody waits for it
	view    *view         // of the store; only the loop reads it
	next    time.Time     // when something in the view turns out otherwise by time
	pruned  time.Time     // when modules that nothing needs were removed last
	runs    sync.WaitGroup

	metas sync.Mutex // held from reading what is kept with a shard until it is written

	mu         sync.Mutex
	driver     *terraform.Driver
	fleet      *specs.Fleet // in force
	restored   *specs.Fleet // of a former life, not in force yet
	offered    *Revision    // newer, not in force yet
	heldDigest string       // of the preview of the offered one, once it is held
	approvals  []plan.Approval
	fault      *condition.Fault // of the newest revision, when it is bad
	specSince  time.Time
	longest    time.Duration          // lease of any fleet that was offered
	recipes    map[string]recipe      // pool -> what its guests are born of
	faults     map[string]error       // pool -> why it has no recipe
	pools      map[string]*poolState  // by name
	shards     map[string]*shardState // by id
	breakers   map[string]*pause      // by module
	conditions conditions             // of the fleet as a whole
	storeErr   error
	passErr    error     // of the last pass, which changed nothing
	passed     time.Time // when a pass last did what it had to
	failedDue  time.Time // when the first failed guest may be tried again
	driverErr  error
	noDriver   pause     // between two looks for Terraform
	ready      bool      // recovered and mended since the start
	stirred    bool      // something has happened since the last pass
	retry      time.Time // when the next thing that failed may be tried again
}

// errLooking stands until Terraform was looked for once, which takes long where it has to be installed.
var errLooking = errors.New("terraform is being looked for, or installed")

// New returns a loop that is not running yet.
func New(o Options) *Loop {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&o.Debounce, time.Millisecond)
	set(&o.Every, 10*time.Second)
	set(&o.DriftEvery, 15*time.Minute)
	set(&o.Reread, time.Minute)
	if o.Runs == 0 {
		o.Runs = 4
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Vanished == nil {
		o.Vanished = func(context.Context, []lease.Guest, string) {}
	}
	if o.Held == nil {
		o.Held = func(Revision, *Preview) string { return "" }
	}
	if o.Adopted == nil {
		o.Adopted = func() {}
	}
	if o.Brakes == nil {
		o.Brakes = func() map[string]string { return nil }
	}
	l := &Loop{
		o: o, wake: make(chan struct{}, 1), lull: make(chan struct{}, 1), fleet: &specs.Fleet{}, view: newView(),
		driverErr: errLooking,
		recipes:   map[string]recipe{}, faults: map[string]error{}, pools: map[string]*poolState{},
		shards: map[string]*shardState{}, breakers: map[string]*pause{},
	}
	l.metrics = newMetrics(l)
	return l
}

// Wake asks for a tick soon. Naming pools also ends their pauses after failures: a human says "now, please".
func (l *Loop) Wake(pools ...string) {
	l.mu.Lock()
	for _, name := range pools {
		l.forgive(name)
		l.view.stir(name, name)
	}
	l.mu.Unlock()
	if len(pools) == 0 {
		l.view.forget()
	}
	l.nudge()
}

// nudge has the loop make a pass soon.
func (l *Loop) nudge() { l.stir(l.wake) }

func (l *Loop) stir(bell chan struct{}) {
	l.mu.Lock()
	l.stirred = true
	l.mu.Unlock()
	select {
	case bell <- struct{}{}:
	default:
	}
}

// Notify takes changes in the store; those that may need work wake the loop.
func (l *Loop) Notify(changes ...lease.Change) {
	lost := func(c lease.Change) bool { return c.Kind == lease.StoreLost }
	h := l.view.notice(changes)
	if slices.ContainsFunc(changes, lost) && l.unaware() {
		h = soon
	}
	switch h {
	case soon:
		l.nudge()
	case calm:
		l.stir(l.lull)
	}
}

// unaware says that the last pass saw nothing of a store that was lost. Else it is known, and there are as many notices as calls.
func (l *Loop) unaware() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.passErr == nil && l.fleet != nil && l.fleet.Revision != ""
}

// Run reconciles until ctx ends. Runs under way then go on by themselves, and the next start finds them again.
func (l *Loop) Run(ctx context.Context) error {
	defer l.runs.Wait()
	defer l.detach()
	for {
		wait, began := l.o.Every, time.Now()
		if err := l.tick(ctx); err != nil && ctx.Err() == nil {
			wait = time.Second
		} else if next := l.nextTry(); !next.IsZero() {
			wait = min(wait, max(next.Sub(l.o.Now()), l.o.Debounce))
		}
		took := min(time.Since(began), time.Second)
		if !l.pauseFor(ctx, wait, took, unhurried*took) {
			return nil
		}
	}
}

// Passes take at most half of the time, however many events there are; those that nobody waits for, a small part of it.
const unhurried = 20

// pauseFor waits for an event, and a moment longer for those that come with it, or for d. It lasts as long as rest at least after a
// pass, or as calm where there is no hurry. False: ctx has ended.
func (l *Loop) pauseFor(ctx context.Context, d, rest, calm time.Duration) bool {
	began := time.Now()
	timer := time.NewTimer(d)
	defer timer.Stop()
	until := func(pause time.Duration) time.Duration { return max(l.o.Debounce, pause-time.Since(began)) }
	wake, lull := l.wake, l.lull
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			l.hush()
			return true
		case <-wake:
			timer.Reset(until(rest))
			wake, lull = nil, nil
		case <-lull:
			timer.Reset(min(until(d), until(calm)))
			lull = nil
		}
	}
}

// hush takes back the calls for the pass that comes.
func (l *Loop) hush() {
	for _, bell := range []chan struct{}{l.wake, l.lull} {
		select {
		case <-bell:
		default:
		}
	}
}

func (l *Loop) detach() {
	if d := l.terraform(); d != nil {
		d.Detach()
	}
}

func (l *Loop) terraform() *terraform.Driver {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.driver
}

// tick is one pass: read all, decide, carry out, start runs. An error means that something could not be read whole, and
// that nothing was decided.
func (l *Loop) tick(ctx context.Context) error {
	err := l.pass(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.passErr
	l.passErr, l.storeErr = err, nil
	if errors.Is(err, lease.ErrUnavailable) {
		l.storeErr, l.ready = err, false // what was cut short is mended first
	}
	if err != nil {
		l.stirred = true
	} else {
		l.passed = l.o.Now()
	}
	l.fleetConditions(condition.Status{Revision: l.fleet.Revision}) // so that they know since when
	switch {
	case ctx.Err() != nil:
	case err != nil && (before == nil || gist(before) != gist(err)):
		l.o.Log.Error("this pass changed nothing", "err", err)
	case err == nil && before != nil:
		l.o.Log.Info("passes work again")
	}
	return err
}

// mouthful is how much of what was decided one pass carries out at most: runs start on it while the next pass does more.
const mouthful = 100

// firstOf says how many actions that is: a shard's go together, because a shard that has a run takes no new guests.
func firstOf(actions []Action) int {
	n := min(mouthful, len(actions))
	for 0 < n && n < len(actions) && actions[n].Shard == actions[n-1].Shard {
		n++
	}
	return n
}

func (l *Loop) pass(ctx context.Context) error {
	if err := l.prepare(ctx); err != nil {
		return err
	}
	if l.inForce().Revision == "" {
		return nil // nobody knows what is wanted: what exists stays as it is
	}
	l.pruneModules(ctx)
	if !l.due() {
		l.startDrift(ctx)
		return nil
	}
	if err := l.look(ctx); err != nil {
		return err
	}
	snap := l.snapshot()
	actions := Decide(snap)
	if n := firstOf(actions); n < len(actions) {
		actions = actions[:n]
		defer l.nudge()
	}
	for _, a := range actions {
		if err := l.carryOut(ctx, a); err != nil {
			return err
		}
	}
	if len(actions) > 0 {
		if err := l.look(ctx); err != nil {
			return err
		}
		snap.Guests = l.view.guests
	}
	if err := l.dropUnmade(ctx, snap.Guests); err != nil {
		return err
	}
	l.removeEmpty(ctx, snap.Guests)
	l.startRuns(ctx, snap.Guests)
	l.judge(snap)
	l.next = l.view.nextTurn(snap)
	return nil
}

// due tells whether anything may have come about since the last pass: an event, something to read, or a time. It begins anew.
func (l *Loop) due() bool {
	now := l.o.Now()
	l.view.turn(now)
	l.mu.Lock()
	defer l.mu.Unlock()
	due := l.stirred || !l.view.idle() || l.view.stale(now, l.o.Reread) || !l.retry.IsZero() && !now.Before(l.retry) ||
		!l.next.IsZero() && !now.Before(l.next)
	l.stirred = false
	return due
}

// prepare brings what a pass stands on into order: the store, the fleet in force, Terraform and the runs of a former life.
func (l *Loop) prepare(ctx context.Context) error {
	empty, err := l.o.Store.Empty(ctx)
	if err != nil {
		return err
	}
	if !empty { // then nothing can have been lost, and leases are served whether Terraform is there or not
		if err := l.adopt(ctx); err != nil {
			return err
		}
	}
	missing := l.openDriver(ctx)
	switch {
	case missing != nil && empty: // what the store may have lost cannot be seen without Terraform
		return missing
	case missing == nil:
		if err := l.rebuild(ctx, empty); err != nil {
			return err
		}
	}
	if err := l.adopt(ctx); err != nil {
		return err
	}
	if missing != nil || l.ready {
		return missing
	}
	if err := l.mend(ctx); err != nil {
		return err
	}
	if err := l.recover(ctx); err != nil {
		return err
	}
	l.ready = true
	return nil
}

// openDriver finds Terraform once. Without it nothing can be reconciled, and leases are served all the same.
func (l *Loop) openDriver(ctx context.Context) error {
	if l.terraform() != nil {
		return nil
	}
	l.mu.Lock()
	waiting, last := l.noDriver.until.After(l.o.Now()), l.driverErr
	l.mu.Unlock()
	if waiting {
		return last
	}
	d, err := l.o.OpenDriver(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.driverErr = err
	if err != nil {
		l.noDriver.fail(l.o.Now(), err.Error())
		return err
	}
	l.driver = d
	path, version := d.Binary()
	l.o.Log.Info("found terraform", "path", path, "version", version)
	return nil
}

// mend finishes what a crash left half done in the store.
func (l *Loop) mend(ctx context.Context) error {
	pools, err := l.poolNames(ctx)
	if err != nil {
		return err
	}
	for _, name := range pools {
		if err := l.o.Store.Mend(ctx, name); err != nil {
			return fmt.Errorf("mending pool %s: %w", name, err)
		}
	}
	return nil
}

// recover finds the runs that went on while no daemon was there, and those whose outcome nobody has taken in.
func (l *Loop) recover(ctx context.Context) error {
	running, orphans, err := l.terraform().Recover(ctx)
	if err = l.stallBroken(err); err != nil {
		return fmt.Errorf("finding runs again: %w", err)
	}
	for _, o := range orphans {
		if l.running(o.Shard) {
			continue // followed already
		}
		l.o.Log.Warn("a run died without an outcome; its shard is planned again", "run", o.Run, "shard", o.Shard, "pool", o.Pool)
		if err := l.terraform().Ack(o.Shard, o.Run); err != nil {
			return fmt.Errorf("shard %s: %w", o.Shard, err)
		}
	}
	for _, r := range running {
		if !l.take(r.Shard, r.Pool, r.Run) {
			continue // followed already
		}
		l.o.Log.Info("found a run again", "run", r.Run, "shard", r.Shard, "pool", r.Pool)
		l.runs.Go(func() { l.follow(ctx, r) })
	}
	return nil
}

// carryOut does one action in the store. That somebody else was faster is no error: the next pass sees it.
func (l *Loop) carryOut(ctx context.Context, a Action) error {
	var err error
	switch a.Verb {
	case Provision:
		if err := l.ensureShard(a.Shard, a.Pool); err != nil {
			return err
		}
		digest := l.recipe(a.Pool).digest
		a.Guest, err = l.o.Store.Plan(ctx, l.inForce().Pool(a.Pool), l.inForce().Cache(a.Cache), a.Shard, digest, a.Demand)
	case Replace:
		_, err = l.o.Store.Claim(ctx, a.Guest, lease.Replacing, "", a.Reason, 0)
	case Retire:
		_, err = l.o.Store.Claim(ctx, a.Guest, lease.Retiring, "", a.Reason, 0)
	case Draw:
		// Noted first: it can be leased before Draw returns, and the store be lost right then.
		if err := l.editMeta(a.Shard, func(m *shardMeta) { m.Caches[a.Guest.Name] = a.Cache }); err != nil {
			return err
		}
		_, err = l.o.Store.Draw(ctx, a.Guest, l.inForce().Cache(a.Cache))
	}
	log := l.o.Log.With("pool", a.Pool, "cache", a.Cache, "guest", a.Guest.Name, "shard", a.Shard)
	if err == nil {
		l.view.read(a.Guest.Name)
		l.view.stir("", a.Cache)
	} else {
		l.view.stir(a.Pool, a.Cache)
	}
	switch {
	case err == nil:
		log.Info("decided: "+string(a.Verb), "reason", a.Reason, "demand", a.Demand)
	case errors.Is(err, lease.ErrLeased), errors.Is(err, lease.ErrConflict), errors.Is(err, lease.ErrFull), errors.Is(err, lease.ErrUnknownGuest):
		log.Info("overtaken: "+string(a.Verb), "err", err)
		l.nudge()
	default:
		return err
	}
	return nil
}

func (l *Loop) inForce() *specs.Fleet {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fleet
}

func (l *Loop) recipe(pool string) recipe {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.recipes[pool]
}
