package watchdog

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"greenroom/lease"
	"greenroom/specs"
)

// world is a pool and the truth about its guests. Time passes only in it.
type world struct {
	*rapid.T
	pool    *pool
	table   timetable
	now     time.Time
	guests  map[string]lease.Guest
	died    map[string]int // those that are dead now, and before which event they died
	events  int
	called  int // event at which the last roll call began
	calls   int
	flights []flight // probes under way
}

type flight struct {
	check  *check
	result Result
}

func newWorld(t *rapid.T) *world {
	w := &world{T: t, now: epoch, guests: map[string]lease.Guest{}, died: map[string]int{}}
	jitter := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
	w.pool = newPool("p", &w.table, Options{Rand: jitter.Float64, BootDeadline: time.Minute})
	s := specs.Probe{Kind: "ssh", Every: time.Second, Timeout: time.Second, Failures: rapid.IntRange(1, 3).Draw(t, "failures")}
	w.pool.configure(slices.Repeat([]specs.Probe{s}, rapid.IntRange(1, 2).Draw(t, "probes")), 0.4, w.now)
	for i := range rapid.IntRange(1, 12).Draw(t, "guests") {
		g := lease.Guest{Name: lease.GuestName("p", i+1), Pool: "p", Incarnation: 1, State: lease.Shelved}
		w.set(g)
	}
	return w
}

func (w *world) set(g lease.Guest) {
	w.guests[g.Name] = g
	w.pool.update(w.now, g, false)
	w.obey(w.pool.settle(w.now))
}

func (w *world) move(g lease.Guest, to lease.State) {
	g.State = to
	w.set(g)
}

func (w *world) any(states ...lease.State) (lease.Guest, bool) {
	var names []string
	for name, g := range w.guests {
		if slices.Contains(states, g.State) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return lease.Guest{}, false
	}
	slices.Sort(names)
	return w.guests[rapid.SampledFrom(names).Draw(w.T, "guest")], true
}

// obey carries orders out as the store would, and checks that none breaks a promise.
func (w *world) obey(orders []order) {
	if w.pool.calls != w.calls {
		w.calls, w.called = w.pool.calls, w.events
	}
	// All taints of one settlement are decided on one census.
	stop, _ := brakeLimits(w.members(func(string) bool { return true }), 0.4)
	for _, o := range orders {
		g := w.guests[o.guest.Name]
		switch {
		case o.boot:
			w.move(g, lease.Shelved)
		case o.health != nil:
			g.Health = *o.health
			w.guests[g.Name] = g
			w.pool.update(w.now, g, false)
		case g.State != lease.Shelved:
			w.Fatalf("ordered to taint %s, which is %s", g.Name, g.State)
		default:
			long := w.members(func(name string) bool { died, dead := w.died[name]; return dead && died <= w.called })
			if long > stop {
				w.Fatalf("tainted while %d guests were dead since before the roll call, and %d may be", long, stop)
			}
		}
	}
	for _, o := range orders {
		if o.taint != nil {
			g := w.guests[o.guest.Name]
			g.State, g.Reason = lease.Tainted, o.taint.Reason
			w.guests[g.Name] = g
			o.guest.rest()
			w.pool.update(w.now, g, false)
		} else {
			o.guest.rest()
		}
	}
}

// members counts the guests that the census is about, of those that which names.
func (w *world) members(which func(string) bool) int {
	n := 0
	for name, g := range w.guests {
		if (member(g.State) || condemned(g.State, g.Reason)) && (which(name) || condemned(g.State, g.Reason)) {
			n++
		}
	}
	return n
}

// begin lets the next due probe begin. What it will have seen is decided now.
func (w *world) begin() {
	if next := w.table.next(); !next.IsZero() && next.After(w.now) {
		w.now = next
	}
	c := w.table.take(w.now)
	if c == nil {
		return
	}
	c.flying, c.asked = true, w.pool.calls
	r := Result{Kind: c.spec.Kind, At: w.now, Outcome: OK}
	if w.died[c.guest.Name] > 0 {
		r.Outcome = Failed
	}
	w.flights = append(w.flights, flight{c, r})
}

// land lets one of the probes under way end.
func (w *world) land(i int) {
	f := w.flights[i]
	w.flights = slices.Delete(w.flights, i, i+1)
	orders := w.pool.answer(f.check, f.result, w.now)
	w.obey(append(orders, w.pool.settle(w.now)...))
}

// pass lets time pass, with every probe ending at once.
func (w *world) pass(d time.Duration) {
	for end := w.now.Add(d); len(w.flights) > 0 || !w.table.next().IsZero() && w.table.next().Before(end); {
		if len(w.flights) == 0 {
			w.begin()
		}
		w.land(0)
	}
}

