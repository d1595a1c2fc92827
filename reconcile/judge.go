package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"greenroom/lease"
	"greenroom/reconcile/condition"
	"greenroom/specs"
)

// conditions is the set of one pool or shard, by type.
type conditions map[condition.Type]condition.Condition

// set changes a condition; its Since moves only when status or reason change.
func (c *conditions) set(now time.Time, revision string, t condition.Type, status bool, reason, message string) {
	if *c == nil {
		*c = conditions{}
	}
	since := now
	if old, ok := (*c)[t]; ok && old.Status == status && old.Reason == reason {
		since = old.Since
	}
	(*c)[t] = condition.Condition{Type: t, Status: status, Reason: reason, Message: message, Since: since, Revision: revision}
}

func (c conditions) list() []condition.Condition {
	out := make([]condition.Condition, 0, len(c))
	for _, t := range []condition.Type{condition.Ready, condition.Reconciling, condition.Stalled, condition.Waiting} {
		if cond, ok := c[t]; ok {
			out = append(out, cond)
		}
	}
	return out
}

// verdict is a reason with its message; an empty reason means "no".
type verdict struct{ reason, message string }

// judge says of every pool and shard how it stands, after a pass. Calls wait for l.mu, so the guests are counted before.
func (l *Loop) judge(s Snapshot) {
	brakes, counted, failedDue := l.o.Brakes(), countGuests(s), nextFailed(s)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failedDue = failedDue
	for _, sh := range l.shards {
		l.judgeShard(sh, s)
	}
	for _, p := range s.Fleet.Pools {
		if counted[p.Name] == nil {
			counted[p.Name] = newCensus()
		}
	}
	maps.DeleteFunc(l.pools, func(name string, _ *poolState) bool { return counted[name] == nil })
	shards := l.shardsByPool()
	for name, c := range counted {
		l.judgePool(name, c, shards[name], s, brakes[name])
	}
}

// census is the guests of one pool, counted once for everything that is said of it.
type census struct {
	states   map[lease.State]int
	shards   map[string]int
	outdated int
	resting  verdict // of the first that did not come up and waits for its next try
}

func newCensus() *census { return &census{states: map[lease.State]int{}, shards: map[string]int{}} }

func countGuests(s Snapshot) map[string]*census {
	all := map[string]*census{}
	for i := range s.Guests {
		g := &s.Guests[i]
		c := all[g.Pool]
		if c == nil {
			c = newCensus()
			all[g.Pool] = c
		}
		c.states[g.State]++
		c.shards[g.Shard]++
		if digest := s.Digests[g.Pool]; digest != "" && g.Digest != digest && g.State != lease.Leased {
			c.outdated++
		}
		if at := nextTry(g, s.Now); c.resting.reason == "" && g.State == lease.Tainted && !at.IsZero() {
			c.resting = verdict{"GuestFailed", fmt.Sprintf("guest %s did not come up %d times in a row (%s), see its events; tried again at %s",
				g.Name, g.Failures, g.Reason, at.UTC().Format(time.TimeOnly))}
		}
	}
	return all
}

// shardsByPool are all shards, in order. It needs l.mu.
func (l *Loop) shardsByPool() map[string][]*shardState {
	out := map[string][]*shardState{}
	for _, id := range slices.Sorted(maps.Keys(l.shards)) {
		sh := l.shards[id]
		out[sh.pool] = append(out[sh.pool], sh)
	}
	return out
}

// nextTry is when a guest that failed may be tried again; zero: it does not wait for that.
func nextTry(g *lease.Guest, now time.Time) time.Time {
	at := g.Since.Add(backoff(g.Failures))
	if g.Failures == 0 || g.State != lease.Failed && g.State != lease.Tainted || !at.After(now) {
		return time.Time{}
	}
	return at
}

