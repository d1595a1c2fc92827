package reconcile

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"greenroom/lease"
	"greenroom/specs"
)

// A forecast plays Decide forward on a copy of a snapshot until it asks for nothing more: what it decides happens, in the
// time that it takes by experience, and no job comes or goes. So a preview can not differ from what the loop would decide;
// only the order in which things end is a guess.
//
// It has two acts. In the first, leases, holds and quarantines go on. In the second all of them have ended, in the order
// of their deadlines.

// Times that are assumed where nothing was measured.
const (
	assumedReady = time.Minute
	briefly      = time.Second // a reset, a prepare of a spare, a removal
)

// wideRollout is how many guests must depend on each other for a rollout of them to be played in so many steps at most: the
// end is the same, and Decide need not be asked ten thousand times.
const (
	wideRollout = 200
	rolloutPlay = 50
)

// key is one machine.
type key struct {
	name        string
	incarnation int
}

func keyOf(g lease.Guest) key { return key{g.Name, g.Incarnation} }

// departure is how a guest that was there at first has left.
type departure struct {
	reason  string
	act     int
	inPlace bool // replaced by its own next incarnation
}

// arrival is a guest that was not there at first.
type arrival struct {
	guest  lease.Guest
	act    int
	reason string
}

// shortage is how long a cache had fewer guests shelved than its warm, and how many it had then at least.
type shortage struct {
	lowest int
	lasted time.Duration
}

type forecast struct {
	s        Snapshot
	ready    func(pool string) time.Duration
	act      int
	clock    time.Duration
	guests   map[string]*lease.Guest // by name
	due      map[string]time.Duration
	arrived  map[string]*arrival // by name
	left     map[key]departure
	first    map[key]bool // those that were there
	shortage map[string]*shortage
	drawn    map[key]string // spares that went to another cache
	lowest   map[string]int // pool -> no slot below it is free
	haste    map[string]int // pool -> so many steps of its rollout are played as one
	rolls    map[string]int // cache -> the haste of the rollout in it
}

// play forecasts both acts. It is cut short by ctx alone.
func play(ctx context.Context, s Snapshot, leases map[string]lease.Lease, ready func(string) time.Duration) (f *forecast, after []lease.Guest, err error) {
	f = newForecast(Snapshot{Fleet: s.Fleet, Digests: s.Digests, Now: s.Now}, ready)
	for _, part := range parts(s) {
		p := newForecast(part, ready)
		p.hasten()
		if err := p.settle(ctx); err != nil {
			return nil, nil, err
		}
		for _, g := range p.sorted() {
			after = append(after, *g)
		}
		p.act = 2
		p.release(leases)
		if err := p.settle(ctx); err != nil {
			return nil, nil, err
		}
		f.take(p)
	}
	return f, after, nil
}

// take adds what a part of the fleet has come to.
func (f *forecast) take(p *forecast) {
	maps.Copy(f.guests, p.guests)
	maps.Copy(f.arrived, p.arrived)
	maps.Copy(f.left, p.left)
	maps.Copy(f.first, p.first)
	maps.Copy(f.shortage, p.shortage)
	maps.Copy(f.drawn, p.drawn)
}

// parts cuts a snapshot into such that no pool, cache or guest of one has to do with any of another. Each is decided by itself,
// so that what takes long in one is not asked again for all others.
func parts(s Snapshot) []Snapshot {
	next := map[string]string{} // from each name towards the one that stands for its part
	var find func(name string) string
	find = func(name string) string {
		if next[name] == "" || next[name] == name {
			next[name] = name
			return name
		}
		next[name] = find(next[name])
		return next[name]
	}
	for _, c := range s.Fleet.AllCaches() { // a pool has the name of its invisible cache
		for _, pool := range c.Pools {
			next[find(pool)] = find(c.Name)
		}
	}
	for _, g := range s.Guests {
		next[find(g.Pool)] = find(g.Cache)
	}
	all := map[string]*Snapshot{}
	part := func(name string) *Snapshot {
		id := find(name)
		if all[id] == nil {
			all[id] = &Snapshot{Fleet: &specs.Fleet{Revision: s.Fleet.Revision}, Digests: s.Digests, Off: s.Off, Now: s.Now}
		}
		return all[id]
	}
	for _, p := range s.Fleet.Pools {
		to := part(p.Name).Fleet
		to.Pools = append(to.Pools, p)
	}
	for _, c := range s.Fleet.Caches {
		to := part(c.Name).Fleet
		to.Caches = append(to.Caches, c)
	}
	for _, g := range s.Guests {
		to := part(g.Pool)
		to.Guests = append(to.Guests, g)
	}
	for _, w := range s.Demand {
		to := part(w.Cache)
		to.Demand = append(to.Demand, w)
	}
	var out []Snapshot
	for _, id := range slices.Sorted(maps.Keys(all)) {
		out = append(out, *all[id])
	}
	return out
}

