package lease

import "time"

// Turn is a lease of a shelved guest that began, or that ended with the guest back on the shelf. It says all that there is to
// know of the change: who keeps guests that were read before need not read that one again. There are thousands a second.
type Turn struct {
	Guest, Lease string
	Began        bool
	At           time.Time // in milliseconds, as the store has it
	Held         bool      // it ends, and had begun before that millisecond
}

// Turn returns what a change is to the guest's place on the shelf; false: it is no turn.
func (c Change) Turn() (Turn, bool) {
	switch {
	case c.Lease == nil || c.Guest == "":
	case c.Kind == Granted && c.Lease.Hit:
		return Turn{Guest: c.Guest, Lease: c.Lease.ID, Began: true, At: c.Lease.Granted}, true
	case c.Kind == LeaseEnded && c.State == Shelved:
		return Turn{Guest: c.Guest, Lease: c.Lease.ID, At: c.Lease.EndedAt, Held: c.Lease.Granted.Before(c.Lease.EndedAt)}, true
	}
	return Turn{}, false
}

// Apply brings a turn into a guest as it was read; false: the guest must be read again, because it is not as the turn found it.
func (t Turn) Apply(g *Guest) bool {
	switch {
	case t.At.Before(g.Since), t.At.Equal(g.Since) && g.State == t.state() && g.Lease == t.holds():
		return true // it was read later
	case t.At.Equal(g.Since), g.State != Shelved && g.State != Leased:
		return false
	}
	if t.Began {
		g.Uses++
	}
	g.State, g.Lease, g.Since, g.Reason, g.Health = t.state(), t.holds(), t.At, "", ""
	return true
}

func (t Turn) state() State {
	if t.Began {
		return Leased
	}
	return Shelved
}

// holds is the lease that has the guest now.
func (t Turn) holds() string {
	if t.Began {
		return t.Lease
	}
	return ""
}

// Turns are the newest turns of guests, by name. Notices may come in any order.
type Turns map[string]Turn

// Note takes a turn in; false: it came in the same millisecond as another, nobody knows which was first, and the guest must be
// read again.
func (ts Turns) Note(t Turn) bool {
	old, ok := ts[t.Guest]
	later, known := t.follows(old)
	if !ok || later {
		ts[t.Guest] = t
	}
	return !ok || known
}

// follows tells whether a turn of a guest came after another, and whether that is known. Within a millisecond, a lease that was held
// ends before all else, and each lease begins before it ends. A guest often goes from one to the next at once.
func (t Turn) follows(o Turn) (later, known bool) {
	switch {
	case !t.At.Equal(o.At):
		return t.At.After(o.At), true
	case t.Held || o.Held:
		return o.Held, t.Held != o.Held || t == o
	case t.Lease == o.Lease:
		return !t.Began, true
	}
	return false, false
}
