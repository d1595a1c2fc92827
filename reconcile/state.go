package reconcile

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"greenroom/lease"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/terraform"
)

// pause is a count of failures in a row and the time before which nothing is tried again.
type pause struct {
	failures int
	until    time.Time
	message  string
}

func (p *pause) fail(now time.Time, message string) {
	p.failures++
	p.message = message
	pause := backoff(p.failures)
	p.until = now.Add(pause + rand.N(pause/5+1))
}

// breakerTrips is how many runs of one module must fail in a row, none of them making anything, until all its pools pause.
const breakerTrips = 5

// poolState is what the loop knows of a pool beyond spec and inventory.
type poolState struct {
	pause
	paused     *lease.Pause
	runs       []condition.RunStatus // that ended, the newest first
	census     *census               // of the last pass; nil: there was none
	conditions conditions
}

// keptRuns is how many runs of a pool are kept, for people to look at.
const keptRuns = 10

// shardState is what the loop knows of a shard beyond its inventory.
type shardState struct {
	pause
	id, pool   string
	run        string
	began      time.Time // of run
	placeless  bool      // it has work, and every place of a run is taken
	going      bool      // it is being removed
	meta       shardMeta
	last       *condition.RunStatus
	stalled    *terraform.Fault
	kept       bool      // it has no guest on record, and could not be removed
	looked     time.Time // for drift
	conditions conditions
}

// module is what the shard's guests are made by, whatever its pool has come to since: what runs of it tell is told of that.
func (sh *shardState) module() string { return sh.meta.Recipe.Source }

// The following need l.mu.

func (l *Loop) pool(name string) *poolState {
	if l.pools[name] == nil {
		l.pools[name] = &poolState{}
	}
	return l.pools[name]
}

func (l *Loop) breaker(module string) *pause {
	if l.breakers[module] == nil {
		l.breakers[module] = &pause{}
	}
	return l.breakers[module]
}

func (l *Loop) shardLocked(id, pool string) *shardState {
	if l.shards[id] == nil {
		l.shards[id] = &shardState{id: id, pool: pool, looked: l.o.Now()}
	}
	return l.shards[id]
}

// forgive ends the pauses of a pool, its shards and their modules.
func (l *Loop) forgive(pool string) {
	l.pool(pool).pause = pause{}
	if r, ok := l.recipes[pool]; ok {
		*l.breaker(r.Source) = pause{}
	}
	for _, sh := range l.shards {
		if sh.pool == pool {
			sh.pause, sh.stalled = pause{}, nil
			*l.breaker(sh.module()) = pause{}
		}
	}
}

// forgiveAll is for a new revision: it may have mended anything.
func (l *Loop) forgiveAll() {
	for _, p := range l.pools {
		p.pause = pause{}
	}
	for _, sh := range l.shards {
		sh.pause, sh.stalled = pause{}, nil
	}
	clear(l.breakers)
}

// Those that follow take l.mu themselves.

func (l *Loop) shard(id, pool string) *shardState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shardLocked(id, pool)
}

// take makes a shard busy with a run; false: it is busy already.
func (l *Loop) take(shard, pool, run string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	sh := l.shardLocked(shard, pool)
	if sh.run != "" {
		return false
	}
	sh.run, sh.began = run, l.o.Now()
	return true
}

func (l *Loop) poolOf(shard string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shards[shard].pool
}

func (l *Loop) remember(shard string, meta shardMeta) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sh := l.shardLocked(shard, meta.Recipe.Pool)
	sh.meta, sh.kept = meta, false
}

func (l *Loop) metaOf(shard string) shardMeta {
	l.mu.Lock()
	defer l.mu.Unlock()
	if sh := l.shards[shard]; sh != nil {
		return sh.meta
	}
	return shardMeta{}
}

// editMeta changes what is kept with a shard, one change at a time: a run and a draw may both have one.
func (l *Loop) editMeta(shard string, edit func(*shardMeta)) error {
	l.metas.Lock()
	defer l.metas.Unlock()
	meta := l.metaOf(shard)
	if meta.Caches = maps.Clone(meta.Caches); meta.Caches == nil {
		meta.Caches = map[string]string{}
	}
	edit(&meta)
	l.remember(shard, meta)
	body, err := json.Marshal(meta)
	if err != nil {
		return err
	}
	return l.terraform().SetMeta(shard, body)
}

// ensureShard writes down what a new shard's guests are born of, before the first of them is planned, and keeps their module:
// when the spec moves on before the first run, nobody else has it.
func (l *Loop) ensureShard(shard, pool string) error {
	r := l.recipe(pool)
	if meta := l.metaOf(shard); meta.Digest == r.digest {
		return nil
	}
	if err := l.terraform().KeepModule(r.job); err != nil {
		l.o.Log.Warn("a module could not be kept", "pool", pool, "shard", shard, "err", err) // a run says so too
	}
	return l.editMeta(shard, func(m *shardMeta) { *m = shardMeta{Recipe: r, Digest: r.digest} })
}

