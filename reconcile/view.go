package reconcile

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"greenroom/lease"
)

// view is what the loop has read of the store. A change tells which pool or cache must be read again; so the cost of a pass
// follows what has happened, and a tick after which nothing has happened reads nothing. All of it is read again now and then,
// for changes that no notice came of, such as those of another server. What is out of date does no harm: every move of a
// guest compares before it sets.
type view struct {
	guests    map[string][]lease.Guest // by pool
	waiting   map[string][]lease.Lease // by cache
	overrides map[string]*lease.Override
	pauses    map[string]*lease.Pause // by pool
	whole     time.Time               // when all of it was read last; zero: it must be

	mu     sync.Mutex // of what follows, which notices write
	pools  map[string]bool
	caches map[string]bool
	all    bool
}

func newView() *view {
	return &view{
		guests: map[string][]lease.Guest{}, waiting: map[string][]lease.Lease{}, overrides: map[string]*lease.Override{},
		pauses: map[string]*lease.Pause{}, pools: map[string]bool{}, caches: map[string]bool{}, all: true,
	}
}

// forget has all of it read again.
func (v *view) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.all = true
}

// stir has one guest's pool and one cache read again; either may be empty.
func (v *view) stir(pool, cache string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if pool != "" {
		v.pools[pool] = true
	}
	if cache != "" {
		v.caches[cache] = true
	}
}

// take returns what has to be read again, and begins anew.
func (v *view) take() (pools, caches map[string]bool, all bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	pools, caches, all = v.pools, v.caches, v.all
	v.pools, v.caches, v.all = map[string]bool{}, map[string]bool{}, false
	return pools, caches, all
}

// idle tells that nothing has to be read again.
func (v *view) idle() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return !v.all && len(v.pools)+len(v.caches) == 0
}

// notice takes a change in.
func (v *view) notice(c lease.Change) {
	pool := ""
	if c.Guest != "" {
		pool, _, _ = lease.ParseGuestName(c.Guest)
	}
	v.stir(pool, c.Cache)
}

// look brings the view up to date. After an error all of it is read again.
func (l *Loop) look(ctx context.Context) error {
	v := l.view
	if l.o.Now().Sub(v.whole) >= l.o.Reread {
		v.forget()
	}
	pools, caches, all := v.take()
	err := func() error {
		if all {
			return l.lookAll(ctx)
		}
		for _, name := range slices.Sorted(maps.Keys(pools)) {
			if err := l.lookAtPool(ctx, name); err != nil {
				return err
			}
		}
		for _, name := range slices.Sorted(maps.Keys(caches)) {
			if err := l.lookAtCache(ctx, name); err != nil {
				return err
			}
		}
		return nil
	}()
	if err != nil {
		v.forget()
	}
	return err
}

func (l *Loop) lookAll(ctx context.Context) error {
	names, err := l.poolNames(ctx)
	if err != nil {
		return err
	}
	v := l.view
	v.guests, v.waiting = map[string][]lease.Guest{}, map[string][]lease.Lease{}
	v.overrides, v.pauses = map[string]*lease.Override{}, map[string]*lease.Pause{}
	for _, name := range names {
		if err := l.lookAtPool(ctx, name); err != nil {
			return err
		}
	}
	for _, c := range l.inForce().AllCaches() {
		if err := l.lookAtCache(ctx, c.Name); err != nil {
			return err
		}
	}
	v.whole = l.o.Now()
	return nil
}

func (l *Loop) lookAtPool(ctx context.Context, name string) (err error) {
	v := l.view
	if v.guests[name], err = l.o.Store.Guests(ctx, name); err != nil {
		return err
	}
	if v.pauses[name], err = l.o.Store.Paused(ctx, name); err != nil {
		return err
	}
	if len(v.guests[name]) == 0 && l.inForce().Pool(name) == nil {
		delete(v.guests, name)
		delete(v.pauses, name)
	}
	return nil
}

func (l *Loop) lookAtCache(ctx context.Context, name string) error {
	v := l.view
	delete(v.waiting, name)
	delete(v.overrides, name)
	if l.inForce().Cache(name) == nil {
		return nil
	}
	st, err := l.o.Store.Stock(ctx, name)
	if err != nil {
		return err
	}
	if st.Override != nil {
		v.overrides[name] = st.Override
	}
	if st.Queue == 0 {
		return nil
	}
	v.waiting[name], err = l.o.Store.Queue(ctx, name, maxDemand)
	return err
}

// known are all guests of the view, by pool and slot.
func (v *view) known() []lease.Guest {
	n := 0
	for _, guests := range v.guests {
		n += len(guests)
	}
	all := make([]lease.Guest, 0, n)
	for _, name := range slices.Sorted(maps.Keys(v.guests)) {
		all = append(all, v.guests[name]...)
	}
	return all
}

// nextTurn is when something that the view knows turns out otherwise by time alone: a hold or quarantine ends, an override
// ends, a guest is too old. Zero: nothing does.
func (v *view) nextTurn(s Snapshot) (next time.Time) {
	consider := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	ages := map[string]time.Duration{}
	for _, c := range s.Fleet.AllCaches() {
		ages[c.Name] = c.Reuse.Age
	}
	for _, g := range s.Guests {
		switch g.State {
		case lease.Held, lease.Quarantined:
			consider(g.Until.Add(time.Second)) // the sweep is first
		}
		if age := ages[g.Cache]; age > 0 && !g.Born.IsZero() && g.Born.Add(age).After(s.Now) {
			consider(g.Born.Add(age))
		}
	}
	for _, o := range v.overrides {
		consider(o.Until)
	}
	return next
}

// turn stirs what has turned out otherwise by time.
func (v *view) turn(now time.Time) {
	for pool, guests := range v.guests {
		if slices.ContainsFunc(guests, func(g lease.Guest) bool {
			return (g.State == lease.Held || g.State == lease.Quarantined) && !g.Until.IsZero() && now.After(g.Until)
		}) {
			v.stir(pool, "")
		}
	}
	for cache, o := range v.overrides {
		if !o.Until.IsZero() && now.After(o.Until) {
			v.stir("", cache)
		}
	}
}
