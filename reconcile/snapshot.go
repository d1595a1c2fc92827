package reconcile

import (
	"context"
	"slices"
	"time"

	"greenroom/lease"
	"greenroom/specs"
)

// maxDemand bounds how many waiting requests of one cache a pass looks at; no pool can make more guests in one go.
const maxDemand = 2000

// poolNames lists the pools of the spec and those that still have guests.
func (l *Loop) poolNames(ctx context.Context) ([]string, error) {
	names, err := l.o.Store.Pools(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range l.inForce().Pools {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// guests reads all guests on record; most pools of a large fleet may have none.
func (l *Loop) guests(ctx context.Context) ([]lease.Guest, error) {
	names, err := l.poolNames(ctx)
	if err != nil {
		return nil, err
	}
	surveys, err := l.o.Store.Survey(ctx, names...)
	if err != nil {
		return nil, err
	}
	var all []lease.Guest
	for _, of := range surveys {
		if of.Taken == 0 {
			continue
		}
		guests, err := l.o.Store.Guests(ctx, of.Pool)
		if err != nil {
			return nil, err
		}
		all = append(all, guests...)
	}
	return all, nil
}

// snapshot is everything that Decide needs, as the view has it.
func (l *Loop) snapshot() Snapshot {
	s := Snapshot{
		Fleet: l.inForce(), Digests: map[string]string{}, Off: map[string]bool{}, Paused: map[string]bool{},
		Backoff: map[string]bool{}, Busy: map[string]bool{}, Stalled: map[string]bool{}, Now: l.o.Now(), Guests: l.view.guests,
	}
	var waiting []lease.Lease
	for _, c := range s.Fleet.AllCaches() {
		s.Off[c.Name] = off(c, l.view.overrides[c.Name], s.Now)
		waiting = append(waiting, l.view.waiting[c.Name]...)
	}
	s.Demand = wants(waiting)
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, p := range l.view.pauses {
		s.Paused[name] = p != nil
		l.pool(name).paused = p
	}
	for name, r := range l.recipes {
		s.Digests[name] = r.digest
		s.Backoff[name] = l.pool(name).until.After(s.Now) || l.breaker(r.Source).until.After(s.Now)
	}
	for id, sh := range l.shards {
		s.Busy[id] = sh.run != "" || sh.going || sh.stalled != nil || sh.until.After(s.Now)
		s.Stalled[id] = sh.stalled != nil
		if sh.stalled != nil && sh.meta.Digest == s.Digests[sh.pool] {
			s.Backoff[sh.pool] = true // another shard of the same digest would stall as well
		}
	}
	return s
}

// off tells that a cache hands out nothing: as an override says until its end, and else the spec.
func off(c *specs.Cache, o *lease.Override, now time.Time) bool {
	if o != nil && (o.Until.IsZero() || o.Until.After(now)) {
		return !o.Enabled
	}
	return !c.Enabled
}

// wants are the waiting requests, the oldest first.
func wants(waiting []lease.Lease) (out []Want) {
	slices.SortStableFunc(waiting, func(a, b lease.Lease) int { return a.Created.Compare(b.Created) })
	for _, w := range waiting {
		out = append(out, Want{Cache: w.Cache, Pools: w.Pools})
	}
	return out
}

// demand reads what the caches of a fleet are asked for, and how they are overridden.
func (l *Loop) demand(ctx context.Context, fleet *specs.Fleet) ([]Want, map[string]*lease.Override, error) {
	names := cacheNames(fleet)
	waiting, overrides, err := l.asked(ctx, names...)
	var all []lease.Lease
	for _, name := range names {
		all = append(all, waiting[name]...)
	}
	return wants(all), overrides, err
}

func cacheNames(fleet *specs.Fleet) (names []string) {
	for _, c := range fleet.AllCaches() {
		names = append(names, c.Name)
	}
	return names
}
