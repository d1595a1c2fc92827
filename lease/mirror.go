package lease

import (
	"crypto/rand"
	"strings"
	"sync"
	"time"
)

const (
	mirrorFrom  = 2           // turns that go together are worth a mirror
	mirrorTop   = 100         // most guests of a pool that it begins with
	mirrorMost  = 5000        // most leases that it keeps; then it is made anew
	mirrorStays = time.Minute // after its last use
)

// mirror is what a server knows of a cache's shelf: the guests on top of it, and leases of guests from there. While nothing but turns
// happens in the cache, the server decides those by it, and the store only writes them down, at a third of the cost. The
// store has the version of the mirror that is true. A script that changes anything else takes that away, and then what was
// decided is not written, but left to the scripts.
type mirror struct {
	version string
	mu      sync.Mutex // of what follows
	batches int        // that were decided by it
	uses    int        // most of a guest; 0: any number
	age     time.Duration
	size    int
	shelved int // guests on the shelf
	tops    map[string]*top
	leases  map[string]*reflection
	again   map[string]bool // ids of leases that were asked for again
	used    time.Time
	dead    bool // it was void, or a batch may still come

	args []any // of the batch at hand, and what it records: the next one has their room
	text lines
}

// top is the upper end of a pool's part of a shelf.
type top struct {
	guests []*reflection // the last is leased first
	back   []*reflection // given back in the batch at hand, and leased before them
	below  int           // guests under them
}

// reflection is a guest as the mirror shows it, shelved or leased.
type reflection struct {
	shown Guest // to its holder; never changed
	pool  string
	uses  int
	born  time.Time
	lease Lease   // granted at the zero time: nobody knows yet whether it began
	head  *string // of the last lease on it; see under

	ends, begins *turning // in the batch at hand
}

// turning is a call that a mirror may decide: for a lease to begin, or to end with its guest back on the shelf.
type turning struct {
	call
	id    string
	lease Lease       // what is asked for; then what has come of it
	guest *reflection // of a mirror that decided it

	wish    string // of what begins; see lease_of in lib.lua
	longest time.Duration
	wait    int64  // ms
	line    int    // most in the queue
	spares  string // the pool whose spares it asks for

	ttl, most int64 // ms; see turns.lua

	caller  Caller
	ends    bool
	outcome string
	hold    time.Duration
	discard bool
}

// plain are the arguments of the call for the scripts; see acquire.lua and release.lua.
func (t *turning) plain() []any {
	if t.ends {
		return append(t.caller.on(t.id), t.outcome, t.hold.Milliseconds(), flag(!t.discard), escape(t.caller.Name), Released)
	}
	return []any{t.wish, escape(t.lease.Owner), t.wait, t.line, t.spares}
}

// turns are what a mirror has decided of a batch.
type turns struct {
	call  // that writes them down
	calls []*call
	rows  []*reflection // guests of which it tells
	back  []*reflection // guests that are on the shelf then
}

// decide decides the turns of a batch. It returns them, nil where there are none, and the calls that it can't decide: the scripts must.
func (m *mirror) decide(batch []*call, now time.Time) (decided *turns, rest []*call) {
	if m == nil {
		return nil, batch
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return nil, batch
	}
	t := &turns{calls: make([]*call, 0, len(batch)), rows: make([]*reflection, 0, len(batch))}
	for _, ends := range []bool{true, false} { // what ends goes to who comes next
		for _, c := range batch {
			if c.turning != nil && c.turning.ends == ends && m.turn(t, c.turning, now) {
				t.calls = append(t.calls, c)
			}
		}
	}
	for _, c := range batch {
		if c.turning == nil || c.turning.guest == nil {
			rest = append(rest, c)
		}
	}
	for _, top := range m.tops {
		t.back, top.back = append(t.back, top.back...), nil
	}
	if len(t.calls) == 0 {
		return nil, rest
	}
	m.write(t)
	m.used = time.Now()
	m.batches++
	return t, rest
}

// turn decides one call, if it can.
func (m *mirror) turn(of *turns, t *turning, now time.Time) bool {
	if t.ends && m.end(t, now) {
		of.rows = append(of.rows, t.guest)
	} else if !t.ends && m.begin(t) && t.guest.ends == nil {
		of.rows = append(of.rows, t.guest)
	}
	return t.guest != nil
}

func (m *mirror) begin(t *turning) bool {
	l := &t.lease
	if m.leases[t.id] != nil || m.again[t.id] {
		return false // it was sent twice
	}
	g := m.take(t)
	if g == nil {
		return false
	}
	g.uses++
	l.Guest, l.Incarnation, l.Source = g.shown.Name, g.shown.Incarnation, "shelf"
	if g.pool == t.spares {
		l.Source = "spare"
	}
	t.guest, g.lease, g.begins, m.leases[t.id] = g, *l, t, g
	return true
}

