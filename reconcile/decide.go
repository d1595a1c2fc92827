package reconcile

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"greenroom/lease"
	"greenroom/specs"
)

// Snapshot is everything that Decide knows. What could not be read whole must not be in it: partial
// knowledge changes nothing.
type Snapshot struct {
	Fleet   *specs.Fleet
	Digests map[string]string // pool -> digest that new guests are born of; a pool without one makes none
	Guests  []lease.Guest     // every guest on record
	Demand  []Want            // every waiting request, the oldest first
	Off     map[string]bool   // caches that an override or the spec disables
	Paused  map[string]bool   // pools that are left alone
	Backoff map[string]bool   // pools that make no guest just now; what exists may still be retired
	Busy    map[string]bool   // shards that take no work just now: a run is under way, or the next try is not due
	Stalled map[string]bool   // shards in which nothing happens until a human acts
	Now     time.Time
}

// Want is one waiting request.
type Want struct {
	Cache string
	Pools []string // that satisfy it, in order of preference
}

// Verb is what an action does.
type Verb string

// The actions.
const (
	Provision Verb = "provision" // a new guest in a free slot
	Replace   Verb = "replace"   // a tainted or failed guest by its next incarnation
	Retire    Verb = "retire"    // an idle guest, for good
	Draw      Verb = "draw"      // a spare into a named cache
)

// Action is one thing to do.
type Action struct {
	Verb   Verb
	Pool   string
	Cache  string
	Shard  string
	Guest  lease.Guest // of replace, retire and draw
	Demand bool        // somebody waits for it
	Reason string      // of retire and replace: excess, age, uses, outdated, removed, dead …; of the others: demand, warm, spare
}

func (a Action) String() string {
	if a.Guest.Name == "" {
		return fmt.Sprintf("%s in %s for %s (%s, shard %s)", a.Verb, a.Pool, a.Cache, a.Reason, a.Shard)
	}
	return fmt.Sprintf("%s %s.%d for %s (%s)", a.Verb, a.Guest.Name, a.Guest.Incarnation, a.Cache, a.Reason)
}

// Decide says what must happen to bring the inventory towards the spec. It is pure. It never names a
// leased guest, never goes above a max, never takes an enabled cache below its warm by its own doing
// beyond what rollout allows, and, once all it asked for has happened, asks for nothing more.
//
// The order matters: waiting requests come before warm-up, warm-up before rollout, and only what
// nobody wants is retired.
func Decide(s Snapshot) []Action {
	d := newDecision(s)
	for _, w := range s.Demand {
		d.serve(w)
	}
	each(d.order, d.warmUp, d.retireBroken, d.countMissing)
	each(d.inTurn(), d.rollOut)
	each(d.order, d.retireExcess)
	for _, name := range slices.Sorted(maps.Keys(d.pools)) {
		d.shrink(d.pools[name])
	}
	return d.actions
}

func each(caches []*cacheView, steps ...func(*cacheView)) {
	for _, step := range steps {
		for _, c := range caches {
			step(c)
		}
	}
}

// poolView is a pool while the decision is made.
type poolView struct {
	name     string
	spec     *specs.Pool // nil: the spec has it no more
	taken    int         // guests on record and decided
	retiring int         // of them, those whose slot will be free and is promised to nobody
	leaving  int         // retiring or decided to because they are stale, in caches that hand out guests
	missing  int         // on their way or failing because stale ones went, for all that is known
	proven   bool        // a guest of the digest that new ones are born of has come up
}

func (p *poolView) room() int {
	if p.spec == nil {
		return 0
	}
	return p.spec.Max - p.taken
}

// pace is how many guests may be missing at once because stale ones are replaced; without end where the spec has the pool no
// more.
func (p *poolView) pace() int {
	if p.spec == nil {
		return math.MaxInt
	}
	return p.spec.Rollout.MaxUnavailable
}

