package watchdog

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"greenroom/lease"
	"greenroom/specs"
)

// check is one probe of one guest: what was seen, and when to look again.
type check struct {
	guest   *guest
	spec    *specs.Probe
	history History
	verdict Verdict
	last    Result
	ok      bool // the last result was OK

	due    time.Time
	place  int  // in the timetable, from 1; 0 when it is not there
	flying bool // waits for a worker or is with one
	called int  // number of the last roll call that asked it
	asked  int  // number of the roll call during which its probe began
}

// guest is a guest under watch.
type guest struct {
	memory
	pool     *pool
	checks   []*check
	since    time.Time // when the watchdog first saw it in its state
	vanished string    // evidence of the provider having taken it away
	acting   bool      // a call on the store about it is under way
	gone     bool      // it is watched no more
	tried    time.Time // when such a call failed; zero: forgotten
	read     int       // number of the last reading that found it
	census   census    // what it adds to its pool's
}

// memory is what is remembered of a guest, a part of what the store says: there may be 100 000.
type memory struct {
	Name, Pool, Cache   string
	State               lease.State
	Incarnation, Port   int32
	Since               time.Time
	Host, User, HostKey string
	Lease, Reason       string
	Health              string
}

func remember(g lease.Guest) memory {
	return memory{g.Name, g.Pool, g.Cache, g.State, int32(g.Incarnation), int32(g.Port), g.Since, g.Host, g.User, g.HostKey, g.Lease, g.Reason, g.Health}
}

// Guest is the guest for those who ask it, or order something about it.
func (m memory) Guest() lease.Guest {
	return lease.Guest{
		Name: m.Name, Pool: m.Pool, Cache: m.Cache, State: m.State, Incarnation: int(m.Incarnation), Port: int(m.Port), Since: m.Since,
		Host: m.Host, User: m.User, HostKey: m.HostKey, Lease: m.Lease, Reason: m.Reason, Health: m.Health,
	}
}

// census counts the guests of a pool for its brake.
type census struct{ total, unhealthy int }

// order is something to be done in the store. Orders are the only effects of a pool.
type order struct {
	guest  *guest
	boot   bool         // it has answered for the first time
	taint  *lease.Taint // replace it
	health *string      // tell its holder
}

// pool watches the guests of one pool. It does no I/O and reads no clock: it is fed with guests and results, and answers
// with orders.
//
// # Roll call
//
// Guests that die together are found dead one after another, because their probes have different phases. So the first
// dead one is not tainted at once: every other guest of the pool that is shelved or leased is probed again, and only when all
// have answered, with probes begun after the verdict, the brake is evaluated and the dead are tainted, all of them or none.
// While the brake holds, ordinary results keep the census, and when it lets go, a new roll call comes before the first taint.
type pool struct {
	name    string
	probes  []specs.Probe
	brake   float64
	patrol  *timetable
	rand    func() float64
	boot    time.Duration
	guests  map[string]*guest
	dead    map[*guest]struct{} // to be tainted when roll call and brake allow
	census  census
	held    bool
	calling bool
	calls   int    // roll calls so far
	waiting int    // checks that have not answered the present one
	shown   string // the condition as it was last made known
}

func newPool(name string, patrol *timetable, o Options) *pool {
	return &pool{name: name, patrol: patrol, rand: o.Rand, boot: o.BootDeadline, guests: map[string]*guest{}, dead: map[*guest]struct{}{}}
}

// tainted for what the watchdog saw: such a guest counts as unhealthy until its replacement is under way, or a pool that
// loses one guest after another would never brake.
func condemned(state lease.State, reason string) bool {
	return state == lease.Tainted && (reason == reasonDead || reason == reasonVanished)
}

func watched(g lease.Guest) bool {
	switch g.State {
	case lease.Booting, lease.Preparing, lease.Shelved, lease.Leased, lease.Resetting:
		return true
	}
	return condemned(g.State, g.Reason)
}

func probed(s lease.State) bool { return s == lease.Booting || member(s) }

// member tells whether guests in that state answer roll calls.
func member(s lease.State) bool { return s == lease.Shelved || s == lease.Leased }

// configure brings settings into force. Other probes mean other histories.
func (p *pool) configure(probes []specs.Probe, brake float64, now time.Time) {
	p.brake = brake
	if slices.EqualFunc(p.probes, probes, sameProbe) {
		return
	}
	p.probes = probes
	for _, g := range slices.Collect(maps.Values(p.guests)) {
		again := g.Guest()
		vanished := g.vanished
		p.drop(g)
		p.update(now, again, false)
		p.guests[again.Name].vanished = vanished
		p.recount(p.guests[again.Name])
	}
}

func sameProbe(a, b specs.Probe) bool {
	return a.Kind == b.Kind && a.Every == b.Every && a.Timeout == b.Timeout && a.Failures == b.Failures && a.Port == b.Port &&
		a.Path == b.Path && slices.Equal(a.Command, b.Command)
}