// write makes the call of turns; see turns.lua.
func (m *mirror) write(t *turns) {
	args, text := append(m.args[:0], &m.version), m.text[:0]
	for _, g := range t.rows { // pointers, because to put each text into an interface would take an allocation
		begins := len(text)
		args = append(args, &g.shown.Name, &g.pool, &g.uses)
		if e := g.ends; e != nil {
			args = append(args, &e.id, g.under(e), &e.outcome)
			text = g.event(text, Leased, Shelved, e, ended(Released, e.outcome))
		} else {
			args = append(args, "", "", "")
		}
		if b := g.begins; b != nil {
			if g.ends != nil {
				text = append(text, '\n')
			}
			b.ttl, b.most = min(b.lease.TTL, b.longest).Milliseconds(), b.longest.Milliseconds()
			args = append(args, &b.id, g.under(b), &b.ttl, &b.most, &b.lease.Source, &b.wish)
			text = g.event(text, Shelved, Leased, b, "")
		} else {
			args = append(args, "", "", "", "", "", "")
		}
		args = append(args, []byte(text[begins:len(text):len(text)]))
		g.ends, g.begins = nil, nil
	}
	t.name, t.args, m.args, m.text = "turns", args, args, text
}

// ended is how a lease ended, for the history of its guest; see how_it_ended in lib.lua.
func ended(how, outcome string) string {
	if outcome == "" {
		return how
	}
	return how + ": " + outcome
}

// under is the head of the text of a lease on the guest; see running_text in core.lua.
func (g *reflection) under(t *turning) *string {
	if owner := escape(t.lease.Owner); g.head == nil || !strings.HasPrefix((*g.head)[len(noEnd):], owner+"\n") {
		head := string(append(make(lines, 0, 64), noEnd...).line(t.lease.Owner).line(g.shown.Name).number(int64(g.shown.Incarnation)))
		g.head = &head
	}
	return g.head
}

// noEnd is how a lease begins that is not over.
const noEnd = "active\n\n\n\n"

// event adds an entry of the guest's history; see history in lib.lua.
func (g *reflection) event(text lines, from, to State, t *turning, detail string) lines {
	text = text.number(int64(g.shown.Incarnation)).line(string(from)).line(string(to)).line(t.caller.Name).line(t.id).line("")
	return append(text, detail...)
}

// take takes a guest of the first pool that has one; nil: none is known.
func (m *mirror) take(t *turning) (g *reflection) {
	for _, pool := range t.lease.Pools {
		top := m.tops[pool]
		switch {
		case top == nil:
			return nil
		case len(top.back) > 0:
			g, top.back = pop(top.back)
			return g
		case len(top.guests) > 0:
			g, top.guests = pop(top.guests)
			return g
		case top.below > 0:
			return nil
		}
	}
	return nil
}

func pop(guests []*reflection) (last *reflection, rest []*reflection) {
	n := len(guests) - 1
	return guests[n], guests[:n]
}

func (m *mirror) end(t *turning, now time.Time) bool {
	g := m.leases[t.id]
	switch {
	case g == nil, g.lease.Granted.IsZero(), !t.caller.runs(g.lease.Owner), !t.plainly(),
		m.uses > 0 && g.uses >= m.uses,
		m.age > 0 && now.Sub(g.born) >= m.age,
		m.shelved >= m.size:
		return false
	}
	delete(m.leases, t.id)
	t.guest, t.lease, g.lease, g.ends = g, g.lease, Lease{}, t
	t.lease.Phase, t.lease.How, t.lease.Outcome, t.lease.Deadline = Ended, Released, t.outcome, time.Time{}
	top := m.tops[g.pool]
	top.back = append(top.back, g)
	m.shelved++
	return true
}

// settle notes what came of turns. It returns the calls that are done, or have failed, and those that are not: the mirror was void.
func (m *mirror) settle(t *turns) (done, undone []*call) {
	if t == nil {
		return nil, nil
	}
	if m.mu.Lock(); t.err != nil || t.void() {
		m.dead = true
	}
	defer m.mu.Unlock()
	clear(m.args) // they point to leases that are over soon
	if t.void() {
		for _, c := range t.calls {
			c.turning.guest = nil
		}
		return nil, t.calls
	}
	for _, c := range t.calls {
		if c.err = t.err; c.err == nil {
			m.written(c.turning, ms(t.reply[1]))
		}
	}
	if t.err == nil {
		for _, g := range t.back {
			m.tops[g.pool].guests = append(m.tops[g.pool].guests, g)
		}
	}
	return t.calls, nil
}