// beside is how many stale guests more may go where enough others are on the shelf: nothing is missing then.
func (p *poolView) beside() int { return p.pace() - p.leaving }

// left is how many stale guests more may go before others have come in their place.
func (p *poolView) left() int { return p.beside() - p.missing }

// cacheView is a cache while the decision is made.
type cacheView struct {
	name    string
	spec    *specs.Cache   // nil: the spec has it no more
	taken   int            // guests on record and decided
	coming  map[string]int // pool -> guests on their way to the shelf that no request has been promised
	shelf   []onShelf      // shelved and promised to nobody, the worthiest first
	broken  []*lease.Guest // tainted or failed
	up      []string       // pools of which a guest has come up here
	resting []string       // pools of which one has not, and waits for its next try
	leaving int            // retiring, and their place is promised to no request
	making  int            // of the current digest, on their way or decided
	pending int            // of any digest, for the shelf: on their way or decided, and not among the failing
	failing []*lease.Guest // that have not come up yet although they were tried: they wait for their next try or are at it
	stale   bool           // some that are shelved or retiring are
	leases  bool           // some of its guests are with holders, or come back from them
	added   int            // decided, for the shelf
	unmet   int            // requests that nothing could be found for
}

func (c *cacheView) room() int {
	if c.spec == nil {
		return 0
	}
	return c.spec.Max - c.taken
}

func (c *cacheView) supply() int {
	n := len(c.shelf) + c.added
	for _, k := range c.coming {
		n += k
	}
	return n
}

type decision struct {
	Snapshot
	pools    map[string]*poolView
	caches   map[string]*cacheView
	order    []*cacheView         // by name
	shards   map[string]int       // guests on record or decided
	open     map[string]string    // pool -> the shard that its next guest goes to
	openings map[string]*openings // by pool
	actions  []Action
}

func newDecision(s Snapshot) *decision {
	d := &decision{Snapshot: s, pools: map[string]*poolView{}, caches: map[string]*cacheView{}, shards: map[string]int{}, open: map[string]string{}, openings: map[string]*openings{}}
	for _, p := range s.Fleet.Pools {
		d.pool(p.Name).spec = p
	}
	for _, c := range s.Fleet.AllCaches() {
		d.cache(c.Name).spec = c
	}
	for i := range s.Guests {
		d.count(&s.Guests[i])
	}
	for _, name := range slices.Sorted(maps.Keys(d.caches)) {
		c := d.caches[name]
		slices.SortFunc(c.shelf, byWorth)
		slices.SortFunc(c.broken, func(a, b *lease.Guest) int { return cmp.Compare(a.Name, b.Name) })
		d.order = append(d.order, c)
	}
	return d
}

func (d *decision) pool(name string) *poolView {
	if d.pools[name] == nil {
		d.pools[name] = &poolView{name: name}
	}
	return d.pools[name]
}

func (d *decision) cache(name string) *cacheView {
	if d.caches[name] == nil {
		d.caches[name] = &cacheView{name: name, coming: map[string]int{}}
	}
	return d.caches[name]
}