func (w *world) check() {
	var want census
	for _, g := range w.pool.guests {
		c := g.count()
		want.total += c.total
		want.unhealthy += c.unhealthy
	}
	if w.pool.census != want {
		w.Fatalf("the census is %+v, counted anew %+v", w.pool.census, want)
	}
	waiting := 0
	for _, g := range w.pool.guests {
		for _, c := range g.checks {
			if w.pool.calling && c.called == w.pool.calls {
				waiting++
				if !member(g.State) {
					w.Fatalf("the roll call waits for %s, which is %s", g.Name, g.State)
				}
			}
			if !c.flying && (c.place == 0) == probed(g.State) {
				w.Fatalf("%s is %s and its place in the timetable is %d", g.Name, g.State, c.place)
			}
		}
	}
	if w.pool.calling && waiting != w.pool.waiting {
		w.Fatalf("the roll call waits for %d, of whom %d are there", w.pool.waiting, waiting)
	}
}

// TestPoolKeepsItsPromises plays deaths, recoveries, leases and replacements in any order: no guest but a shelved one is
// tainted, none while more are dead than the brake allows, and in the end every dead one is, if they are few.
func TestPoolKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		t.Repeat(map[string]func(*rapid.T){
			"":       func(*rapid.T) { w.check() },
			"begin":  func(*rapid.T) { w.begin() },
			"second": func(*rapid.T) { w.pass(time.Second) },
			"land": func(t *rapid.T) {
				if n := len(w.flights); n > 0 {
					w.land(rapid.IntRange(0, n-1).Draw(t, "flight"))
				}
			},
			"die": func(t *rapid.T) {
				for range rapid.IntRange(1, 6).Draw(t, "dead") {
					if g, ok := w.any(lease.Shelved, lease.Leased); ok && w.died[g.Name] == 0 {
						w.die(g.Name)
					}
				}
			},
			"recover": func(*rapid.T) {
				if g, ok := w.any(lease.Shelved, lease.Leased); ok {
					delete(w.died, g.Name)
				}
			},
			"lease": func(*rapid.T) {
				if g, ok := w.any(lease.Shelved); ok {
					w.move(g, lease.Leased)
				}
			},
			"release": func(*rapid.T) {
				if g, ok := w.any(lease.Leased); ok {
					w.move(g, lease.Shelved)
				}
			},
			"reset": func(*rapid.T) {
				if g, ok := w.any(lease.Leased, lease.Resetting); ok {
					if g.State == lease.Resetting {
						delete(w.died, g.Name) // or the script would not have ended well
					}
					w.move(g, map[lease.State]lease.State{lease.Leased: lease.Resetting, lease.Resetting: lease.Shelved}[g.State])
				}
			},
			"replace": func(*rapid.T) { w.replace() },
		})
		w.endWell()
	})
}

func (w *world) die(name string) {
	w.events++
	w.died[name] = w.events
}

func (w *world) replace() bool {
	g, ok := w.any(lease.Tainted)
	if ok {
		delete(w.died, g.Name)
		w.set(lease.Guest{Name: g.Name, Pool: "p", Incarnation: g.Incarnation + 1, State: lease.Booting})
	}
	return ok
}

// endWell replaces what is tainted, leaves one shelved guest dead, and gives the pool time.
func (w *world) endWell() {
	clear(w.died)
	w.pass(time.Minute)
	for w.replace() {
	}
	w.pass(time.Minute)
	g, ok := w.any(lease.Shelved)
	if !ok {
		return
	}
	w.die(g.Name)
	w.pass(time.Minute)
	if now := w.guests[g.Name]; now.State != lease.Tainted {
		w.Fatalf("%s is dead and %s; held %v, census %+v", g.Name, now.State, w.pool.held, w.pool.census)
	}
}

func TestOneFailedProbeCondemnsNoBootingGuestThatNobodyCouldAskBefore(t *testing.T) {
	var table timetable
	p := newPool("p", &table, Options{Rand: func() float64 { return 0 }, BootDeadline: time.Minute})
	now := time.Unix(1_000_000, 0)
	p.configure([]specs.Probe{{Kind: "ssh", Every: time.Second, Timeout: time.Second, Failures: 3}}, 0.4, now)
	p.update(now, lease.Guest{Name: "p-1", Pool: "p", Incarnation: 1, State: lease.Booting}, false)
	c := p.guests["p-1"].checks[0]
	for range 61 {
		now = now.Add(time.Second)
		if o := p.answer(c, Result{Kind: "ssh", At: now, Outcome: Unknown}, now); len(o) > 0 {
			t.Fatalf("%+v", o)
		}
	}
	for n := 1; n <= 3; n++ {
		now = now.Add(time.Second)
		orders := p.answer(c, Result{Kind: "ssh", At: now, Outcome: Failed, Detail: "no route yet"}, now)
		if tainted := len(orders) == 1 && orders[0].taint != nil; tainted != (n == 3) {
			t.Errorf("after failure %d: %+v", n, orders)
		}
	}
}
