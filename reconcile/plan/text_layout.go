package plan

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Layout is a plan in the order in which people read it: cache by cache, alike guests in one row. Every way to show a plan
// starts from one, so that they all say the same. Its strings are clean, see [Clean].
type Layout struct {
	Plan     Plan
	Sections []Section // one for each cache, by name
}

// Section is what happens to one cache.
type Section struct {
	Cache  Cache
	Guests []Guest // all of them
	Rows   []Row   // those to which something happens, or of which there is something to say
	Kept   []Guest // the others
	day    time.Time
}

// Row is guests of one cache to which the same happens for the same reason.
type Row struct {
	Guests []Guest // at least one
	day    time.Time
}

// LayOut arranges a plan for reading.
func LayOut(p Plan) Layout {
	l := Layout{Plan: clean(p)}
	guests := map[string][]Guest{}
	for _, g := range l.Plan.Guests {
		guests[g.Cache] = append(guests[g.Cache], g)
	}
	for _, c := range l.Plan.Caches {
		l.Sections = append(l.Sections, newSection(c, guests[c.Cache], l.Plan.Made))
		delete(guests, c.Cache)
	}
	for name, rest := range guests {
		l.Sections = append(l.Sections, newSection(Cache{Cache: name, Change: Same}, rest, l.Plan.Made))
	}
	slices.SortStableFunc(l.Sections, func(a, b Section) int { return strings.Compare(a.Cache.Cache, b.Cache.Cache) })
	return l
}

func newSection(c Cache, guests []Guest, day time.Time) Section {
	s := Section{Cache: c, Guests: slices.SortedStableFunc(slices.Values(guests), byName), day: day}
	at := map[Guest]int{}
	for _, g := range s.Guests {
		if g.Verb == Keep && g.Detail == "" {
			s.Kept = append(s.Kept, g)
			continue
		}
		key := alike(g)
		i, seen := at[key]
		if !seen {
			i = len(s.Rows)
			at[key], s.Rows = i, append(s.Rows, Row{day: day})
		}
		s.Rows[i].Guests = append(s.Rows[i].Guests, g)
	}
	slices.SortStableFunc(s.Rows, func(a, b Row) int { return cmp.Compare(rank(a.First().Verb), rank(b.First().Verb)) })
	return s
}

// byName orders guests as people count: local-2 before local-10.
func byName(a, b Guest) int {
	return cmp.Or(strings.Compare(a.Pool, b.Pool), cmp.Compare(len(a.Guest), len(b.Guest)), strings.Compare(a.Guest, b.Guest))
}

func rank(v Verb) int { return slices.Index([]Verb{Create, Replace, Retire, Keep}, v) }

// alike is what guests of one row have in common. Of a lease that is its owner; the times differ from one to the next.
func alike(g Guest) Guest {
	named := ""
	if g.Guest != "" {
		named = "named"
	}
	key := Guest{
		Guest: named, Pool: g.Pool, Verb: g.Verb, When: g.When, Reason: g.Reason, Detail: g.Detail, ToPool: g.ToPool,
		Anyway: g.Anyway, OneOf: g.OneOf,
	}
	switch {
	case g.Lease != nil:
		key.State = "leased by " + g.Lease.Owner
	case g.When == Released:
		key.State = g.State
	}
	return key
}

// Changes tells that something happens to the cache or in it.
func (s Section) Changes() bool {
	return s.Cache.Change != Same || len(s.Cache.Settings)+len(s.Rows) > 0 || s.Cache.Dip != nil
}

// All are rows of one guest each, for everyone of them: who something happens to, and who is kept.
func (s Section) All() []Row { return s.each(s.Guests) }

func (s Section) each(guests []Guest) []Row {
	rows := make([]Row, len(guests))
	for i, g := range guests {
		rows[i] = Row{Guests: []Guest{g}, day: s.day}
	}
	return rows
}