// count books one guest. Held, quarantined and leased guests count as capacity and as nothing else.
func (d *decision) count(g *lease.Guest) {
	p, c := d.pool(g.Pool), d.cache(g.Cache)
	p.taken++
	c.taken++
	d.shards[g.Shard]++
	if isUp(g) {
		c.comeUp(g.Pool)
		p.proven = p.proven || g.Digest == d.Digests[g.Pool]
	}
	c.leases = c.leases || slices.Contains([]lease.State{lease.Leased, lease.Resetting, lease.Held}, g.State)
	switch g.State {
	case lease.Shelved:
		stale := d.stale(g)
		c.shelf = append(c.shelf, onShelf{g, stale})
		c.stale = c.stale || stale != ""
	case lease.Planned, lease.Provisioning, lease.Replacing:
		if d.Stalled[g.Shard] {
			return // nobody knows when it will come
		}
		c.come(g, d.stale(g) == "")
	case lease.Booting, lease.Preparing:
		if stale := d.stale(g); g.State == lease.Booting && stale == "removed" { // it may never answer, and nobody wants it
			unwanted := *g
			unwanted.Reason = stale
			c.broken = append(c.broken, &unwanted)
		} else {
			c.come(g, stale == "")
		}
	case lease.Resetting: // it comes back, but it is not new
		c.come(g, false)
	case lease.Tainted, lease.Failed:
		c.broken = append(c.broken, g)
		if g.State == lease.Tainted && !d.due(g) {
			c.resting = append(c.resting, g.Pool)
		}
		if g.Failures > 0 {
			c.failing = append(c.failing, g)
		}
	case lease.Retiring:
		p.retiring++
		c.leaving++
		if d.serves(c) && slices.Contains([]string{"outdated", "age", "removed"}, g.Reason) {
			p.leaving++
			c.stale = true
		}
	}
}

// isUp tells that a guest has come up: it was shelved or leased since it was made.
func isUp(g *lease.Guest) bool {
	return slices.Contains([]lease.State{lease.Shelved, lease.Leased, lease.Resetting, lease.Held}, g.State)
}

// comeUp books a pool of which a guest has come up.
func (c *cacheView) comeUp(pool string) {
	if !slices.Contains(c.up, pool) {
		c.up = append(c.up, pool)
	}
}

// come books a guest on its way to the shelf.
func (c *cacheView) come(g *lease.Guest, fresh bool) {
	c.coming[g.Pool]++
	switch {
	case g.State == lease.Resetting || g.Demand: // a lease has taken the one from the shelf, and the other is not made for it
	case g.Failures > 0:
		c.failing = append(c.failing, g)
	default:
		c.pending++
	}
	if fresh {
		c.making++
	}
}

// stale says why a guest is to be replaced although it is well; empty: it is not.
func (d *decision) stale(g *lease.Guest) string {
	return d.Snapshot.stale(g, d.pool(g.Pool).spec, d.cache(g.Cache).spec)
}

// stale is decision's, for a guest whose pool and cache the fleet has; nil: it has not.
func (s Snapshot) stale(g *lease.Guest, p *specs.Pool, c *specs.Cache) string {
	switch digest := s.Digests[g.Pool]; {
	case c == nil || p == nil || !slices.Contains(c.Pools, g.Pool):
		return "removed"
	case digest != "" && g.Digest != digest:
		return "outdated"
	case c.Reuse.Age > 0 && !g.Born.IsZero() && s.Now.Sub(g.Born) >= c.Reuse.Age:
		return "age"
	}
	return ""
}

// onShelf is an idle guest, and why it is to be replaced although it is well; empty: it is not.
type onShelf struct {
	*lease.Guest
	stale string
}

// byWorth orders a shelf: what is fresh before what is stale, and what was used last before what has lain long.
func byWorth(a, b onShelf) int {
	if fa, fb := a.stale == "", b.stale == ""; fa != fb {
		if fa {
			return -1
		}
		return 1
	}
	return cmp.Or(b.Since.Compare(a.Since), cmp.Compare(a.Name, b.Name))
}

func (d *decision) do(a Action) { d.actions = append(d.actions, a) }

// promise books a guest that was decided for a cache.
func (c *cacheView) promise(demand bool) {
	c.making++
	if !demand {
		c.pending++
	}
}

// serves tells that a cache is there and hands out guests.
func (d *decision) serves(c *cacheView) bool { return c.spec != nil && !d.Off[c.name] }

// makes tells that a pool can make guests just now.
func (d *decision) makes(pool string) bool {
	return d.pool(pool).spec != nil && d.Digests[pool] != "" && !d.Paused[pool] && !d.Backoff[pool]
}

