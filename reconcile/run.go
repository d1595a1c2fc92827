package reconcile

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"greenroom/lease"
	"greenroom/reconcile/terraform"
)

// lockTTL is how long a shard stays ours without a renewal.
const lockTTL = 2 * time.Minute

// startRuns starts a run for each shard that has work due and none under way; those that somebody waits for come first.
func (l *Loop) startRuns(ctx context.Context, guests []lease.Guest) {
	type work struct {
		shard, pool string
		demand      bool
	}
	due := map[string]*work{}
	for _, g := range guests {
		switch g.State {
		case lease.Planned, lease.Provisioning, lease.Replacing, lease.Retiring:
			if due[g.Shard] == nil {
				due[g.Shard] = &work{shard: g.Shard, pool: g.Pool}
			}
			due[g.Shard].demand = due[g.Shard].demand || g.Demand && g.State != lease.Retiring
		}
	}
	list := make([]*work, 0, len(due))
	for _, w := range due {
		list = append(list, w)
	}
	slices.SortFunc(list, func(a, b *work) int {
		if a.demand != b.demand {
			if a.demand {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.shard, b.shard)
	})
	l.mu.Lock()
	for _, sh := range l.shards {
		sh.placeless = false
	}
	l.mu.Unlock()
	for _, w := range list {
		l.startRun(ctx, w.shard, w.pool, false)
	}
	l.startDrift(ctx)
}

// startDrift looks for drift where nobody has in a while; a shard that has just begun a run is busy.
func (l *Loop) startDrift(ctx context.Context) {
	for _, id := range l.driftDue() {
		l.startRun(ctx, id, l.poolOf(id), true)
	}
}

func (l *Loop) startRun(ctx context.Context, shard, pool string, drift bool) {
	run := strings.ToLower(rand.Text()[:12])
	sh := l.shard(shard, pool)
	l.mu.Lock()
	idle := sh.run == ""
	place := idle && l.hasPlace(sh)
	free := place && l.mayRun(sh)
	sh.placeless = idle && !place && !drift
	if free {
		sh.run, sh.began = run, l.o.Now()
	}
	l.mu.Unlock()
	if free {
		l.runs.Go(func() { l.run(ctx, shard, pool, run, drift) })
	}
}

// mayRun tells that a run of the shard may begin, where there is a place for it. It needs l.mu.
func (l *Loop) mayRun(sh *shardState) bool {
	now := l.o.Now()
	return sh.run == "" && !sh.going && sh.stalled == nil && !sh.until.After(now) && l.pool(sh.pool).paused == nil &&
		!l.breaker(sh.module()).until.After(now)
}

// run is one run of one shard, from its claims to its published outcome.
func (l *Loop) run(ctx context.Context, shard, pool, run string, drift bool) {
	if !drift {
		ready := l.terraform().Prepare(shard)
		defer l.terraform().Dismiss(ready)
	}
	fence, err := l.o.Store.Lock(ctx, pool, shard, l.o.Writer, lockTTL)
	if err != nil {
		l.lost(shard, pool, run, fmt.Errorf("locking the shard: %w", err))
		return
	}
	running, err := l.begin(ctx, shard, pool, run, fence, drift)
	if err != nil && !errors.Is(err, terraform.ErrBusy) { // else a runner of a former life is in the shard still
		l.unlock(context.WithoutCancel(ctx), shard, pool)
	}
	switch {
	case errors.Is(err, errNothingToDo):
		l.rest(shard)
	case err != nil:
		l.lost(shard, pool, run, err)
	default:
		l.follow(ctx, running)
	}
}

// begin claims the guests of a shard that is locked, and starts the run.
func (l *Loop) begin(ctx context.Context, shard, pool, run string, fence int64, drift bool) (*terraform.Running, error) {
	job, err := l.job(ctx, shard, pool, run, fence, drift)
	if err != nil {
		return nil, err
	}
	l.o.Log.Info("run starts", "pool", pool, "shard", shard, "run", run, "create", job.Create, "replace", job.Replace, "destroy", job.Destroy, "drift", drift)
	return l.terraform().Start(ctx, job)
}

// unlock lets a shard go: else another server would have to wait until the lock runs out.
func (l *Loop) unlock(ctx context.Context, shard, pool string) {
	if err := l.o.Store.Unlock(ctx, pool, shard, l.o.Writer); err != nil {
		l.o.Log.Warn("the shard could not be unlocked; that runs out by itself", "shard", shard, "err", err)
	}
}

// follow waits for a run, keeping the shard ours meanwhile, and takes its outcome in. A failure is booked before anything is
// published, so that no pass in between tries the same again at once.
func (l *Loop) follow(ctx context.Context, r *terraform.Running) {
	stop := l.renewLock(ctx, r)
	defer stop()
	var out terraform.Outcome
	wait := func() (err error) { out, err = r.Wait(ctx); return err }
	if !l.insist(ctx, r, "read", wait) {
		return // the run goes on by itself; the next start finds it
	}
	l.book(r, out)
	if !l.insist(ctx, r, "published", func() error { return l.takeIn(ctx, r, out) }) {
		return // without Ack the outcome stays for the next start
	}
	l.unlock(ctx, r.Shard, r.Pool)
	l.free(r.Shard)
}

func (l *Loop) takeIn(ctx context.Context, r *terraform.Running, out terraform.Outcome) error {
	if err := l.publish(ctx, r, out); err != nil {
		return err
	}
	return l.terraform().Ack(r.Shard, r.Run)
}

// insist does something until it succeeds; false: ctx has ended before. It says what is wrong, and again when that is something else.
func (l *Loop) insist(ctx context.Context, r *terraform.Running, what string, do func() error) bool {
	said := ""
	for {
		err := do()
		if err == nil || ctx.Err() != nil {
			return err == nil
		}
		if errors.Is(err, lease.ErrUnavailable) {
			l.unmended()
		}
		if now := gist(err); now != said {
			l.o.Log.Error("the outcome of a run could not be "+what+"; tried again until it can", "pool", r.Pool, "shard", r.Shard, "run", r.Run, "err", err)
			said = now
		}
		timer := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// gist is what is the same of an error when it comes again: not the port that a connection was made from.
func gist(err error) string {
	if network, ok := errors.AsType[*net.OpError](err); ok {
		return fmt.Sprintf("%s: %v", network.Op, network.Err)
	}
	return err.Error()
}

// unmended has the next pass mend what was cut short in the store: a call whose answer was lost may have been carried out.
func (l *Loop) unmended() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ready = false
}

func (l *Loop) renewLock(ctx context.Context, r *terraform.Running) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	l.runs.Go(func() {
		tick := time.NewTicker(lockTTL / 4)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if _, err := l.o.Store.Lock(ctx, r.Pool, r.Shard, l.o.Writer, lockTTL); err != nil {
					l.o.Log.Error("the shard's lock could not be renewed", "shard", r.Shard, "run", r.Run, "err", err)
				}
			}
		}
	})
	return cancel
}