// update takes in what the store says of a guest. scripted tells that its cache runs a script between leases.
func (p *pool) update(now time.Time, next lease.Guest, scripted bool) {
	g := p.guests[next.Name]
	if g != nil && (!watched(next) || !sameMachine(g.memory, next)) {
		p.drop(g)
		g = nil
	}
	if !watched(next) {
		return
	}
	if g == nil {
		p.add(next, now)
		return
	}
	before := g.State
	g.memory = remember(next)
	if before != next.State {
		p.moved(g, before, scripted, now)
	}
	p.recount(g)
}

func sameMachine(a memory, b lease.Guest) bool {
	return int(a.Incarnation) == b.Incarnation && a.Host == b.Host && int(a.Port) == b.Port && a.User == b.User && a.HostKey == b.HostKey
}

func (p *pool) add(next lease.Guest, now time.Time) {
	g := &guest{memory: remember(next), pool: p, since: now}
	for i := range p.probes {
		g.checks = append(g.checks, &check{guest: g, spec: &p.probes[i]})
	}
	p.guests[g.Name] = g
	p.arrange(g, now)
	p.recount(g)
}

// moved adapts to a new state. Where a script has run, the guest has proven itself and starts with a clean history; from
// the shelf into a lease and back it keeps it.
func (p *pool) moved(g *guest, before lease.State, scripted bool, now time.Time) {
	g.since = now
	if !(member(before) && member(g.State)) || before == lease.Leased && scripted {
		for _, c := range g.checks {
			c.history, c.verdict, c.ok = History{}, Alive, false
		}
	}
	if !member(g.State) {
		p.excuse(g)
	}
	if !(member(before) && member(g.State)) {
		p.arrange(g, now)
	}
}

// arrange puts a guest's checks where its state wants them: at once while it boots, else spread over the interval.
func (p *pool) arrange(g *guest, now time.Time) {
	for _, c := range g.checks {
		switch {
		case !probed(g.State):
			p.patrol.remove(c)
		case g.State == lease.Booting:
			p.patrol.set(c, now)
		default:
			p.patrol.set(c, now.Add(time.Duration(p.rand()*float64(c.spec.Every))))
		}
	}
}

func (p *pool) drop(g *guest) {
	g.gone = true
	p.excuse(g)
	for _, c := range g.checks {
		p.patrol.remove(c)
	}
	delete(p.guests, g.Name)
	p.recount(g)
}

// excuse takes a guest out of a roll call.
func (p *pool) excuse(g *guest) {
	for _, c := range g.checks {
		if p.calling && c.called == p.calls {
			c.called = 0
			p.waiting--
		}
	}
}

// recount brings the census and the set of the dead up to date with one guest.
func (p *pool) recount(g *guest) {
	p.census.total -= g.census.total
	p.census.unhealthy -= g.census.unhealthy
	g.census = g.count()
	p.census.total += g.census.total
	p.census.unhealthy += g.census.unhealthy
	if _, dead := g.condemn(); dead {
		p.dead[g] = struct{}{}
	} else {
		delete(p.dead, g)
	}
}

func (g *guest) count() census {
	switch {
	case g.gone || !member(g.State) && g.vanished == "" && !condemned(g.State, g.Reason):
		return census{}
	case g.vanished != "" || condemned(g.State, g.Reason) || g.verdict() != Alive || g.blind():
		return census{total: 1, unhealthy: 1}
	}
	return census{total: 1}
}

// verdict is the worst of the guest's checks'.
func (g *guest) verdict() Verdict {
	worst := Alive
	for _, c := range g.checks {
		worst = max(worst, c.verdict)
	}
	return worst
}

// blind tells that the last probe of a kind could not be made. It counts as unhealthy for the brake, never for the verdict.
func (g *guest) blind() bool {
	return slices.ContainsFunc(g.checks, func(c *check) bool { return c.history.Blind })
}

// nobodys are the states in which a guest that its provider took away may be tainted: nobody has it, and nobody keeps it aside.
var nobodys = []lease.State{lease.Shelved, lease.Booting, lease.Preparing, lease.Resetting}

// condemn says why the guest is to be tainted, if it is.
func (g *guest) condemn() (lease.Taint, bool) {
	switch {
	case g.gone || g.acting || !g.tried.IsZero():
	case g.vanished != "" && slices.Contains(nobodys, g.State):
		return lease.Taint{Reason: reasonVanished, Evidence: g.vanished, Death: true, From: nobodys}, true
	case g.State == lease.Shelved && g.verdict() == Dead && !g.blind():
		return lease.Taint{Reason: reasonDead, Evidence: g.evidence(), Death: true, From: []lease.State{lease.Shelved}}, true
	}
	return lease.Taint{}, false
}