// newForecast begins with a snapshot in which nothing stands in the way: pauses and failures pass.
func newForecast(s Snapshot, ready func(string) time.Duration) *forecast {
	s.Paused, s.Backoff, s.Busy, s.Stalled = nil, nil, nil, nil
	f := &forecast{
		s: s, ready: ready, act: 1, guests: map[string]*lease.Guest{}, due: map[string]time.Duration{}, arrived: map[string]*arrival{},
		left: map[key]departure{}, first: map[key]bool{}, shortage: map[string]*shortage{}, drawn: map[key]string{},
		lowest: map[string]int{}, haste: map[string]int{}, rolls: map[string]int{},
	}
	for _, g := range s.Guests {
		f.first[keyOf(g)] = true
		if g.State == lease.Failed {
			g.Since = time.Time{} // its next try is due one day
		}
		f.guests[g.Name] = &g
		switch g.State {
		case lease.Planned, lease.Provisioning, lease.Replacing, lease.Booting, lease.Preparing:
			f.due[g.Name] = max(ready(g.Pool)-s.Now.Sub(g.Since), briefly)
		case lease.Resetting, lease.Retiring:
			f.due[g.Name] = briefly
		}
	}
	return f
}

// hasten makes one step of several where many guests are in one part. What comes of that is counted back.
func (f *forecast) hasten() {
	pace := (len(f.s.Guests) + rolloutPlay - 1) / rolloutPlay
	if len(f.s.Guests) <= wideRollout {
		return
	}
	wide := *f.s.Fleet
	wide.Pools = slices.Clone(wide.Pools)
	for i, p := range wide.Pools {
		q := *p
		f.haste[p.Name] = max((pace+q.Rollout.MaxUnavailable-1)/max(q.Rollout.MaxUnavailable, 1), 1)
		q.Rollout.MaxUnavailable *= f.haste[p.Name]
		wide.Pools[i] = &q
	}
	f.s.Fleet = &wide
}

func (f *forecast) sorted() []*lease.Guest {
	return slices.SortedFunc(maps.Values(f.guests), func(a, b *lease.Guest) int {
		return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Slot, b.Slot))
	})
}

// settle goes on until nothing is decided and nothing is under way. The bound is for a Decide that would never rest, which
// its own tests exclude.
func (f *forecast) settle(ctx context.Context) error {
	for range 10*len(f.first) + 10_000 {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.s.Guests = f.s.Guests[:0:0]
		for _, g := range f.sorted() {
			f.s.Guests = append(f.s.Guests, *g)
		}
		actions := Decide(f.s)
		for _, a := range actions {
			f.carryOut(a)
		}
		if len(actions) == 0 && len(f.due) == 0 {
			return nil
		}
		f.advance()
	}
	return nil
}

func (f *forecast) carryOut(a Action) {
	switch a.Verb {
	case Provision:
		g := lease.Guest{Pool: a.Pool, Cache: a.Cache, Shard: a.Shard, Digest: f.s.Digests[a.Pool], State: lease.Provisioning, Demand: a.Demand}
		for g.Slot = max(f.lowest[a.Pool], 1); ; g.Slot++ { // the lowest slot that is free
			if g.Name = lease.GuestName(a.Pool, g.Slot); f.guests[g.Name] == nil {
				break
			}
		}
		f.lowest[a.Pool] = g.Slot + 1
		f.guests[g.Name] = &g
		f.arrived[g.Name] = &arrival{act: f.act, reason: a.Reason}
		f.due[g.Name] = f.clock + f.ready(a.Pool)
	case Replace:
		f.leave(a.Guest, departure{reason: a.Reason, act: f.act, inPlace: true})
		f.guests[a.Guest.Name].State = lease.Replacing
		f.due[a.Guest.Name] = f.clock + f.ready(a.Pool)
	case Retire:
		f.leave(a.Guest, departure{reason: a.Reason, act: f.act})
		if a.Reason != "excess" {
			f.rolls[a.Cache] = max(f.rolls[a.Cache], f.haste[a.Pool])
		}
		f.guests[a.Guest.Name].State, f.guests[a.Guest.Name].Reason = lease.Retiring, a.Reason
		f.due[a.Guest.Name] = f.clock + briefly
	case Draw:
		f.drawn[keyOf(a.Guest)] = a.Cache
		g := f.guests[a.Guest.Name]
		g.Cache, g.State = a.Cache, lease.Preparing
		f.due[g.Name] = f.clock + briefly
	}
}

