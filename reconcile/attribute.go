package reconcile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"greenroom/lease"
	"greenroom/reconcile/plan"
)

// plan compares the two forecasts. What happens under base as well is no doing of the revision: it is told, as due anyway,
// and not counted.
func (pv *previewing) plan() plan.Plan {
	p := plan.Plan{
		Base: pv.base.fleet.Revision, Head: pv.head.fleet.Revision, Digest: fingerprint(pv.base.fleet.Revision, pv.head.fleet, pv.head.recipes),
		Pools: pv.comparePools(), Caches: pv.compareCaches(), Guests: pv.fates(),
	}
	if from, to := percentOf(pv.base.fleet.Guard), percentOf(pv.head.fleet.Guard); from != to {
		p.Summary.Settings++
		pv.note("guard.max_retire of the fleet: %s → %s", from, to)
	}
	for i := range p.Guests {
		pv.explain(&p.Guests[i], p.Pools)
	}
	pv.summarize(&p)
	p.Breaches = pv.breaches(p)
	p.Notes = pv.notes
	return p
}

// fates says of every guest what happens to it, and whether the same is due under base.
func (pv *previewing) fates() []plan.Guest {
	due, came := map[key]plan.Guest{}, map[kind]int{}
	for _, g := range pair(pv.ends(pv.base), func(plan.Guest) bool { return false }) {
		if g.State == "" {
			came[kindOf(g)]++
		} else {
			due[key{g.Guest, g.Incarnation}] = g
		}
	}
	// A successor is first given to whom base gives one too: then what is left over is the revision's doing.
	out := pair(pv.ends(pv.head), func(g plan.Guest) bool { return due[key{g.Guest, g.Incarnation}].Verb == plan.Replace })
	excess := pv.excess()
	for i := range out {
		pv.attribute(&out[i], due, came, excess)
	}
	slices.SortStableFunc(out, func(a, b plan.Guest) int {
		return cmp.Or(strings.Compare(a.Cache, b.Cache), strings.Compare(a.Pool, b.Pool), byName(a, b))
	})
	return out
}

// kind is what guests to come have in common that stand for each other.
type kind struct{ cache, pool, when string }

func kindOf(g plan.Guest) kind { return kind{g.Cache, g.Pool, g.When} }

// attribute marks what is due anyway: a guest that goes under base no later and with the same in its place, or that comes as
// one does there.
func (pv *previewing) attribute(g *plan.Guest, due map[key]plan.Guest, came map[kind]int, excess map[key]int) {
	k := key{g.Guest, g.Incarnation}
	switch was := due[k]; {
	case g.Verb == plan.Keep:
	case g.Verb == plan.Create:
		g.Anyway = came[kindOf(*g)] > 0
		came[kindOf(*g)]--
	case g.Reason == "excess" && g.When == plan.Released:
		g.Anyway, g.OneOf = excess[k] == notCounted, excess[k] != certain
	default:
		g.Anyway = was.Verb == g.Verb && was.ToPool == g.ToPool && (was.When == g.When || was.When == plan.Now)
	}
}

// ends says what one side does to every guest, by itself.
func (pv *previewing) ends(sd side) (out []plan.Guest) {
	for _, g := range pv.guests {
		out = append(out, pv.fate(sd, g))
	}
	for _, a := range sd.newcomers() {
		one := plan.Guest{Guest: a.guest.Name, Pool: a.guest.Pool, Cache: a.guest.Cache, Verb: plan.Create, When: plan.Now, Reason: a.reason}
		if a.act == 2 {
			one.When = plan.Released
		}
		out = append(out, one)
	}
	return out
}

func byName(a, b plan.Guest) int {
	_, m, _ := lease.ParseGuestName(a.Guest)
	_, n, _ := lease.ParseGuestName(b.Guest)
	return cmp.Compare(m, n)
}