func (g *guest) evidence() string {
	var all []string
	for _, c := range g.checks {
		if e := c.history.Evidence(); e != "" {
			all = append(all, e)
		}
	}
	return strings.Join(all, "\n")
}

// answer takes in a result and arranges the next probe.
func (p *pool) answer(c *check, r Result, now time.Time) []order {
	c.flying = false
	g := c.guest
	if g.gone || !probed(g.State) {
		return nil
	}
	c.history, c.verdict = Judge(c.history, r, *c.spec)
	c.last = r
	c.ok = r.Outcome == OK
	if now.Sub(g.tried) >= c.spec.Every/2 {
		g.tried = time.Time{}
	}
	p.recount(g)
	if p.calling && c.called == p.calls && c.asked == p.calls {
		c.called = 0
		p.waiting--
	}
	p.patrol.set(c, p.next(c, r, now))
	switch g.State {
	case lease.Booting:
		return p.booting(g, r, now)
	case lease.Leased:
		return g.tell(r)
	}
	return nil
}

const firstBootProbe = 100 * time.Millisecond

// next is when to probe again: soon while a guest boots, later the longer it takes; at the pace of the spec afterwards,
// with a tenth of jitter to either side.
func (p *pool) next(c *check, r Result, now time.Time) time.Time {
	switch {
	case p.calling && c.called == p.calls:
		return now
	case c.guest.State == lease.Booting:
		return now.Add(max(firstBootProbe, min(now.Sub(c.guest.since)/4, c.spec.Every)))
	}
	at := r.At.Add(time.Duration((0.9 + 0.2*p.rand()) * float64(c.spec.Every)))
	if at.Before(now) {
		return now
	}
	return at
}

// booting decides on a guest that has not been seen alive before. The brake is not asked about a guest that never came up:
// it serves nobody, and if it were kept, a bad image could not be replaced by a good one.
func (p *pool) booting(g *guest, r Result, now time.Time) []order {
	switch {
	case g.acting:
	case !slices.ContainsFunc(g.checks, func(c *check) bool { return !c.ok }):
		return g.order(order{boot: true})
	case r.Outcome == Failed && g.verdict() == Dead && now.Sub(g.since) >= p.boot: // not after one failed probe, however long nobody could ask
		evidence := fmt.Sprintf("not one good answer in %v\n%s", p.boot, g.evidence())
		return g.order(order{taint: &lease.Taint{Reason: reasonBoot, Evidence: evidence, Death: true, From: []lease.State{lease.Booting}}})
	}
	return nil
}

// rest ends what order began.
func (g *guest) rest() {
	g.acting = false
	g.pool.recount(g)
}

func (g *guest) order(o order) []order {
	g.acting = true
	g.pool.recount(g)
	o.guest = g
	return []order{o}
}

// tell lets the holder of a leased guest know when the verdict changes; more than that is not done to it.
func (g *guest) tell(r Result) []order {
	v := g.verdict()
	health := ""
	if v != Alive {
		health = fmt.Sprintf("%s: %s", v, r)
	}
	if g.vanished != "" {
		v, health = Dead, Dead.String()+": "+g.vanished
	}
	told, _, _ := strings.Cut(g.Health, ":")
	if g.acting || r.Outcome == Unknown || told == v.String() || told == "" && v == Alive {
		return nil
	}
	return g.order(order{health: &health})
}

// settle decides about the dead: see Roll call.
func (p *pool) settle(now time.Time) []order {
	p.held = p.held && p.braking()
	if len(p.dead) == 0 || p.held {
		p.calling = false
		return nil
	}
	if p.held = p.braking(); p.held {
		p.calling = false
		return nil
	}
	if !p.calling {
		p.call(now)
	}
	if p.waiting > 0 {
		return nil
	}
	p.calling = false
	var orders []order
	for g := range p.dead {
		taint, _ := g.condemn()
		orders = append(orders, g.order(order{taint: &taint})...)
	}
	return orders
}

func (p *pool) braking() bool { return Brake(p.census.unhealthy, p.census.total, p.brake, p.held) }

// call begins a roll call: every check of a shelved or leased guest must answer with a probe that begins from now on.
func (p *pool) call(now time.Time) {
	p.calling, p.waiting = true, 0
	p.calls++
	for _, g := range p.guests {
		for _, c := range g.checks {
			if member(g.State) {
				c.called = p.calls
				p.waiting++
				p.patrol.set(c, now)
			}
		}
	}
}

// condition says why nobody is tainted; empty when the brake is off.
func (p *pool) condition() string {
	if !p.held {
		return ""
	}
	_, release := brakeLimits(p.census.total, p.brake)
	return fmt.Sprintf("%d of %d guests are unhealthy, more than %.3g%%: nobody is tainted until at most %d are",
		p.census.unhealthy, p.census.total, 100*p.brake, release)
}
