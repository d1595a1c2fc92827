package reconcile

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"greenroom/lease"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/plan"
	"greenroom/reconcile/terraform"
	"greenroom/specs"
)

// Preview is a plan of one revision with what is needed to ask Terraform too.
type Preview struct {
	Plan plan.Plan // without ID, Phase, Ref, By and times, which are its keeper's

	loop *Loop
	jobs []terraform.Job
}

// side is one of the two fleets that a preview compares.
type side struct {
	fleet    *specs.Fleet
	recipes  map[string]recipe
	forecast *forecast
	after    []lease.Guest // the first act
}

// Preview says what a revision would change if it came into force now. It only reads.
func (l *Loop) Preview(ctx context.Context, head Revision) (*Preview, error) {
	if head.Fleet == nil {
		return nil, fmt.Errorf("a revision without a fleet can't be previewed: %w", head.Fault)
	}
	pv := &previewing{loop: l, ready: map[string]time.Duration{}}
	if err := pv.read(ctx, head.Fleet); err != nil {
		return nil, err
	}
	pv.base.play(ctx, pv.snapshot(pv.base), pv)
	pv.head.play(ctx, pv.snapshot(pv.head), pv)
	if pv.err != nil {
		return nil, pv.err
	}
	p := &Preview{Plan: pv.plan(), loop: l, jobs: pv.jobs()}
	if head.Detached && pv.base.fleet.Revision != "" {
		p.Plan.Breaches = append(p.Plan.Breaches, plan.Breach{Guard: plan.History})
	}
	return p, nil
}

// previewing is a preview while it is made.
type previewing struct {
	loop       *Loop
	now        time.Time
	base, head side
	guests     []lease.Guest
	demand     []Want
	overrides  map[string]*lease.Override
	leases     map[string]lease.Lease // by guest
	notes      []string
	ready      map[string]time.Duration // pool -> measured; 0: not
	readyOf    func(pool string) time.Duration
	err        error
}

// read takes everything in, once for both sides.
func (pv *previewing) read(ctx context.Context, head *specs.Fleet) error {
	l := pv.loop
	pv.now = l.o.Now()
	l.mu.Lock()
	pv.base.fleet, pv.base.recipes = l.fleet, l.recipes
	l.mu.Unlock()
	var faults map[string]error
	pv.head.fleet = head
	pv.head.recipes, faults = recipesOf(head)
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		pv.note("pool %s: %v: nothing could be made in it", name, faults[name])
	}
	var err error
	if pv.demand, pv.overrides, err = l.demand(ctx, pv.base.fleet); err != nil {
		return err
	}
	if pv.guests, err = l.guests(ctx); err != nil {
		return err
	}
	if err := pv.readLeases(ctx); err != nil {
		return err
	}
	born := map[string][]lease.Guest{} // by pool
	for _, g := range pv.guests {
		if !g.Born.IsZero() {
			born[g.Pool] = append(born[g.Pool], g)
		}
	}
	pv.readyOf = func(pool string) time.Duration {
		if _, known := pv.ready[pool]; !known && pv.err == nil {
			pv.ready[pool], pv.err = l.readyTime(ctx, born[pool])
		}
		return cmp.Or(pv.ready[pool], assumedReady)
	}
	return pv.readObstacles(ctx)
}

func (pv *previewing) note(format string, args ...any) {
	pv.notes = append(pv.notes, fmt.Sprintf(format, args...))
}

