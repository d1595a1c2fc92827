package reconcile

import (
	"context"
	"maps"
	"slices"

	"greenroom/lease"
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

func (l *Loop) guests(ctx context.Context) ([]lease.Guest, error) {
	names, err := l.poolNames(ctx)
	if err != nil {
		return nil, err
	}
	var all []lease.Guest
	for _, name := range names {
		guests, err := l.o.Store.Guests(ctx, name)
		if err != nil {
			return nil, err
		}
		all = append(all, guests...)
	}
	return all, nil
}

// snapshot reads everything that Decide needs, or fails.
func (l *Loop) snapshot(ctx context.Context) (Snapshot, error) {
	s := Snapshot{
		Fleet: l.inForce(), Digests: map[string]string{}, Off: map[string]bool{}, Paused: map[string]bool{},
		Backoff: map[string]bool{}, Busy: map[string]bool{}, Stalled: map[string]bool{}, Now: l.o.Now(),
	}
	var err error
	if s.Guests, err = l.guests(ctx); err != nil {
		return s, err
	}
	if _, err := l.demand(ctx, &s); err != nil {
		return s, err
	}
	pauses, err := l.pauses(ctx, s)
	if err != nil {
		return s, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, p := range pauses {
		s.Paused[name] = p != nil
		l.pool(name).paused = p
	}
	for name, r := range l.recipes {
		s.Digests[name] = r.digest
		s.Backoff[name] = l.pool(name).until.After(s.Now) || l.breaker(r.module).until.After(s.Now)
	}
	for id, sh := range l.shards {
		s.Busy[id] = sh.run != "" || sh.stalled != nil || sh.until.After(s.Now)
		s.Stalled[id] = sh.stalled != nil
		if sh.stalled != nil && sh.meta.Digest == s.Digests[sh.pool] {
			s.Backoff[sh.pool] = true // another shard of the same digest would stall as well
		}
	}
	return s, nil
}

// demand reads what each cache of the snapshot's fleet is asked for, and how it was overridden.
func (l *Loop) demand(ctx context.Context, s *Snapshot) (map[string]*lease.Override, error) {
	var waiting []lease.Lease
	overrides := map[string]*lease.Override{}
	for _, c := range s.Fleet.AllCaches() {
		st, err := l.o.Store.Stock(ctx, c.Name)
		if err != nil {
			return nil, err
		}
		s.Off[c.Name] = !c.Enabled
		if overrides[c.Name] = st.Override; st.Override != nil {
			s.Off[c.Name] = !st.Override.Enabled
		}
		if st.Queue == 0 {
			continue
		}
		queue, err := l.o.Store.Queue(ctx, c.Name, maxDemand)
		if err != nil {
			return nil, err
		}
		waiting = append(waiting, queue...)
	}
	slices.SortStableFunc(waiting, func(a, b lease.Lease) int { return a.Created.Compare(b.Created) })
	for _, w := range waiting {
		s.Demand = append(s.Demand, Want{Cache: w.Cache, Pools: w.Pools})
	}
	return overrides, nil
}

func (l *Loop) pauses(ctx context.Context, s Snapshot) (map[string]*lease.Pause, error) {
	names := map[string]bool{}
	for _, p := range s.Fleet.Pools {
		names[p.Name] = true
	}
	for _, g := range s.Guests {
		names[g.Pool] = true
	}
	out := map[string]*lease.Pause{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		p, err := l.o.Store.Paused(ctx, name)
		if err != nil {
			return nil, err
		}
		out[name] = p
	}
	return out, nil
}