// Title names a cache, and whose it is.
func (s Section) Title() string {
	switch c := s.Cache; {
	case c.Invisible:
		return c.Cache + " (the pool's invisible cache)"
	case c.Owner != "":
		return c.Cache + " (owner " + c.Owner + ")"
	}
	return s.Cache.Cache
}

// Changed are the sections in which something happens.
func (l Layout) Changed() []Section {
	return slices.DeleteFunc(slices.Clone(l.Sections), func(s Section) bool { return !s.Changes() })
}

// Pools are those whose settings change, or what their guests are born of.
func (l Layout) Pools() []Pool { return slices.DeleteFunc(slices.Clone(l.Plan.Pools), Pool.same) }

func (p Pool) same() bool { return p.Change == Same && len(p.Settings)+len(p.Outdated) == 0 }

// Unchanged names the caches in which nothing happens, invisible ones aside, and the pools that stay as they are.
func (l Layout) Unchanged() (caches, pools []string) {
	for _, s := range l.Sections {
		if !s.Changes() && !s.Cache.Invisible {
			caches = append(caches, s.Cache.Cache)
		}
	}
	for _, p := range l.Plan.Pools {
		if p.same() {
			pools = append(pools, p.Pool)
		}
	}
	return caches, pools
}

// kept counts the guests to which nothing happens.
func (l Layout) kept() (n int) {
	for _, g := range l.Plan.Guests {
		if g.Verb == Keep {
			n++
		}
	}
	return n
}

