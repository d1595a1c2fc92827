package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"greenroom/lease"
	"greenroom/reconcile/condition"
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

// judge says of every pool and shard how it stands, after a pass.
func (l *Loop) judge(s Snapshot) {
	brakes := l.o.Brakes()
	byPool := map[string][]*lease.Guest{}
	for i := range s.Guests {
		g := &s.Guests[i]
		byPool[g.Pool] = append(byPool[g.Pool], g)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failedDue = nextFailed(s)
	for _, sh := range l.shards {
		l.judgeShard(sh, s)
	}
	names := map[string]bool{}
	for _, p := range s.Fleet.Pools {
		names[p.Name] = true
	}
	for name := range byPool {
		names[name] = true
	}
	for name := range l.pools {
		if !names[name] {
			delete(l.pools, name)
		}
	}
	for name := range names {
		l.judgePool(name, byPool[name], s, brakes[name])
	}
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

func (l *Loop) judgePool(name string, guests []*lease.Guest, s Snapshot, brake string) {
	p := l.pool(name)
	l.write(&p.conditions, s, l.stalledPool(name), l.waitingPool(name, p, guests, s, brake), l.busyPool(name, guests, s))
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

func (l *Loop) stalledPool(name string) verdict {
	if err := l.faults[name]; err != nil {
		return verdict{"ModuleUnreadable", err.Error()}
	}
	for _, id := range slices.Sorted(maps.Keys(l.shards)) {
		if sh := l.shards[id]; sh.pool == name && sh.stalled != nil {
			return verdict{"Fault" + title(sh.stalled.Kind), "shard " + id + ": " + sh.stalled.Error()}
		}
	}
	return verdict{}
}

func (l *Loop) waitingPool(name string, p *poolState, guests []*lease.Guest, s Snapshot, brake string) verdict {
	b := l.breaker(l.recipes[name].module)
	switch {
	case p.paused != nil:
		return verdict{"Paused", strings.TrimSuffix(fmt.Sprintf("paused by %s: %s", p.paused.By, p.paused.Reason), ": ")}
	case brake != "":
		return verdict{"WatchdogBrake", brake}
	case b.until.After(s.Now):
		return verdict{"BreakerOpen", fmt.Sprintf("%d runs of the module have failed in a row, last: %s; tried again at %s", b.failures, b.message, b.until.UTC().Format(time.TimeOnly))}
	case p.until.After(s.Now):
		return verdict{"RunFailed", fmt.Sprintf("%s; tried again at %s", p.message, p.until.UTC().Format(time.TimeOnly))}
	}
	for _, id := range slices.Sorted(maps.Keys(l.shards)) { // no fault of the pool, but its guests wait for it
		if sh := l.shards[id]; sh.pool == name && sh.until.After(s.Now) {
			return verdict{"RunFailed", fmt.Sprintf("shard %s: %s; tried again at %s", id, sh.message, sh.until.UTC().Format(time.TimeOnly))}
		}
	}
	for _, g := range guests {
		if at := nextTry(g, s.Now); g.State == lease.Tainted && !at.IsZero() {
			return verdict{"GuestFailed", fmt.Sprintf("guest %s did not come up %d times in a row (%s), see its events; tried again at %s", g.Name, g.Failures, g.Reason, at.UTC().Format(time.TimeOnly))}
		}
	}
	return verdict{}
}

func (l *Loop) busyPool(name string, guests []*lease.Guest, s Snapshot) verdict {
	counts := map[lease.State]int{}
	for _, g := range guests {
		switch g.State {
		case lease.Planned, lease.Provisioning, lease.Booting, lease.Preparing, lease.Replacing, lease.Retiring, lease.Tainted, lease.Failed:
			counts[g.State]++
		}
		if d := s.Digests[name]; d != "" && g.Digest != d && g.State != lease.Leased {
			counts["outdated"]++
		}
	}
	if len(counts) == 0 {
		return verdict{}
	}
	parts := make([]string, 0, len(counts))
	for _, state := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[state], state))
	}
	return verdict{"Converging", strings.Join(parts, ", ")}
}

func title(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// Status tells how everything stands. It answers also while the store is away, from what was known last.
func (l *Loop) Status(ctx context.Context) (condition.Status, error) {
	guests, err := l.guests(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	st := condition.Status{
		Revision: l.fleet.Revision, Source: l.o.Source, SpecValid: l.fault == nil, SpecFault: l.fault, SpecSince: l.specSince, Pools: []condition.PoolStatus{},
	}
	if l.driver != nil {
		path, version := l.driver.Binary()
		st.Terraform, st.Processes = version+" "+path, l.driver.Started()
	}
	if err != nil {
		st.Store = err.Error()
	}
	for name := range l.pools {
		st.Pools = append(st.Pools, l.poolStatus(name, guests))
	}
	slices.SortFunc(st.Pools, func(a, b condition.PoolStatus) int { return strings.Compare(a.Pool, b.Pool) })
	st.Conditions = l.fleetConditions(st)
	return st, nil
}

// Runs are the last runs of a pool that this process has seen the end of, the newest first.
func (l *Loop) Runs(pool string) []condition.RunStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.pools[pool]; p != nil {
		return slices.Clone(p.runs)
	}
	return nil
}

func (l *Loop) poolStatus(name string, guests []lease.Guest) condition.PoolStatus {
	p := l.pool(name)
	st := condition.PoolStatus{Pool: name, Guests: map[lease.State]int{}, Conditions: p.conditions.list(), Pause: p.paused, Shards: []condition.ShardStatus{}}
	if spec := l.fleet.Pool(name); spec != nil {
		st.Module, st.Max, st.Spare, st.Digest = withoutCredentials(spec.Module), spec.Max, spec.Spare, l.recipes[name].digest
	}
	for _, state := range lease.States {
		st.Guests[state] = 0
	}
	inShard := map[string]int{}
	for _, g := range guests {
		if g.Pool == name {
			st.Guests[g.State]++
			inShard[g.Shard]++
		}
	}
	for _, id := range slices.Sorted(maps.Keys(l.shards)) {
		sh := l.shards[id]
		if sh.pool != name || inShard[id] == 0 && sh.run == "" && sh.stalled == nil && sh.meta.Digest == "" {
			continue
		}
		st.Shards = append(st.Shards, condition.ShardStatus{
			Shard: id, Pool: name, Digest: sh.meta.Digest, Outdated: sh.meta.Digest != st.Digest, Guests: inShard[id],
			Run: sh.run, LastRun: sh.last, Failures: sh.failures, NextTry: sh.until, Conditions: sh.conditions.list(),
		})
	}
	return st
}

// fleetConditions says what concerns everything at once.
func (l *Loop) fleetConditions(st condition.Status) []condition.Condition {
	c, now := &l.conditions, l.o.Now()
	problem := verdict{}
	switch {
	case l.storeErr != nil || st.Store != "":
		problem = verdict{"StoreUnavailable", "the store cannot be reached; leases are refused until it is back"}
	case errors.Is(l.passErr, lease.ErrForeign):
		problem = verdict{"StoreForeign", l.passErr.Error()}
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
	if !c.Enabled {
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