// errNothingToDo means that a run before has done what this one was started for.
var errNothingToDo = errors.New("no guest of the shard waits for a run")

// job claims the shard's guests for a run and says what it shall do.
func (l *Loop) job(ctx context.Context, shard, pool, run string, fence int64, drift bool) (terraform.Job, error) {
	guests, err := l.o.Store.GuestsOf(ctx, pool, shard)
	if err != nil {
		return terraform.Job{}, err
	}
	if !drift && len(guests) == 0 {
		return terraform.Job{}, errNothingToDo
	}
	meta := l.metaOf(shard)
	if meta.Digest == "" {
		return terraform.Job{}, fmt.Errorf("shard %s has no record of what its guests are born of; it is left alone", shard)
	}
	job := terraform.Job{
		Shard: shard, Run: run, Pool: pool, Module: meta.module(), Guests: map[string]terraform.Guest{},
		AuthorizedKeys: l.o.AuthorizedKeys, Variables: meta.Recipe.Variables, DriftOnly: drift,
	}
	if r := l.recipe(pool); r.digest == meta.Digest {
		job.Module = r.job
	}
	caches := map[string]string{}
	for _, g := range guests {
		caches[g.Name] = g.Cache
		if !drift {
			if g, err = l.claim(ctx, g, run, fence); err != nil {
				return job, err
			}
		}
		add(&job, g, meta.Recipe.UserData)
	}
	if !drift && len(job.Create)+len(job.Replace)+len(job.Destroy) == 0 {
		return job, errNothingToDo // nothing is written: the shard may just have been removed
	}
	return job, l.editMeta(shard, func(m *shardMeta) {
		for name, cache := range caches {
			noted := m.Caches[name]
			if cache == pool && noted != "" && !slices.Contains(job.Create, name) && !slices.Contains(job.Replace, name) {
				caches[name] = noted // a spare that may have been drawn since it was read
			}
		}
		m.Caches, m.Ran = caches, true
	})
}

// claim takes a guest for the run where it needs one. Failed guests go with it: what is left of them would be in the way.
func (l *Loop) claim(ctx context.Context, g lease.Guest, run string, fence int64) (lease.Guest, error) {
	to, ok := map[lease.State]lease.State{
		lease.Planned: lease.Provisioning, lease.Provisioning: lease.Provisioning, lease.Replacing: lease.Replacing,
		lease.Retiring: lease.Retiring, lease.Failed: lease.Retiring,
	}[g.State]
	if !ok {
		return g, nil
	}
	return l.o.Store.Claim(ctx, g, to, run, g.Reason, fence)
}

// add puts a guest into a job as the state it has been claimed in says.
func add(job *terraform.Job, g lease.Guest, userData string) {
	incarnation := g.Incarnation
	switch g.State {
	case lease.Planned, lease.Failed: // not made, and not claimed: a look for drift leaves it out
		return
	case lease.Provisioning:
		job.Create = append(job.Create, g.Name)
	case lease.Replacing:
		incarnation++
		job.Replace = append(job.Replace, g.Name)
	case lease.Retiring:
		job.Destroy = append(job.Destroy, g.Name)
		return
	}
	job.Guests[g.Name] = terraform.Guest{Incarnation: incarnation, UserData: userData}
}