// serve finds a guest for a waiting request: one that is there or on its way and promised to nobody, else a new one.
func (d *decision) serve(w Want) {
	c := d.cache(w.Cache)
	if !d.serves(c) {
		return
	}
	for _, pool := range w.Pools {
		if i := slices.IndexFunc(c.shelf, func(g onShelf) bool { return g.Pool == pool }); i >= 0 {
			c.shelf = slices.Delete(c.shelf, i, i+1)
			return
		}
		if c.coming[pool] > 0 {
			c.coming[pool]--
			return
		}
	}
	if d.obtain(c, w.Pools, true) {
		return
	}
	c.unmet++
	d.makeRoom(c, w.Pools)
}

// obtain brings one more guest to a cache: a broken one replaced, a spare drawn, or a new one.
func (d *decision) obtain(c *cacheView, pools []string, demand bool) bool {
	if d.replaceBroken(c, pools, demand) {
		return true
	}
	if len(c.resting) > 0 {
		pools = slices.DeleteFunc(slices.Clone(pools), c.rests)
	}
	return d.drawSpare(c, pools, demand) || d.provision(c, pools, demand)
}

// rests tells that nothing of a pool comes up in the cache: each machine more would only be made to be destroyed.
func (c *cacheView) rests(pool string) bool {
	return slices.Contains(c.resting, pool) && !slices.Contains(c.up, pool)
}

func (d *decision) replaceBroken(c *cacheView, pools []string, demand bool) bool {
	for i, g := range c.broken {
		if slices.Contains(pools, g.Pool) && d.makes(g.Pool) && d.Digests[g.Pool] == g.Digest && !d.Busy[g.Shard] && d.due(g) {
			c.broken = slices.Delete(c.broken, i, i+1)
			c.promise(demand || g.Failures > 0) // it is among the failing already
			d.do(Action{Verb: Replace, Pool: g.Pool, Cache: c.name, Shard: g.Shard, Guest: *g, Demand: demand, Reason: g.Reason})
			return true
		}
	}
	return false
}

// due tells that a guest that failed may be tried again: the pause doubles with each failure.
func (d *decision) due(g *lease.Guest) bool {
	return nextTry(g, d.Now).IsZero()
}

// backoff is the pause after so many failures in a row: 2s, 4s … 5m.
func backoff(failures int) time.Duration {
	if failures <= 0 {
		return 0
	}
	return min(time.Second<<min(failures, 16), 5*time.Minute)
}

func (d *decision) drawSpare(c *cacheView, pools []string, demand bool) bool {
	if c.spec.Invisible || c.room() <= 0 {
		return false
	}
	for _, pool := range pools {
		from := d.caches[pool]
		if from == nil || d.Paused[pool] || len(from.shelf) == 0 || from.shelf[0].stale != "" || d.Busy[from.shelf[0].Shard] {
			continue // a run must not find a guest gone that it has just read
		}
		g := from.shelf[0]
		from.shelf = from.shelf[1:]
		from.taken--
		c.taken++
		c.promise(demand)
		d.do(Action{Verb: Draw, Pool: pool, Cache: c.name, Shard: g.Shard, Guest: *g.Guest, Demand: demand, Reason: purpose(c.spec, demand)})
		return true
	}
	return false
}

func (d *decision) provision(c *cacheView, pools []string, demand bool) bool {
	if c.room() <= 0 {
		return false
	}
	for _, name := range pools {
		p := d.pool(name)
		if !d.makes(name) || p.room() <= 0 {
			continue
		}
		shard := d.shardFor(p.spec, demand)
		p.taken++
		c.taken++
		c.promise(demand)
		d.shards[shard]++
		d.do(Action{Verb: Provision, Pool: name, Cache: c.name, Shard: shard, Demand: demand, Reason: purpose(c.spec, demand)})
		return true
	}
	return false
}