func (pv *previewing) readLeases(ctx context.Context) error {
	pv.leases = map[string]lease.Lease{}
	caches := map[string]bool{}
	for _, g := range pv.guests {
		if g.State == lease.Leased {
			caches[g.Cache] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(caches)) {
		all, err := pv.loop.o.Store.Leases(ctx, name, specs.MaxPoolGuests)
		if err != nil {
			return err
		}
		for _, one := range all {
			pv.leases[one.Guest] = one
		}
	}
	return nil
}

// readObstacles notes what will keep the revision from being carried out at once.
func (pv *previewing) readObstacles(ctx context.Context) error {
	pools := map[string]bool{} // those that were removed and have guests included
	for _, p := range pv.head.fleet.Pools {
		pools[p.Name] = true
	}
	for _, g := range pv.guests {
		pools[g.Pool] = true
	}
	surveys, err := pv.loop.o.Store.Survey(ctx, slices.Sorted(maps.Keys(pools))...)
	if err != nil {
		return err
	}
	for _, of := range surveys {
		if of.Pause != nil {
			pv.note("pool %s is paused by %s: nothing happens in it until it is resumed", of.Pool, of.Pause.By)
		} else if why := pv.loop.standstill(of.Pool); why != "" {
			pv.note("pool %s does not converge just now (%s): greenroom status tells why", of.Pool, why)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(pv.overrides)) {
		if o := pv.overrides[name]; o != nil && pv.head.fleet.Cache(name) != nil {
			word := map[bool]string{true: "enabled", false: "disabled"}[o.Enabled]
			pv.note("cache %s is %s by %s at run time, whatever the specs say", name, word, o.By)
		}
	}
	return nil
}

// standstill is the reason why a pool waits or has stopped; empty: it does not.
func (l *Loop) standstill(pool string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.pools[pool]; p != nil {
		for _, t := range []condition.Type{condition.Stalled, condition.Waiting} {
			if c := p.conditions[t]; c.Status {
				return c.Reason
			}
		}
	}
	return ""
}

// snapshot is what Decide would see with a side in force.
func (pv *previewing) snapshot(sd side) Snapshot {
	s := Snapshot{Fleet: sd.fleet, Digests: map[string]string{}, Guests: pv.guests, Off: map[string]bool{}, Now: pv.now}
	for name, r := range sd.recipes {
		s.Digests[name] = r.digest
	}
	for _, c := range sd.fleet.AllCaches() {
		s.Off[c.Name] = off(c, pv.overrides[c.Name], pv.now)
	}
	for _, w := range pv.demand {
		c := sd.fleet.Cache(w.Cache)
		if c == nil {
			continue
		}
		pools := slices.DeleteFunc(slices.Clone(w.Pools), func(p string) bool { return !slices.Contains(c.Pools, p) })
		s.Demand = append(s.Demand, Want{Cache: w.Cache, Pools: pools})
	}
	return s
}

// play forecasts one side. While nothing is in force nothing is decided, and all stays.
func (sd *side) play(ctx context.Context, s Snapshot, pv *previewing) {
	if s.Fleet.Revision == "" {
		sd.forecast, sd.after = newForecast(s, pv.readyOf), s.Guests
		return
	}
	var err error
	sd.forecast, sd.after, err = play(ctx, s, pv.leases, pv.readyOf)
	pv.err = cmp.Or(pv.err, err)
}

// fingerprint is the digest of the base and of everything that head declares, wherever it was read from.
func fingerprint(base string, head *specs.Fleet, recipes map[string]recipe) string {
	h := sha256.New()
	bare := specs.Fleet{Caches: head.Caches, Guard: head.Guard}
	for _, p := range head.Pools {
		q := *p
		q.ModuleDir = ""
		bare.Pools = append(bare.Pools, &q)
		fmt.Fprintf(h, "%s %s\n", p.Name, recipes[p.Name].digest)
	}
	body, _ := json.Marshal(bare) // numbers, strings and valid JSON: it cannot fail
	fmt.Fprintf(h, "%s\n%s\n", base, body)
	for _, c := range head.Caches {
		fmt.Fprintf(h, "%d %s%d %s", len(c.Prepare.Body), c.Prepare.Body, len(c.Reset.Body), c.Reset.Body)
	}
	return "sha256-" + hex.EncodeToString(h.Sum(nil))
}

// readySample is how many guests of a pool are looked at, the newest first.
const readySample = 9

// readyTime is the median of the times in which the newest of some guests, which it puts in order, came onto the shelf; 0: none
// has been seen.
func (l *Loop) readyTime(ctx context.Context, guests []lease.Guest) (time.Duration, error) {
	slices.SortFunc(guests, func(a, b lease.Guest) int { return b.Born.Compare(a.Born) })
	var took []time.Duration
	for _, g := range guests[:min(len(guests), readySample)] {
		events, err := l.o.Store.Events(ctx, g.Name, 100)
		if err != nil {
			return 0, err
		}
		took = append(took, readyTimes(events)...)
	}
	if len(took) == 0 {
		return 0, nil
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// readyTimes reads from a guest's history, the newest event first, how long each of its machines took from the decision to
// the shelf.
func readyTimes(events []lease.Event) (took []time.Duration) {
	var begun time.Time
	for _, e := range slices.Backward(events) {
		switch {
		case e.To == lease.Planned, e.To == lease.Replacing && e.From != lease.Replacing:
			begun = e.Time
		case !begun.IsZero() && (e.To == lease.Shelved || e.To == lease.Leased):
			took = append(took, e.Time.Sub(begun))
			begun = time.Time{}
		case e.To == lease.Tainted, e.To == lease.Failed:
			begun = time.Time{}
		}
	}
	return took
}

// jobs are the runs that would make the first act of head true, one for each shard that it touches.
func (pv *previewing) jobs() []terraform.Job {
	f := pv.head.forecast
	jobs := map[string]*terraform.Job{}
	for _, g := range pv.guests {
		pv.addTo(jobs, g)
	}
	for _, g := range pv.head.after {
		if a := f.arrived[g.Name]; a != nil && a.act == 1 && !f.first[keyOf(g)] {
			job := pv.jobOf(jobs, g)
			job.Create = append(job.Create, g.Name)
			job.Guests[g.Name] = terraform.Guest{Incarnation: 1, UserData: pv.userData(g.Shard, g.Pool)}
		}
	}
	out := make([]terraform.Job, 0, len(jobs))
	for _, id := range slices.Sorted(maps.Keys(jobs)) {
		if job := jobs[id]; len(job.Create)+len(job.Replace)+len(job.Destroy) > 0 && job.Module.Digest+job.Module.Source != "" {
			out = append(out, *job)
		}
	}
	return out
}

// addTo puts a guest on record into its shard's job, as the forecast says.
func (pv *previewing) addTo(jobs map[string]*terraform.Job, g lease.Guest) {
	job, userData := pv.jobOf(jobs, g), pv.userData(g.Shard, g.Pool)
	d, leaves := pv.head.forecast.left[keyOf(g)]
	made := g.State != lease.Planned && g.State != lease.Provisioning && g.State != lease.Failed
	switch {
	case leaves && d.act == 1 && d.inPlace:
		job.Replace = append(job.Replace, g.Name)
		job.Guests[g.Name] = terraform.Guest{Incarnation: g.Incarnation + 1, UserData: userData}
	case leaves && d.act == 1:
		if made {
			job.Destroy = append(job.Destroy, g.Name)
		}
	case made:
		job.Guests[g.Name] = terraform.Guest{Incarnation: g.Incarnation, UserData: userData}
	case g.State != lease.Failed:
		job.Create = append(job.Create, g.Name)
		job.Guests[g.Name] = terraform.Guest{Incarnation: g.Incarnation, UserData: userData}
	}
}

func (pv *previewing) jobOf(jobs map[string]*terraform.Job, g lease.Guest) *terraform.Job {
	if job := jobs[g.Shard]; job != nil {
		return job
	}
	meta := pv.loop.metaOf(g.Shard)
	job := &terraform.Job{Shard: g.Shard, Run: "preview", Pool: g.Pool, Guests: map[string]terraform.Guest{}, AuthorizedKeys: pv.loop.o.AuthorizedKeys}
	if r := pv.head.recipes[g.Pool]; meta.Digest == "" || meta.Digest == r.digest {
		job.Module, job.Variables = r.job, r.Variables
	} else {
		job.Module, job.Variables = meta.module(), meta.Recipe.Variables
	}
	jobs[g.Shard] = job
	return job
}

func (pv *previewing) userData(shard, pool string) string {
	if meta := pv.loop.metaOf(shard); meta.Digest != "" {
		return meta.Recipe.UserData
	}
	return pv.head.recipes[pool].UserData
}

// Shards is how many Terraform plans there are to make.
func (p *Preview) Shards() int { return len(p.jobs) }

// Terraform makes real Terraform plans of every affected shard, in directories of their own under dir, and hands each to
// done as it is ready, one at a time. The error is only of what keeps all of them from being made.
func (p *Preview) Terraform(ctx context.Context, dir string, done func(plan.Shard)) error {
	driver := p.loop.terraform()
	if driver == nil {
		return errLooking
	}
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(p.loop.o.Runs)
	for _, job := range p.jobs {
		group.Go(func() error {
			shard, err := driver.Preview(ctx, dir, job)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			done(shard)
			return nil
		})
	}
	return group.Wait()
}

// InForce names the revision in force; empty: none is.
func (l *Loop) InForce() string { return l.inForce().Revision }