// fate is what happens to a guest on record.
func (pv *previewing) fate(sd side, g lease.Guest) plan.Guest {
	one := plan.Guest{Guest: g.Name, Incarnation: g.Incarnation, Pool: g.Pool, Cache: g.Cache, State: string(g.State), Verb: plan.Keep, Until: g.Until}
	if l, ok := pv.leases[g.Name]; ok && g.State == lease.Leased && l.ID == g.Lease {
		one.Lease = &plan.Lease{Owner: l.Owner, Deadline: l.Deadline, Cap: l.Cap}
	}
	d, leaves := sd.forecast.left[keyOf(g)]
	if !leaves {
		if to := sd.forecast.drawn[keyOf(g)]; to != "" {
			one.Detail = "goes to cache " + to
		}
		return one
	}
	one.Verb, one.When, one.Reason = plan.Retire, plan.Now, sd.because(g, d.reason)
	if d.inPlace {
		one.Verb = plan.Replace
	}
	if d.act == 2 {
		one.When = plan.Released
	}
	return one
}

// because prefers the deeper reason: of a shelf that is too full, it is the outdated guest that goes.
func (sd side) because(g lease.Guest, reason string) string {
	if reason != "excess" {
		return reason
	}
	s := sd.forecast.s
	return cmp.Or(s.stale(&g, s.Fleet.Pool(g.Pool), s.Fleet.Cache(g.Cache)), reason)
}

// How a guest that becomes excess in the second act counts: more of them than under base are the revision's doing, and
// which ones depends on the order in which they come back.
const (
	notCounted = iota
	certain
	ofSeveral
)