// nextTry is the earliest time at which something that failed may be tried again; zero: nothing waits for a time.
func (l *Loop) nextTry() (next time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.o.Now()
	consider := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	defer func() { l.retry = next }()
	consider(l.noDriver.until)
	consider(l.failedDue)
	for _, p := range l.pools {
		consider(p.until)
	}
	for _, s := range l.shards {
		consider(s.until)
	}
	for _, b := range l.breakers {
		consider(b.until)
	}
	return next
}

// driftDue lists the shards at which nobody has looked for drift in a while.
func (l *Loop) driftDue() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var due []string
	now := l.o.Now()
	for _, id := range slices.Sorted(maps.Keys(l.shards)) {
		sh := l.shards[id]
		if sh.meta.Ran && sh.run == "" && now.Sub(sh.looked) >= l.o.DriftEvery {
			due = append(due, id)
		}
	}
	return due
}

// lost books a run that could not even be started: that is no fault of the pool or its module.
func (l *Loop) lost(shard, pool, run string, err error) {
	l.o.Log.Error("a run could not be started", "pool", pool, "shard", shard, "run", run, "err", err)
	l.mu.Lock()
	l.shardLocked(shard, pool).fail(l.o.Now(), err.Error())
	l.mu.Unlock()
	l.free(shard)
}

// free lets a shard take work again.
func (l *Loop) free(shard string) {
	l.mu.Lock()
	if sh := l.shards[shard]; sh != nil {
		sh.run = ""
	}
	l.mu.Unlock()
	l.nudge()
}

// stutter is how soon a shard is tried again where the store had no work for the run that was started.
const stutter = 100 * time.Millisecond

// rest frees a shard whose run had nothing to do, and not at once: whatever the view has that the store has not, it must not
// start runs without end.
func (l *Loop) rest(shard string) {
	l.mu.Lock()
	if sh := l.shards[shard]; sh != nil && !sh.until.After(l.o.Now()) {
		sh.until = l.o.Now().Add(stutter)
	}
	l.mu.Unlock()
	l.free(shard)
}

// book keeps how a run went: that decides when the shard, its pool and its module are tried again.
func (l *Loop) book(r *terraform.Running, out terraform.Outcome) {
	message := failure(out)
	log := l.o.Log.With("pool", r.Pool, "shard", r.Shard, "run", r.Run)
	l.mu.Lock()
	defer l.mu.Unlock()
	sh, p := l.shardLocked(r.Shard, r.Pool), l.pool(r.Pool)
	b := l.breaker(sh.module())
	sh.looked, sh.last = l.o.Now(), runStatus(r.Job(), out)
	if !r.Job().DriftOnly || message != "" { // a look that has found nothing would push out what is of interest
		p.runs = append([]condition.RunStatus{*sh.last}, p.runs[:min(len(p.runs), keptRuns-1)]...)
	}
	switch {
	case message == "":
		sh.pause, p.pause, *b = pause{}, pause{}, pause{}
		log.Info("run ended", "changed", out.Changed, "seconds", out.Ended.Sub(out.Started).Seconds())
		return
	case out.Err != nil && out.Err.Kind == terraform.FaultDrift:
		sh.fail(l.o.Now(), message) // the watchdog is told; until it has acted, nothing can be done here
	default:
		l.punish(sh, p, b, out.Err, message, len(out.Guests) > 0 && out.Err != nil && out.Err.Kind == terraform.FaultApply)
	}
	log.Error("run failed", "err", message, "next", sh.until)
}

// punish books a failure. One guest that failed among others that did not is its pool's matter; a run that failed whole is
// the shard's too, and the module's when that goes on.
func (l *Loop) punish(sh *shardState, p *poolState, b *pause, fault *terraform.Fault, message string, partial bool) {
	now := l.o.Now()
	p.fail(now, message)
	if partial {
		return
	}
	sh.fail(now, message)
	if fault != nil && fault.Stalled() {
		sh.stalled = fault
		return
	}
	b.failures++
	b.message = message
	if b.failures >= breakerTrips {
		b.until = now.Add(backoff(b.failures))
	}
}

// failure says what went wrong with a run; empty: nothing.
func failure(out terraform.Outcome) string {
	switch {
	case out.Err != nil:
		return out.Err.Error()
	case len(out.Failed) > 0:
		return fmt.Sprintf("%d guests failed: %s", len(out.Failed), strings.Join(slices.Sorted(maps.Keys(out.Failed)), ", "))
	}
	return ""
}