// purpose is what a guest more is for.
func purpose(c *specs.Cache, demand bool) string {
	switch {
	case demand:
		return "demand"
	case c.Invisible:
		return "spare"
	}
	return "warm"
}

// shardFor finds a shard of the pool's digest that has room and is not busy, the fullest first; else it opens a new one,
// so that nobody waits for a run that is under way. Who waits for the guest waits for the plan of all that the shard has, so
// on demand it is one that is at most half full.
func (d *decision) shardFor(p *specs.Pool, demand bool) string {
	if id := d.open[p.Name]; id != "" && d.shards[id] < p.ShardSize {
		return id
	}
	d.open[p.Name] = d.openShard(p, demand)
	return d.open[p.Name]
}

func (d *decision) openShard(p *specs.Pool, demand bool) string {
	o := d.openings[p.Name]
	if o == nil {
		o = d.openingsOf(p)
		d.openings[p.Name] = o
	}
	room := &o.over
	if demand || len(o.over) == 0 {
		room = &o.under
	}
	if len(*room) > 0 {
		id := (*room)[0]
		*room = (*room)[1:]
		return id
	}
	for {
		o.last++
		if id := ShardID(p.Name, d.Digests[p.Name], o.last); d.shards[id] == 0 && !d.Busy[id] {
			return id
		}
	}
}

// openings are where the next guests of a pool can go, found once: a decision takes no guest out of a shard.
type openings struct {
	over, under []string // shards that are neither empty nor full: more than half full, and others; the fullest first
	last        int      // no shard up to this number is empty, or it is in use
}

func (d *decision) openingsOf(p *specs.Pool) *openings {
	var room []string
	for n := 1; n <= p.Max+len(d.Busy)+1; n++ {
		id := ShardID(p.Name, d.Digests[p.Name], n)
		if guests := d.shards[id]; guests > 0 && guests < p.ShardSize && !d.Busy[id] {
			room = append(room, id)
		}
	}
	slices.SortStableFunc(room, func(a, b string) int { return cmp.Compare(d.shards[b], d.shards[a]) })
	half, _ := slices.BinarySearchFunc(room, p.ShardSize/2, func(id string, most int) int { return cmp.Compare(most, d.shards[id]) })
	return &openings{over: room[:half], under: room[half:]}
}

// ShardID names the nth shard of a pool's digest.
func ShardID(pool, digest string, n int) string { return shardStem(pool, digest) + strconv.Itoa(n) }

func shardStem(pool, digest string) string { return fmt.Sprintf("%s-%.8s-", pool, digest) }

// makeRoom retires an idle guest that another cache keeps beyond its warm, when a request waits for a pool at its max.
func (d *decision) makeRoom(c *cacheView, pools []string) {
	if c.room() <= 0 {
		d.makePlace(c, pools)
		return
	}
	for _, name := range pools {
		p := d.pool(name)
		if !d.makes(name) || p.taken != p.spec.Max {
			continue
		}
		if p.retiring > 0 { // its slot is this request's
			p.retiring--
			return
		}
		for _, other := range d.order {
			i := lastIndex(other.shelf, func(g onShelf) bool { return g.Pool == name })
			if other != c && i >= 0 && (other.spec == nil || other.supply() > other.spec.Warm) {
				d.retire(other, i, "excess")
				p.retiring--
				return
			}
		}
	}
}

// makePlace retires an idle guest of the cache itself that cannot serve a request, when the cache is at its max.
func (d *decision) makePlace(c *cacheView, pools []string) {
	if c.taken > c.spec.Max || !slices.ContainsFunc(pools, d.makes) {
		return
	}
	if c.leaving > 0 { // its place is this request's
		c.leaving--
		return
	}
	i := lastIndex(c.shelf, func(g onShelf) bool { return !slices.Contains(pools, g.Pool) && !d.Paused[g.Pool] })
	if i >= 0 {
		d.retire(c, i, "excess")
		c.leaving--
	}
}