// nextFailed is when the first of the guests that failed may be tried again; zero: none waits for that.
func nextFailed(s Snapshot) (next time.Time) {
	for i := range s.Guests {
		if at := nextTry(&s.Guests[i], s.Now); !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

func (l *Loop) judgeShard(sh *shardState, s Snapshot) {
	var stalled, waiting, busy verdict
	if sh.stalled != nil {
		stalled = verdict{"Fault" + title(sh.stalled.Kind), sh.stalled.Error()}
	}
	if sh.until.After(s.Now) {
		waiting = verdict{"RunFailed", fmt.Sprintf("%s; tried again at %s", sh.message, sh.until.UTC().Format(time.TimeOnly))}
	}
	if sh.run != "" {
		busy = verdict{"Running", "run " + sh.run}
	}
	l.write(&sh.conditions, s, stalled, waiting, busy)
}

func (l *Loop) judgePool(name string, c *census, shards []*shardState, s Snapshot, brake string) {
	p := l.pool(name)
	p.census = c
	l.write(&p.conditions, s, l.stalledPool(name, shards), l.waitingPool(name, shards, s, brake), busyPool(c))
}

func (l *Loop) write(c *conditions, s Snapshot, stalled, waiting, busy verdict) {
	set := func(t condition.Type, v verdict, otherwise string) {
		if v.reason == "" {
			c.set(s.Now, s.Fleet.Revision, t, false, otherwise, "")
			return
		}
		c.set(s.Now, s.Fleet.Revision, t, true, v.reason, v.message)
	}
	set(condition.Stalled, stalled, "NotStalled")
	set(condition.Waiting, waiting, "NotWaiting")
	set(condition.Reconciling, busy, "Idle")
	ready := verdict{"Converged", "everything that the spec wants is there"}
	for _, v := range []verdict{stalled, waiting, busy} {
		if v.reason != "" {
			c.set(s.Now, s.Fleet.Revision, condition.Ready, false, v.reason, v.message)
			return
		}
	}
	set(condition.Ready, ready, "")
}

func (l *Loop) stalledPool(name string, shards []*shardState) verdict {
	if err := l.faults[name]; err != nil {
		return verdict{"ModuleUnreadable", err.Error()}
	}
	for _, sh := range shards {
		if sh.stalled != nil {
			return verdict{"Fault" + title(sh.stalled.Kind), "shard " + sh.id + ": " + sh.stalled.Error()}
		}
	}
	return verdict{}
}

func (l *Loop) waitingPool(name string, shards []*shardState, s Snapshot, brake string) verdict {
	p, b := l.pool(name), l.openBreaker(name, shards, s.Now)
	switch {
	case p.paused != nil:
		return verdict{"Paused", strings.TrimSuffix(fmt.Sprintf("paused by %s: %s", p.paused.By, p.paused.Reason), ": ")}
	case brake != "":
		return verdict{"WatchdogBrake", brake}
	case b != nil:
		return verdict{"BreakerOpen", fmt.Sprintf("%d runs of the module have failed in a row, last: %s; tried again at %s", b.failures, b.message, b.until.UTC().Format(time.TimeOnly))}
	case p.until.After(s.Now):
		return verdict{"RunFailed", fmt.Sprintf("%s; tried again at %s", p.message, p.until.UTC().Format(time.TimeOnly))}
	}
	waits, runs := false, false
	for _, sh := range shards { // no fault of the pool, but its guests wait for it
		if sh.until.After(s.Now) {
			return verdict{"RunFailed", fmt.Sprintf("shard %s: %s; tried again at %s", sh.id, sh.message, sh.until.UTC().Format(time.TimeOnly))}
		}
		waits, runs = waits || sh.placeless, runs || sh.run != ""
	}
	if waits && !runs {
		return verdict{"NoPlace", fmt.Sprintf("all %d places of runs are taken: %s", l.o.Runs, l.places())}
	}
	return p.census.resting
}

// openBreaker is that of the pool's module, or of one that a shard of it is of, while no run of the module may begin; nil: none is.
func (l *Loop) openBreaker(name string, shards []*shardState, now time.Time) *pause {
	var modules []string
	if r, ok := l.recipes[name]; ok {
		modules = append(modules, r.Source)
	}
	for _, sh := range shards {
		modules = append(modules, sh.module())
	}
	for _, module := range modules {
		if b := l.breakers[module]; b != nil && b.until.After(now) {
			return b
		}
	}
	return nil
}

func busyPool(c *census) verdict {
	counts := map[lease.State]int{}
	for _, state := range []lease.State{
		lease.Planned, lease.Provisioning, lease.Booting, lease.Preparing, lease.Replacing, lease.Retiring, lease.Tainted, lease.Failed,
	} {
		counts[state] = c.states[state]
	}
	counts["outdated"] = c.outdated
	var parts []string
	for _, state := range slices.Sorted(maps.Keys(counts)) {
		if counts[state] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[state], state))
		}
	}
	if len(parts) == 0 {
		return verdict{}
	}
	return verdict{"Converging", strings.Join(parts, ", ")}
}