// Waits says until when the changes to leased guests wait; empty: none does.
func (l Layout) Waits() string {
	n, deadline, latest := 0, time.Time{}, time.Time{}
	for _, g := range l.Plan.Guests {
		if g.Lease == nil || g.Verb == Keep {
			continue
		}
		n++
		deadline, latest = later(deadline, g.Lease.Deadline), later(latest, g.Lease.Cap)
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("leased guests that change: %d, free by %s unless their leases are renewed, at the latest by %s", n, l.Clock(deadline), l.Clock(latest))
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// First stands for all guests of a row.
func (r Row) First() Guest { return r.Guests[0] }

// Mark is the sign of what happens, in a column of its own.
func (r Row) Mark() string { return r.First().Mark() }

// Mark is the sign of what happens to a guest.
func (g Guest) Mark() string {
	switch g.Verb {
	case Create:
		return "+"
	case Replace:
		return "±"
	case Retire:
		return "-"
	}
	return "="
}

// Name is the guest with its incarnation: local-2.3.
func (g Guest) Name() string {
	if g.Incarnation == 0 {
		return g.Guest
	}
	return fmt.Sprintf("%s.%d", g.Guest, g.Incarnation)
}

// maxNamed is how many guests a row names one by one.
const maxNamed = 3

// Names says which guests: each of a few, the first and the last of many.
func (r Row) Names() string {
	first, n := r.First(), len(r.Guests)
	switch {
	case first.Guest == "" && n == 1:
		return "a guest of " + first.Pool
	case first.Guest == "":
		return plural(n, "guest") + " of " + first.Pool
	case n > maxNamed:
		return fmt.Sprintf("%s … %s (%d guests)", first.Guest, r.Guests[n-1].Guest, n)
	}
	names := make([]string, n)
	for i, g := range r.Guests {
		names[i] = g.Name()
	}
	return strings.Join(names, ", ")
}

// What says what happens to the guests of a row, when, and why.
func (r Row) What() string {
	g := r.First()
	text := string(g.Verb) + by(g)
	switch wait, end := r.wait(); {
	case g.Verb == Create && g.When == Released:
		text += " when leases have ended"
	case g.Verb == Create:
	case g.Verb == Keep:
		text = "kept" + prefixed(", ", wait)
	case wait != "":
		text = wait + ": " + past(g.Verb) + by(g) + " " + end
	}
	if why := why(g); why != "" {
		text += " (" + why + ")"
	}
	return text
}

func by(g Guest) string {
	if g.ToPool == "" || g.ToPool == g.Pool {
		return ""
	}
	return " by a guest of pool " + g.ToPool
}

func past(v Verb) string {
	switch v {
	case Retire:
		return "retired"
	case Replace:
		return "replaced"
	}
	return string(v)
}

// wait says what the guests of a row are busy with, until when, and what has to end.
func (r Row) wait() (busy, end string) {
	g := r.First()
	switch {
	case g.Lease != nil:
		until, latest := r.last(func(g Guest) time.Time { return g.Lease.Deadline }), r.last(func(g Guest) time.Time { return g.Lease.Cap })
		return fmt.Sprintf("leased by %s%s (at the latest %s)", cmp.Or(g.Lease.Owner, "nobody"), r.until(until), r.clock(latest)), "when released"
	case !g.Until.IsZero():
		kind := cmp.Or(map[string]string{"held": "hold", "quarantined": "quarantine"}[g.State], "time")
		until := r.last(func(g Guest) time.Time { return g.Until })
		return cmp.Or(g.State, "kept aside") + r.until(until), "when its " + kind + " ends"
	case g.When == Released:
		return cmp.Or(g.State, "busy"), "when it is free"
	}
	return "", ""
}

func (r Row) last(of func(Guest) time.Time) (last time.Time) {
	for _, g := range r.Guests {
		last = later(last, of(g))
	}
	return last
}

func (r Row) until(t time.Time) string {
	if len(r.Guests) > 1 {
		return ", the last until " + r.clock(t)
	}
	return " until " + r.clock(t)
}

func (r Row) clock(t time.Time) string { return clock(t, r.day) }

func why(g Guest) string {
	var parts []string
	switch {
	case g.Reason != "" && g.Detail != "":
		parts = append(parts, g.Reason+": "+g.Detail)
	case g.Reason+g.Detail != "":
		parts = append(parts, g.Reason+g.Detail)
	}
	if g.OneOf {
		parts = append(parts, "or another that is released earlier")
	}
	if g.Anyway {
		parts = append(parts, "due anyway")
	}
	return strings.Join(parts, "; ")
}

// clock is a time of day, with its date when that is another day than the plan's. All times are UTC.
func clock(t, day time.Time) string {
	switch t, day = t.UTC(), day.UTC(); {
	case t.IsZero():
		return "an unknown time"
	case t.Format(time.DateOnly) == day.Format(time.DateOnly):
		return t.Format("15:04")
	}
	return t.UTC().Format("2006-01-02 15:04")
}

// Clock is a time of day as the plan writes it.
func (l Layout) Clock(t time.Time) string { return clock(t, l.Plan.Made) }

// Short is a revision as people name it: at most 12 digits of its hash.
func Short(revision string) string {
	kind, hash, ok := strings.Cut(revision, ":")
	if !ok {
		kind, hash = "", revision
	}
	if len(hash) <= 12 || strings.Trim(hash, "0123456789abcdef") != "" {
		return revision
	}
	return strings.TrimPrefix(kind+":"+hash[:12], ":")
}

// Compared says what the plan compares.
func (l Layout) Compared() (base, head string) {
	base, head = Short(l.Plan.Base), Short(l.Plan.Head)
	if !l.Plan.Told() { // then nobody has looked yet
		return cmp.Or(base, "what is in force"), cmp.Or(head, map[bool]string{true: "a head that could not be read"}[l.Plan.Phase == Failed], "a head not read yet")
	}
	return cmp.Or(base, "nothing in force"), cmp.Or(head, "a head not read yet")
}

// Life says when the plan was made and how long it is good for.
func (l Layout) Life() string {
	p := l.Plan
	if p.Made.IsZero() {
		return ""
	}
	text := "made " + p.Made.UTC().Format("2006-01-02 15:04 UTC")
	if p.Expires.After(p.Made) {
		text += fmt.Sprintf(", good for %s (until %s)", span(p.Expires.Sub(p.Made)), l.Clock(p.Expires))
	}
	return text
}

// span is a duration in words.
func span(d time.Duration) string {
	switch d = d.Round(time.Minute); {
	case d < 2*time.Hour && d != time.Hour:
		return plural(int(d/time.Minute), "minute")
	case d < 48*time.Hour:
		return plural(int(d.Round(time.Hour)/time.Hour), "hour")
	}
	return plural(int(d.Round(time.Hour)/(24*time.Hour)), "day")
}

// Says tells a setting that differs in one line.
func (s Setting) Says() string {
	if untold := s.Untold(); untold != "" {
		return s.Name + ": " + untold
	}
	return s.Name + ": " + cmp.Or(s.From, "none") + " → " + cmp.Or(s.To, "none")
}

// Untold is what there is to say of a setting whose values are not told; empty: they are.
func (s Setting) Untold() string {
	switch name, _, _ := strings.Cut(s.Name, "."); {
	case s.From+s.To != "":
		return ""
	case name == "variables" || name == "user_data":
		return "differs (its value is not told)"
	}
	return "differs"
}

// Says tells a dip of a cache in one sentence.
func (d Dip) Says(cache string) string {
	text := fmt.Sprintf("%s falls to %d of %d warm guests for %s", cache, max(d.Lowest, 0), d.Warm, about(d.Seconds))
	if !d.Measured {
		text += " (assumed, nothing measured yet)"
	}
	return text
}

// about is a time that is not known better than that.
func about(seconds float64) string {
	switch {
	case math.IsNaN(seconds) || seconds < 0 || seconds > 1e9:
		return "an unknown time"
	case seconds < 1:
		return "less than a second"
	case seconds < 100:
		return fmt.Sprintf("about %.0fs", seconds)
	case seconds < 100*60:
		return fmt.Sprintf("about %.0fm", seconds/60)
	}
	return fmt.Sprintf("about %.0fh", seconds/3600)
}

// Says tells what follows for the guests of a pool from what they are born of; empty: nothing.
func (p Pool) Says() string {
	if len(p.Outdated) == 0 {
		return ""
	}
	return "no guest of it stays, since what they are born of differs: " + strings.Join(p.Outdated, ", ")
}

// Held tells that the revision is past a guard and that no approval lets it pass.
func (p Plan) Held() bool {
	return len(p.Breaches) > 0 && p.Told() && p.Phase != Replaced && !p.Passes()
}

// Passes tells that an admin has approved this very plan.
func (p Plan) Passes() bool { return p.Approved != nil && p.Approved.Digest == p.Digest }

// Told tells that a plan has contents, whatever has become of it.
func (p Plan) Told() bool {
	return p.Phase != Failed && p.Phase != Making && (p.Phase != Replaced || !p.Made.IsZero())
}

// Approval says who let the revision pass its guards; empty: nobody.
func (l Layout) Approval() string {
	a := l.Plan.Approved
	switch {
	case a == nil:
		return ""
	case !l.Plan.Passes():
		return fmt.Sprintf("an approval by %s at %s is of another digest: it does not count", a.By, l.Clock(a.At))
	}
	return fmt.Sprintf("approved by %s at %s", a.By, l.Clock(a.At))
}

// Verdict is the last line of a plan, and the headline of one that is shown at length.
func (p Plan) Verdict() string {
	switch {
	case p.Phase == Failed:
		return "Plan: failed, and nothing was changed."
	case p.Phase == Making:
		return "Plan: still being made."
	case !p.Told():
		return "Plan: it was never made."
	case !p.Summary.Changes():
		return "No changes: " + p.Summary.String() + "."
	}
	return "Plan: " + p.Summary.String() + "."
}

// ApproveCommand is what an admin types to let a held revision pass.
func (p Plan) ApproveCommand() string { return "greenroom plan approve " + p.ID }