func lastIndex(guests []onShelf, match func(onShelf) bool) int {
	for i, guest := range slices.Backward(guests) {
		if match(guest) {
			return i
		}
	}
	return -1
}

// retire takes the ith guest off the view of a shelf.
func (d *decision) retire(c *cacheView, i int, reason string) {
	g := c.shelf[i]
	c.shelf = slices.Delete(c.shelf, i, i+1)
	c.leaving++
	d.pool(g.Pool).retiring++
	d.do(Action{Verb: Retire, Pool: g.Pool, Cache: c.name, Shard: g.Shard, Guest: *g.Guest, Reason: reason})
}

// warmUp keeps warm guests shelved ahead of demand.
func (d *decision) warmUp(c *cacheView) {
	if !d.serves(c) {
		return
	}
	for c.supply() < c.spec.Warm && d.obtain(c, c.spec.Pools, false) {
		c.added++
	}
}

// retireBroken takes away the tainted and failed guests that nobody needs replaced, and those that cannot be replaced in
// place because their shard is of an old digest.
func (d *decision) retireBroken(c *cacheView) {
	wanted := 0
	if d.serves(c) {
		wanted = c.unmet + c.spec.Warm - c.supply()
	}
	for _, g := range c.broken {
		stale := d.stale(g)
		switch {
		case d.Paused[g.Pool], d.Stalled[g.Shard], !d.due(g): // its slot stays taken, or the next would be tried without a pause
		case wanted > 0 && (stale == "" || stale == "age"):
			wanted-- // it waits for its shard, its next try or its pool
		default:
			d.pool(g.Pool).retiring++
			d.do(Action{Verb: Retire, Pool: g.Pool, Cache: c.name, Shard: g.Shard, Guest: *g, Reason: g.Reason})
		}
	}
}

// countMissing books what a cache lacks until those that are pending or failing have come up: a rollout may be why, and the pace
// of a pool is for all of its caches together. What is pending may have come in the place of a guest of any pool of the cache;
// what fails may do so for days, and counts for its own pool only. Where there is room the new come before the old go, and
// leases or failures are why: a busy or a broken cache must not stop the others for ever.
func (d *decision) countMissing(c *cacheView) {
	if !d.serves(c) {
		return
	}
	failing := map[string]int{}
	if !d.hasRoom(c) {
		failing = d.rolledOut(c)
	} else if c.leases {
		return
	}
	lack := max(0, c.spec.Warm-len(c.shelf))
	for _, name := range c.spec.Pools {
		d.pool(name).missing += min(lack, c.pending+failing[name])
	}
}

// hasRoom tells that a cache and one of its pools have room for one guest more.
func (d *decision) hasRoom(c *cacheView) bool {
	return c.room() > 0 && slices.ContainsFunc(c.spec.Pools, func(p string) bool { return d.pool(p).room() > 0 })
}

// rolledOut counts by pool the failing guests that may have come in the place of stale ones: their cache has others of these, or
// nothing of their digest has come up anywhere yet. Else the cache is broken, and no rollout is why.
func (d *decision) rolledOut(c *cacheView) map[string]int {
	n := map[string]int{}
	for _, g := range c.failing {
		if c.stale || g.Digest == d.Digests[g.Pool] && !d.pool(g.Pool).proven {
			n[g.Pool]++
		}
	}
	return n
}

// inTurn orders the caches for a rollout: that with the oldest stale guest comes first, so that none waits for ever while those
// of another grow too old again.
func (d *decision) inTurn() []*cacheView {
	first := map[*cacheView]time.Time{}
	for _, c := range d.order {
		for _, g := range c.shelf {
			if at, known := first[c]; g.stale != "" && (!known || g.Born.Before(at)) {
				first[c] = g.Born
			}
		}
	}
	order := slices.DeleteFunc(slices.Clone(d.order), func(c *cacheView) bool { _, stale := first[c]; return !stale })
	slices.SortStableFunc(order, func(a, b *cacheView) int { return first[a].Compare(first[b]) })
	return order
}

