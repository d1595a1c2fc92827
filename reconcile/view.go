package reconcile

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"greenroom/lease"
)

// view is what the loop has read of the store. A change tells which guest or cache must be read again, or all that there is to
// know; so the cost of a pass follows what has happened, and a tick after which nothing has happened reads nothing. All of
// it is read again now and then, for changes that no notice came of, such as those of another server. What is out of date
// does no harm: every move of a guest compares before it sets.
type view struct {
	guests    []lease.Guest            // in the order of pools and slots, without what only their users need to know
	waiting   map[string][]lease.Lease // by cache
	overrides map[string]*lease.Override
	pauses    map[string]*lease.Pause // by pool
	whole     time.Time               // when all of it was read last; zero: it must be
	took      time.Duration           // to read all of it

	mu   sync.Mutex // of what follows, which notices write
	news news
}

// news is what has to be read again, and what is known to have come about.
type news struct {
	all    bool
	pools  map[string]bool         // to be read whole
	slots  map[string]map[int]bool // to be read, by pool
	turns  lease.Turns             // of guests that need not be read
	caches map[string]bool
}

func noNews() news {
	return news{pools: map[string]bool{}, slots: map[string]map[int]bool{}, turns: lease.Turns{}, caches: map[string]bool{}}
}

func newView() *view {
	return &view{
		waiting: map[string][]lease.Lease{}, overrides: map[string]*lease.Override{},
		pauses: map[string]*lease.Pause{}, news: func() news { n := noNews(); n.all = true; return n }(),
	}
}

// forget has all of it read again.
func (v *view) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.news.all = true
}

// stir has one pool and one cache read again; either may be empty.
func (v *view) stir(pool, cache string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.news.stir(pool, cache)
}

// read has one guest read again.
func (v *view) read(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.news.read(name)
}

func (n *news) stir(pool, cache string) {
	if pool != "" {
		n.pools[pool] = true
	}
	if cache != "" {
		n.caches[cache] = true
	}
}

func (n *news) read(name string) {
	pool, slot, err := lease.ParseGuestName(name)
	if err != nil {
		return
	}
	if n.slots[pool] == nil {
		n.slots[pool] = map[int]bool{}
	}
	n.slots[pool][slot] = true
}

// take returns the news and begins anew.
func (v *view) take() news {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := v.news
	v.news = noNews()
	return n
}

// idle tells that there is no news.
func (v *view) idle() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := v.news
	return !n.all && len(n.pools)+len(n.slots)+len(n.turns)+len(n.caches) == 0
}

// hurry says how soon there should be a pass.
type hurry int

const (
	none hurry = iota
	calm       // nobody waits for what comes of it
	soon
)

// notice takes changes in.
func (v *view) notice(changes []lease.Change) (h hurry) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range changes {
		h = max(h, v.note(&changes[i]))
	}
	return h
}

// note needs v.mu. Of a guest that went from the shelf to a holder, or came back, all is known.
func (v *view) note(c *lease.Change) hurry {
	if c.Kind == lease.StoreLost {
		return none
	}
	if t, ok := c.Turn(); ok {
		if !v.news.turns.Note(t) {
			v.news.read(t.Guest)
		}
		return calm
	}
	if c.Guest != "" {
		v.news.read(c.Guest)
	}
	v.news.stir("", c.Cache)
	switch {
	case c.Kind == lease.Unsure: // whoever sends calls again may do so all the time
		return calm
	case c.Kind != lease.GuestMoved || slices.Contains([]lease.State{lease.Tainted, lease.Failed, lease.Shelved, lease.Gone}, c.State):
		return soon
	}
	return none
}

// look brings the view up to date. After an error all of it is read again.
func (l *Loop) look(ctx context.Context) error {
	v := l.view
	if v.stale(l.o.Now(), l.o.Reread) {
		v.forget()
	}
	news := v.take()
	err := l.readNews(ctx, news)
	if err != nil {
		v.forget()
	}
	return err
}