// leave notes why a guest goes. When it is one that has come in the place of another in this very act, that one goes for good.
func (f *forecast) leave(g lease.Guest, d departure) {
	k := keyOf(g)
	if before := (key{g.Name, g.Incarnation - 1}); f.left[before].inPlace && f.left[before].act == d.act {
		k = before
	}
	if f.first[k] {
		f.left[k] = d
	}
}

// advance lets the next thing that is under way end, and all that end with it.
func (f *forecast) advance() {
	if len(f.due) == 0 {
		return
	}
	next := slices.Min(slices.Collect(maps.Values(f.due)))
	f.bookShortages(next - f.clock)
	f.clock = next
	for _, name := range slices.Sorted(maps.Keys(f.due)) {
		if f.due[name] > f.clock {
			continue
		}
		delete(f.due, name)
		f.end(name)
	}
}

func (f *forecast) end(name string) {
	g := f.guests[name]
	switch g.State {
	case lease.Retiring:
		if _, told := f.left[keyOf(*g)]; !told {
			f.leave(*g, departure{reason: g.Reason, act: f.act})
		}
		delete(f.guests, name)
		delete(f.arrived, name)
		f.lowest[g.Pool] = min(f.lowest[g.Pool], g.Slot)
		return
	case lease.Replacing:
		if _, told := f.left[keyOf(*g)]; !told {
			f.leave(*g, departure{reason: g.Reason, act: f.act, inPlace: true})
		}
		g.Incarnation++
		g.Digest = cmp.Or(f.s.Digests[g.Pool], g.Digest)
	}
	g.State, g.Since = lease.Shelved, f.s.Now.Add(f.clock)
}

func (f *forecast) bookShortages(lasts time.Duration) {
	if lasts <= 0 || f.act != 1 {
		return
	}
	shelved := map[string]int{}
	for _, g := range f.guests {
		if g.State == lease.Shelved {
			shelved[g.Cache]++
		}
	}
	for _, c := range f.s.Fleet.AllCaches() {
		if shelved[c.Name] >= c.Warm || f.s.Off[c.Name] {
			continue
		}
		if f.shortage[c.Name] == nil {
			f.shortage[c.Name] = &shortage{lowest: c.Warm}
		}
		missing := c.Warm - shelved[c.Name]
		steps := min(max(f.rolls[c.Name], 1), missing) // that are played as one, and are those of all caches of the pool together
		missing = (missing + steps - 1) / steps
		f.shortage[c.Name].lowest = min(f.shortage[c.Name].lowest, c.Warm-missing)
		f.shortage[c.Name].lasted += lasts * time.Duration(steps)
	}
}

// release ends every lease, hold and quarantine, as lib.lua's settle does.
func (f *forecast) release(leases map[string]lease.Lease) {
	bound := slices.DeleteFunc(f.sorted(), func(g *lease.Guest) bool {
		return g.State != lease.Leased && g.State != lease.Held && g.State != lease.Quarantined
	})
	slices.SortStableFunc(bound, func(a, b *lease.Guest) int { return leases[a.Name].Deadline.Compare(leases[b.Name].Deadline) })
	for _, g := range bound {
		f.clock += time.Millisecond // each has been used later than the one before
		was := g.State
		g.State, g.Reason, g.Since = lease.Tainted, f.unfit(g, was), f.s.Now.Add(f.clock)
		if g.Reason == "" {
			g.State = lease.Shelved
		}
	}
}

// unfit says why a guest does not go back on the shelf; empty: it does.
func (f *forecast) unfit(g *lease.Guest, was lease.State) string {
	c := f.s.Fleet.Cache(g.Cache)
	switch {
	case g.Condemned != "":
		return g.Condemned
	case was != lease.Leased:
		return string(was)
	case c == nil:
		return "removed"
	case c.Reuse.Uses > 0 && g.Uses >= c.Reuse.Uses:
		return "uses"
	case c.Reuse.Age > 0 && f.s.Now.Sub(g.Born) >= c.Reuse.Age:
		return "age"
	}
	shelved := 0
	for _, other := range f.guests {
		if other.Cache == g.Cache && other.State == lease.Shelved && slices.Contains(c.Pools, other.Pool) {
			shelved++
		}
	}
	if shelved >= c.Size {
		return "excess"
	}
	return ""
}