// rollOut replaces stale idle guests at their pools' pace: the new before the old while max allows, else the old first, but
// never the last one of a cache that keeps more than one warm.
func (d *decision) rollOut(c *cacheView) {
	floor, serves := 0, d.serves(c)
	if serves {
		floor = d.surge(c)
	}
	for len(c.shelf) > floor {
		i := lastIndex(c.shelf, func(g onShelf) bool {
			return g.stale != "" && !d.Paused[g.Pool] && (!serves || d.mayGo(c, g.Pool))
		})
		if i < 0 {
			return
		}
		if serves {
			d.pool(c.shelf[i].Pool).leaving++
		}
		d.retire(c, i, c.shelf[i].stale)
	}
}

// mayGo tells that the pace of a pool lets one more stale guest of a cache go.
func (d *decision) mayGo(c *cacheView, pool string) bool {
	if len(c.shelf) > c.spec.Warm {
		return d.pool(pool).beside() > 0
	}
	return d.pool(pool).left() > 0
}

// surge makes new guests beside the stale ones, and returns how many of the shelf must stay for now.
func (d *decision) surge(c *cacheView) (floor int) {
	warm := c.spec.Warm
	fresh, going, pace := d.going(c)
	for n := min(going, warm-fresh) - c.making; n > 0 && d.provision(c, c.spec.Pools, false); n-- {
		c.added++
	}
	if c.making > 0 || fresh >= warm {
		return warm
	}
	if slices.ContainsFunc(c.spec.Pools, func(p string) bool { return d.Paused[p] || d.Backoff[p] }) {
		return warm // nothing would take their place
	}
	return max(warm-pace, min(1, warm-1))
}

// going counts the guests of a shelf that are not stale, and those that their pools' paces let go once new ones are there, whatever
// other caches lack; pace is the widest of those that may go before.
func (d *decision) going(c *cacheView) (fresh, going, pace int) {
	of := map[string]int{}
	for _, g := range c.shelf {
		p := d.pool(g.Pool)
		most := p.pace()
		if len(c.shelf) > c.spec.Warm {
			most = p.beside() // what is there beyond warm goes first
		}
		switch {
		case g.stale == "":
			fresh++
		case of[g.Pool] < most && !d.Paused[g.Pool]:
			of[g.Pool]++
			going++
			if p.left() > 0 {
				pace = max(pace, p.pace())
			}
		}
	}
	return fresh, going, pace
}

// retireExcess brings a shelf down to its size.
func (d *decision) retireExcess(c *cacheView) {
	if c.spec == nil {
		return
	}
	for len(c.shelf) > c.spec.Size {
		i := lastIndex(c.shelf, func(g onShelf) bool { return !d.Paused[g.Pool] })
		if i < 0 {
			return
		}
		d.retire(c, i, "excess")
	}
}

// shrink retires idle guests of a pool that has more than its max, because the spec has lowered it.
func (d *decision) shrink(p *poolView) {
	if p.spec == nil || d.Paused[p.name] {
		return
	}
	for over := p.taken - p.retiring - p.spec.Max; over > 0; over-- {
		c, i := d.leastWanted(p.name)
		if c == nil {
			return
		}
		d.retire(c, i, "excess")
	}
}

// leastWanted finds an idle guest of a pool in the cache that is furthest above its warm.
func (d *decision) leastWanted(pool string) (best *cacheView, at int) {
	most := 0
	for _, c := range d.order {
		i := lastIndex(c.shelf, func(g onShelf) bool { return g.Pool == pool })
		surplus := c.supply()
		if c.spec != nil {
			surplus -= c.spec.Warm
		}
		if i >= 0 && (best == nil || surplus > most) {
			best, at, most = c, i, surplus
		}
	}
	return best, at
}