func (l *Loop) readNews(ctx context.Context, n news) error {
	if n.all {
		return l.lookAll(ctx)
	}
	l.view.apply(n)
	for name, slots := range n.slots {
		if first, end := l.view.pool(name); len(slots) > max(fewSlots, (end-first)/8) {
			n.pools[name] = true
		} else if err := l.lookAtGuests(ctx, name, slices.Sorted(maps.Keys(slots))); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.pools)) {
		if err := l.lookAtPool(ctx, name); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.caches)) {
		if err := l.lookAtCache(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// fewSlots are read one by one, however small their pool is.
const fewSlots = 50

// apply brings the turns in; guests that they do not fit are to be read.
func (v *view) apply(n news) {
	for name, t := range n.turns {
		pool, slot, err := lease.ParseGuestName(name)
		if err != nil {
			continue
		}
		if i, known := v.find(pool, slot); !known || !t.Apply(&v.guests[i]) {
			n.read(name)
		}
	}
}

// find tells where the guest of a slot is, or would be.
func (v *view) find(pool string, slot int) (int, bool) {
	return slices.BinarySearchFunc(v.guests, slot, func(g lease.Guest, slot int) int {
		return cmp.Or(strings.Compare(g.Pool, pool), cmp.Compare(g.Slot, slot))
	})
}

// pool tells where the guests of a pool are: from first to before end.
func (v *view) pool(name string) (first, end int) {
	first, _ = v.find(name, 0)
	end, _ = v.find(name, math.MaxInt)
	return first, end
}

// lookAtGuests reads some guests of a pool.
func (l *Loop) lookAtGuests(ctx context.Context, pool string, slots []int) error {
	v := l.view
	read, err := l.o.Store.GuestsIn(ctx, pool, slots)
	if err != nil {
		return err
	}
	for _, slot := range slots {
		i, known := v.find(pool, slot)
		j, there := slices.BinarySearchFunc(read, slot, func(g lease.Guest, slot int) int { return cmp.Compare(g.Slot, slot) })
		switch {
		case known && there:
			v.guests[i] = outline(read[j])
		case known:
			v.guests = slices.Delete(v.guests, i, i+1)
		case there:
			v.guests = slices.Insert(v.guests, i, outline(read[j]))
		}
	}
	if first, end := v.pool(pool); first == end {
		return l.lookAtPool(ctx, pool)
	}
	return nil
}

// outline leaves out what only the users of a guest need to know: there may be 100 000.
func outline(g lease.Guest) lease.Guest {
	g.ID, g.Host, g.Port, g.User, g.HostKey, g.Attributes, g.Evidence = "", "", 0, "", "", nil, ""
	return g
}

// stale tells whether all must be read again: after a time, and so seldom that it takes a hundredth of the time at most.
func (v *view) stale(now time.Time, after time.Duration) bool {
	return now.Sub(v.whole) >= max(after, 100*v.took)
}

func (l *Loop) lookAll(ctx context.Context) error {
	began := l.o.Now()
	names, err := l.poolNames(ctx)
	if err != nil {
		return err
	}
	v := l.view
	v.guests, v.waiting = nil, map[string][]lease.Lease{}
	v.overrides, v.pauses = map[string]*lease.Override{}, map[string]*lease.Pause{}
	surveys, err := l.o.Store.Survey(ctx, names...)
	if err != nil {
		return err
	}
	for _, of := range surveys {
		if err := l.readGuests(ctx, of); err != nil {
			return err
		}
	}
	if err := l.readCaches(ctx, cacheNames(l.inForce())...); err != nil {
		return err
	}
	v.whole = l.o.Now()
	v.took = v.whole.Sub(began)
	return nil
}

func (l *Loop) lookAtPool(ctx context.Context, name string) error {
	of, err := l.o.Store.Survey(ctx, name)
	if err != nil {
		return err
	}
	return l.readGuests(ctx, of[0])
}

// readGuests reads the guests of a pool that was surveyed.
func (l *Loop) readGuests(ctx context.Context, of lease.Survey) (err error) {
	v, name := l.view, of.Pool
	var guests []lease.Guest
	if of.Taken > 0 {
		if guests, err = lease.GuestsAs(ctx, l.o.Store, name, outline); err != nil {
			return err
		}
	}
	if first, end := v.pool(name); end-first == len(v.guests) {
		v.guests = guests // there is no other pool
	} else {
		v.guests = slices.Replace(v.guests, first, end, guests...)
	}
	v.pauses[name] = of.Pause
	if len(guests) == 0 && l.inForce().Pool(name) == nil {
		delete(v.pauses, name)
	}
	return nil
}

func (l *Loop) lookAtCache(ctx context.Context, name string) error {
	delete(l.view.waiting, name)
	delete(l.view.overrides, name)
	if l.inForce().Cache(name) == nil {
		return nil
	}
	return l.readCaches(ctx, name)
}

// readCaches brings what caches are asked for into the view.
func (l *Loop) readCaches(ctx context.Context, names ...string) error {
	waiting, overrides, err := l.asked(ctx, names...)
	if err != nil {
		return err
	}
	maps.Copy(l.view.waiting, waiting)
	maps.Copy(l.view.overrides, overrides)
	return nil
}

// asked reads what caches are asked for, and how they are overridden, of those where there is something to tell.
func (l *Loop) asked(ctx context.Context, names ...string) (waiting map[string][]lease.Lease, overrides map[string]*lease.Override, err error) {
	stocks, err := l.o.Store.Stocks(ctx, names...)
	if err != nil {
		return nil, nil, err
	}
	waiting, overrides = map[string][]lease.Lease{}, map[string]*lease.Override{}
	for _, st := range stocks {
		if st.Override != nil {
			overrides[st.Cache] = st.Override
		}
		if st.Queue == 0 {
			continue
		}
		if waiting[st.Cache], err = l.o.Store.Queue(ctx, st.Cache, maxDemand); err != nil {
			return nil, nil, err
		}
	}
	return waiting, overrides, nil
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
			consider(g.Until.Add(3 * time.Second)) // the sweep, which comes every other second, is first
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
	for _, g := range v.guests {
		if (g.State == lease.Held || g.State == lease.Quarantined) && !g.Until.IsZero() && now.After(g.Until) {
			v.read(g.Name)
		}
	}
	for cache, o := range v.overrides {
		if !o.Until.IsZero() && now.After(o.Until) {
			v.stir("", cache)
		}
	}
}