func (pv *previewing) excess() map[key]int {
	out := map[key]int{}
	before := map[string]int{}
	candidates := map[string][]lease.Guest{}
	bound := map[string]int{} // guests that can still come back
	for _, g := range pv.guests {
		k := keyOf(g)
		if g.State == lease.Leased {
			bound[g.Cache]++
		}
		if d, ok := pv.base.forecast.left[k]; ok && d.act == 2 && pv.base.because(g, d.reason) == "excess" {
			before[g.Cache]++
		}
		if d, ok := pv.head.forecast.left[k]; ok && d.act == 2 && pv.head.because(g, d.reason) == "excess" {
			candidates[g.Cache] = append(candidates[g.Cache], g)
		}
	}
	for cache, list := range candidates {
		more := len(list) - before[cache]
		slices.SortStableFunc(list, func(a, b lease.Guest) int { // those that would have stayed come first
			_, x := pv.base.forecast.left[keyOf(a)]
			_, y := pv.base.forecast.left[keyOf(b)]
			return cmp.Compare(truth(x), truth(y))
		})
		for _, g := range list[:max(0, more)] {
			out[keyOf(g)] = ofSeveral
			if len(list) == bound[cache] {
				out[keyOf(g)] = certain
			}
		}
	}
	return out
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// newcomers are those that are there at the end of the act in which they came.
func (sd *side) newcomers() (out []arrival) {
	f := sd.forecast
	for _, g := range sd.after {
		if a := f.arrived[g.Name]; (a == nil || a.act == 1) && !f.first[keyOf(g)] && g.Incarnation == 0 {
			out = append(out, arrival{guest: g, act: 1, reason: reasonOf(a)})
		}
	}
	for _, g := range f.sorted() {
		if a := f.arrived[g.Name]; a != nil && a.act == 2 {
			out = append(out, arrival{guest: *g, act: 2, reason: a.reason})
		}
	}
	return out
}

func reasonOf(a *arrival) string {
	if a == nil {
		return "warm"
	}
	return a.reason
}

// pair makes a guest that goes and one that comes in its place, to the same cache and at the same time, one replacement. Those
// that are first choose before the others.
func pair(guests []plan.Guest, first func(plan.Guest) bool) []plan.Guest {
	type place struct{ cache, when string }
	at := func(g plan.Guest) place { return place{g.Cache, g.When} }
	coming := map[place][]int{}
	var going []int
	for i, g := range guests {
		switch g.Verb {
		case plan.Create:
			coming[at(g)] = append(coming[at(g)], i)
		case plan.Retire:
			going = append(going, i)
		}
	}
	slices.SortStableFunc(going, func(a, b int) int { return cmp.Compare(truth(first(guests[b])), truth(first(guests[a]))) })
	told := map[int]bool{}
	for _, samePool := range []bool{true, false} { // a successor from the same pool comes first
		for _, i := range going {
			g := &guests[i]
			j := slices.IndexFunc(coming[at(*g)], func(n int) bool { return (guests[n].Pool == g.Pool) == samePool })
			if j < 0 || g.Verb != plan.Retire {
				continue
			}
			n := coming[at(*g)][j]
			coming[at(*g)] = slices.Delete(coming[at(*g)], j, j+1)
			g.Verb, told[n] = plan.Replace, true
			if !samePool {
				g.ToPool = guests[n].Pool
			}
		}
	}
	var out []plan.Guest
	for i, g := range guests {
		if !told[i] { // else it is told by the one that it replaces
			out = append(out, g)
		}
	}
	return out
}

// explain adds the details for people.
func (pv *previewing) explain(g *plan.Guest, pools []plan.Pool) {
	if g.Reason == "outdated" {
		i := slices.IndexFunc(pools, func(p plan.Pool) bool { return p.Pool == g.Pool })
		g.Detail = strings.Join(pools[i].Outdated, ", ")
	}
	if g.Reason == "removed" {
		switch {
		case pv.head.fleet.Pool(g.Pool) == nil:
			g.Detail = "the pool is no longer declared"
		case pv.head.fleet.Cache(g.Cache) == nil:
			g.Detail = "the cache is no longer declared"
		default:
			g.Detail = fmt.Sprintf("cache %s draws on pool %s no longer", g.Cache, g.Pool)
		}
	}
}

// summarize counts, for the plan and for each of its pools and caches.
func (pv *previewing) summarize(p *plan.Plan) {
	pools, caches := map[string]*plan.Summary{}, map[string]*plan.Summary{}
	for i := range p.Pools {
		s := &p.Pools[i].Summary
		s.Settings = changes(p.Pools[i].Change, p.Pools[i].Settings)
		pools[p.Pools[i].Pool] = s
		p.Summary.Settings += s.Settings
	}
	for i := range p.Caches {
		c := &p.Caches[i]
		if !c.Invisible {
			c.Summary.Settings = changes(c.Change, c.Settings)
		}
		caches[c.Cache] = &c.Summary
		p.Summary.Settings += c.Summary.Settings
	}
	for _, g := range p.Guests {
		for _, s := range []*plan.Summary{&p.Summary, pools[g.Pool], caches[g.Cache]} {
			tally(s, g)
		}
	}
	for i := range p.Caches {
		pv.dip(&p.Caches[i])
	}
}

func changes(c plan.Change, settings []plan.Setting) int {
	if c == plan.Added || c == plan.Removed {
		return 1
	}
	return len(settings)
}

func tally(s *plan.Summary, g plan.Guest) {
	later := g.When == plan.Released
	switch {
	case s == nil:
	case g.Anyway:
		s.Anyway++
	case g.Verb == plan.Create:
		s.Create++
	case g.Verb == plan.Replace && later:
		s.ReplaceLater++
	case g.Verb == plan.Replace:
		s.Replace++
	case g.Verb == plan.Retire && later:
		s.RetireLater++
	case g.Verb == plan.Retire:
		s.Retire++
	default:
		s.Keep++
	}
}

// dip tells that a cache which the revision changes falls under its warm on the way.
func (pv *previewing) dip(c *plan.Cache) {
	short, to := pv.head.forecast.shortage[c.Cache], pv.head.fleet.Cache(c.Cache)
	if short == nil || to == nil || !c.Summary.Changes() {
		return
	}
	c.Dip = &plan.Dip{Warm: to.Warm, Lowest: short.lowest, Seconds: short.lasted.Seconds(), Measured: true}
	for _, name := range to.Pools {
		if pv.ready[name] == 0 {
			c.Dip.Measured = false
		}
	}
}