func runStatus(job terraform.Job, out terraform.Outcome) *condition.RunStatus {
	r := &condition.RunStatus{
		Run: out.Run, Shard: job.Shard, Plan: condition.RunPlan{Create: job.Create, Replace: job.Replace, Retire: job.Destroy},
		Started: out.Started, Ended: out.Ended, Failed: out.Failed, Result: "ok",
	}
	made := func(names []string) (done []string) {
		for _, name := range names {
			if _, whole := out.Guests[name]; whole && out.Incarnations[name] == job.Guests[name].Incarnation {
				done = append(done, name)
			}
		}
		return done
	}
	r.Created, r.Replaced = made(job.Create), made(job.Replace)
	for _, name := range job.Destroy {
		if _, left := out.Incarnations[name]; !left && out.Incarnations != nil {
			r.Retired = append(r.Retired, name)
		}
	}
	if out.Err != nil {
		r.Result, r.Message = out.Err.Kind, out.Err.Message
	}
	return r
}

// dropUnmade takes planned guests off the record whose shard never ran and never will, because the spec has moved on.
func (l *Loop) dropUnmade(ctx context.Context, guests []lease.Guest) error {
	for _, g := range guests {
		meta := l.metaOf(g.Shard)
		if g.State != lease.Planned || meta.Ran || l.running(g.Shard) || meta.Digest == cmp.Or(l.recipe(g.Pool).digest, "none") {
			continue
		}
		if err := l.o.Store.Remove(ctx, g, "", "outdated"); err != nil && !errors.Is(err, lease.ErrConflict) {
			return err
		}
	}
	return nil
}

// removeEmpty forgets the shards that have no guest and no work, those included that never came to a run.
func (l *Loop) removeEmpty(ctx context.Context, guests []lease.Guest) {
	used := map[string]bool{}
	for _, g := range guests {
		used[g.Shard] = true
	}
	var empty []string
	l.mu.Lock()
	now := l.o.Now()
	for id, sh := range l.shards {
		if !used[id] && sh.run == "" && sh.stalled == nil && !sh.until.After(now) && !sh.kept && !sh.going {
			sh.going = true
			empty = append(empty, id)
		}
	}
	l.mu.Unlock()
	remove := func() {
		for _, id := range empty {
			l.remove(ctx, id)
		}
	}
	switch {
	case len(empty) == 0:
	case l.terraform().Remote():
		l.runs.Go(func() { remove(); l.nudge() }) // states that are elsewhere may take their time: they must not hold up this pass
	default:
		remove()
	}
}

// remove removes a shard's directory when nothing is left in its state, and forgets the shard then.
func (l *Loop) remove(ctx context.Context, shard string) {
	err := l.terraform().Remove(ctx, shard)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shards[shard].going = false
	switch {
	case err == nil || errors.Is(err, terraform.ErrNoShard):
		delete(l.shards, shard)
		l.o.Log.Info("removed an empty shard", "shard", shard)
	case errors.Is(err, terraform.ErrBusy): // a runner that no run was started with is about to end
		l.shards[shard].until = l.o.Now().Add(time.Second)
	default:
		l.shards[shard].kept = true
		l.o.Log.Warn("a shard without guests could not be removed", "shard", shard, "err", err)
	}
}

// longRun is how long a run keeps a place from other modules. A machine takes minutes; a provider that hangs may take for ever.
const longRun = 10 * time.Minute

// hasPlace tells that a run of the shard may begin beside those under way. The last place is kept from modules that have a run, for
// those that have none, and after a while a run takes no place from other modules: providers that hang must not stop the
// others. There are never more than twice as many runs as places. It needs l.mu.
func (l *Loop) hasPlace(sh *shardState) bool {
	n, all, busy := 0, 0, map[string]bool{}
	for _, other := range l.shards {
		if other.run == "" {
			continue
		}
		all++
		busy[other.module()] = true
		if other.module() == sh.module() || l.o.Now().Sub(other.began) < longRun {
			n++
		}
	}
	if all >= 2*l.o.Runs {
		return false
	}
	if n < l.o.Runs-1 || !busy[sh.module()] {
		return n < l.o.Runs
	}
	for _, r := range l.recipes {
		if !busy[r.Source] {
			return false
		}
	}
	return n < l.o.Runs
}

// places says who has the places of runs. It needs l.mu.
func (l *Loop) places() string {
	count, since := map[string]int{}, map[string]time.Time{}
	for _, sh := range l.shards {
		if m := sh.module(); sh.run != "" {
			count[m]++
			if first := since[m]; first.IsZero() || sh.began.Before(first) {
				since[m] = sh.began
			}
		}
	}
	var parts []string
	for _, m := range slices.Sorted(maps.Keys(count)) {
		parts = append(parts, fmt.Sprintf("%d by module %s, the longest since %s", count[m], m, since[m].UTC().Format(time.TimeOnly)))
	}
	return strings.Join(parts, "; ")
}

func (l *Loop) running(shard string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	sh := l.shards[shard]
	return sh != nil && sh.run != ""
}