// changes are those that the turns were, which nobody changes any more; none: they failed.
func (t *turns) changes() []Change {
	if t == nil || t.err != nil || t.void() {
		return nil
	}
	changes := make([]Change, len(t.calls))
	for i, c := range t.calls {
		l := &c.turning.lease
		changes[i] = Change{Kind: Granted, Cache: l.Cache, Guest: l.Guest, Lease: l}
		if c.turning.ends {
			changes[i].Kind, changes[i].State = LeaseEnded, Shelved
		}
	}
	return changes
}

func (t *turns) void() bool { return t.err == nil && text(t.reply[0]) == "stale" }

// written fills in when a turn was, which is on record now.
func (m *mirror) written(t *turning, now time.Time) {
	l := &t.lease
	if t.ends {
		l.EndedAt = now
		return
	}
	l.Created, l.Granted, l.Cap, l.Deadline = now, now, now.Add(t.longest), now.Add(min(l.TTL, t.longest))
	t.guest.lease = *l
	l.Leased = &t.guest.shown
	m.shelved--
}

// look is the call that tells of leases that are to end and that the mirror does not know. It returns their calls, and the others.
func (m *mirror) look(rest []*call) (look *call, unknown, others []*call) {
	if m == nil {
		return nil, nil, rest
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	look = &call{name: "known", args: []any{m.version}}
	for _, c := range rest {
		if t := c.turning; t != nil && t.plainly() && m.leases[t.id] == nil && !m.dead {
			look.args, unknown = append(look.args, t.id), append(unknown, c)
		} else {
			others = append(others, c)
		}
	}
	if unknown == nil {
		return nil, nil, rest
	}
	return look, unknown, others
}

// plainly says that a lease is to end with nothing but a turn.
func (t *turning) plainly() bool { return t.ends && t.hold == 0 && !t.discard }

// learn takes in what look has brought.
func (m *mirror) learn(look *call, cache string) {
	if look == nil || look.err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range look.reply[1:] {
		of, _ := v.([]any)
		if len(of) <= rowSize {
			continue
		}
		g := readReflection(of[1:])
		if g.lease = readLease(text(of[0]), cache); g.lease.ID != "" && m.tops[g.pool] != nil && m.leases[g.lease.ID] == nil {
			m.leases[g.lease.ID] = g
		}
	}
}

// ask is the call that makes the next mirror.
func (m *mirror) ask(batch int) *call {
	version := ""
	if m != nil {
		version = m.version
	}
	return &call{name: "mirror", args: []any{rand.Text(), version, min(mirrorTop, 2*batch)}}
}

// next is the mirror for the next batch; nil: there is none. Keys that were sent again it leaves to the scripts.
func (m *mirror) next(ask *call, rest []*call) *mirror {
	switch {
	case ask == nil, ask.err == nil && text(ask.reply[0]) == "kept":
		if m.spent() {
			return nil
		}
		return m
	case ask.err != nil || text(ask.reply[0]) != "ok" || len(ask.reply) < 5:
		return nil
	}
	m = readMirror(text(ask.args[0]), ask.reply)
	for _, c := range rest {
		if c.name == "acquire" && c.err == nil && text(c.reply[0]) == "ok" {
			m.again[c.turning.id] = true
		}
	}
	return m
}

// spent says that a mirror is of no use any more.
func (m *mirror) spent() bool {
	if m == nil {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead || len(m.leases) > mirrorMost
}

// readMirror reads what mirror.lua tells.
func readMirror(version string, reply []any) *mirror {
	m := &mirror{
		version: version, uses: int(number(reply[1])), age: time.Duration(number(reply[2])) * time.Millisecond, size: int(number(reply[3])),
		tops: map[string]*top{}, leases: map[string]*reflection{}, again: map[string]bool{}, used: time.Now(),
	}
	tops, _ := reply[4].([]any)
	for _, v := range tops {
		of, _ := v.([]any)
		t := &top{}
		for rows := of[2:]; len(rows) >= rowSize; rows = rows[rowSize:] {
			t.guests = append(t.guests, readReflection(rows))
		}
		n := int(number(of[1]))
		t.below = n - len(t.guests)
		m.shelved += n
		m.tops[text(of[0])] = t
	}
	return m
}

const rowSize = 6 // see row in lib.lua

func readReflection(row []any) *reflection {
	g := &reflection{
		shown: Guest{Name: text(row[0]), State: Leased, Incarnation: int(number(row[2]))},
		pool:  text(row[1]), uses: int(number(row[3])), born: ms(row[4]),
	}
	g.shown.readAddress(text(row[5]))
	return g
}