func title(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// Status tells how everything stands. It answers also while the store is away, from what was known last.
func (l *Loop) Status(ctx context.Context) (condition.Status, error) {
	guests, err := l.countInStore(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	st := condition.Status{
		Revision: l.fleet.Revision, Source: l.o.Source, SpecValid: l.fault == nil, SpecFault: l.fault, SpecSince: l.specSince, Pools: []condition.PoolStatus{},
	}
	if l.driver != nil {
		path, version := l.driver.Binary()
		st.Terraform, st.Processes = version+" "+path, l.driver.Started()
	}
	if err = cmp.Or(err, l.storeErr); err != nil { // what can be read can't always be written
		st.Store = err.Error()
	}
	declared, shards := map[string]*specs.Pool{}, l.shardsByPool()
	for _, p := range l.fleet.Pools {
		declared[p.Name] = p
	}
	for name := range l.pools {
		st.Pools = append(st.Pools, l.poolStatus(name, declared[name], guests[name], shards[name]))
	}
	slices.SortFunc(st.Pools, func(a, b condition.PoolStatus) int { return strings.Compare(a.Pool, b.Pool) })
	st.Conditions = l.fleetConditions(st)
	return st, nil
}

// countInStore counts the guests of each pool by state, at a cost that does not grow with their number. After an error there is no
// count of any pool.
func (l *Loop) countInStore(ctx context.Context) (map[string]map[lease.State]int, error) {
	caches, err := l.o.Store.Caches(ctx)
	if err != nil {
		return nil, err
	}
	stocks, err := l.o.Store.Stocks(ctx, caches...)
	if err != nil {
		return nil, err
	}
	pools := map[string]map[lease.State]int{}
	for _, p := range l.inForce().Pools {
		pools[p.Name] = map[lease.State]int{}
	}
	for _, st := range stocks {
		for pool, counts := range st.Counts {
			if pools[pool] == nil {
				pools[pool] = map[lease.State]int{}
			}
			for state, n := range counts {
				pools[pool][state] += n
			}
		}
	}
	return pools, nil
}

// Trouble says what is known to keep guests from being leased or made, without asking anybody; nil: nothing is.
func (l *Loop) Trouble() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.storeErr == nil && l.driver == nil {
		return errNoTerraform
	}
	return l.storeErr
}

var errNoTerraform = errors.New("no usable Terraform was found")

// Runs are the last runs of a pool that this process has seen the end of, the newest first.
func (l *Loop) Runs(pool string) []condition.RunStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.pools[pool]; p != nil {
		return slices.Clone(p.runs)
	}
	return nil
}

// poolStatus takes the guests as the store has them now, or as the last pass knew them where it does not answer.
func (l *Loop) poolStatus(name string, spec *specs.Pool, guests map[lease.State]int, shards []*shardState) condition.PoolStatus {
	p := l.pool(name)
	st := condition.PoolStatus{Pool: name, Guests: map[lease.State]int{}, Conditions: p.conditions.list(), Pause: p.paused, Shards: []condition.ShardStatus{}}
	if spec != nil {
		st.Module, st.Max, st.Spare, st.Digest = withoutCredentials(spec.Module), spec.Max, spec.Spare, l.recipes[name].digest
	}
	last := p.census
	if last == nil { // no pass has come to its end yet
		last = newCensus()
	}
	if guests == nil {
		guests = last.states
	}
	for _, state := range lease.States {
		st.Guests[state] = guests[state]
	}
	for _, sh := range shards {
		if last.shards[sh.id] == 0 && sh.run == "" && sh.stalled == nil && sh.meta.Digest == "" {
			continue
		}
		st.Shards = append(st.Shards, condition.ShardStatus{
			Shard: sh.id, Pool: name, Digest: sh.meta.Digest, Outdated: sh.meta.Digest != st.Digest, Guests: last.shards[sh.id],
			Run: sh.run, LastRun: sh.last, Failures: sh.failures, NextTry: sh.until, Conditions: sh.conditions.list(),
		})
	}
	return st
}

// storeAway is said of a store that can't be reached, and of one that can't be written.
var storeAway = verdict{"StoreUnavailable", "the store cannot be used; leases are refused until it is back"}

// Away turns the conditions of a fleet into those with the store away, where somebody has found that whom the loop has yet to follow.
func Away(of []condition.Condition, now time.Time) []condition.Condition {
	out := slices.Clone(of)
	for i, c := range out {
		if down := c.Type == condition.Waiting; (down || c.Type == condition.Ready) && c.Reason != storeAway.reason {
			out[i] = condition.Condition{Type: c.Type, Status: down, Reason: storeAway.reason, Message: storeAway.message, Since: now, Revision: c.Revision}
		}
	}
	return out
}

// fleetConditions says what concerns everything at once.
func (l *Loop) fleetConditions(st condition.Status) []condition.Condition {
	c, now := &l.conditions, l.o.Now()
	problem := verdict{}
	switch {
	case l.storeErr != nil || st.Store != "":
		problem = storeAway
	case l.driverErr != nil:
		problem = verdict{"TerraformMissing", l.driverErr.Error()}
	case l.passErr != nil:
		problem = verdict{"NothingDecided", l.passErr.Error()}
	case l.fault != nil && l.fault.Held():
		c.set(now, st.Revision, condition.Stalled, true, l.fault.Reason, l.fault.Message+l.toApprove())
		c.set(now, st.Revision, condition.Ready, false, l.fault.Reason, "revision "+l.fault.Revision+" is held; revision "+st.Revision+" stays in force")
		c.set(now, st.Revision, condition.Waiting, false, "NotWaiting", "")
		return c.list()
	case l.fault != nil && l.fleet.Revision == "":
		problem = verdict{l.fault.Reason, "no good revision of the specs has been seen yet"}
	case l.fault != nil:
		problem = verdict{l.fault.Reason, "the newest specs are not in force; revision " + l.fleet.Revision + " stays"}
	case l.fleet.Revision == "":
		problem = verdict{"NoSpecs", "no specs are in force yet"}
	}
	c.set(now, st.Revision, condition.Stalled, false, "NotStalled", "")
	if problem.reason == "" {
		c.set(now, st.Revision, condition.Ready, true, "Serving", "revision "+st.Revision+" is in force")
		c.set(now, st.Revision, condition.Waiting, false, "NotWaiting", "")
		return c.list()
	}
	c.set(now, st.Revision, condition.Ready, false, problem.reason, problem.message)
	c.set(now, st.Revision, condition.Waiting, true, problem.reason, problem.message)
	return c.list()
}

func (l *Loop) toApprove() string {
	if l.fault.Plan == "" {
		return ""
	}
	return "; greenroom plan approve " + l.fault.Plan + " lets it pass"
}

// Explain says why a request in the queue of a cache has to wait.
func (l *Loop) Explain(ctx context.Context, cache string) string {
	c := l.inForce().Cache(cache)
	if c == nil {
		return "the spec has no cache " + cache
	}
	st, err := l.o.Store.Stock(ctx, c.Name)
	if err != nil {
		return "the store cannot be reached"
	}
	if st.Override != nil && !st.Override.Enabled {
		return strings.TrimSuffix("cache "+cache+" is disabled by "+st.Override.By+": "+st.Override.Reason, ": ")
	}
	if st.Override == nil && !c.Enabled {
		return "cache " + cache + " is disabled by the spec"
	}
	parts := []string{fmt.Sprintf("%d of at most %d guests are leased", st.In(lease.Leased), c.Max)}
	if n := st.In(lease.Planned, lease.Provisioning, lease.Replacing, lease.Booting, lease.Preparing); n > 0 {
		parts = append(parts, fmt.Sprintf("%d on their way", n))
	}
	if n := st.In(lease.Resetting); n > 0 {
		parts = append(parts, fmt.Sprintf("%d being reset", n))
	}
	return strings.Join(append(parts, l.obstacles(c.Pools)...), "; ")
}

func (l *Loop) obstacles(pools []string) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.driverErr != nil {
		out = append(out, l.driverErr.Error())
	}
	for _, name := range pools {
		for _, t := range []condition.Type{condition.Stalled, condition.Waiting} {
			if c := l.pool(name).conditions[t]; c.Status {
				out = append(out, fmt.Sprintf("pool %s: %s: %s", name, c.Reason, c.Message))
			}
		}
	}
	return out
}
