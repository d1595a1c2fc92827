package web

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"greenroom/lease"
	"greenroom/lease/client"
)

// maxEvents is what the API tells of a guest's history at once.
const maxEvents = 200

// guestPage is what the template of a guest gets.
type guestPage struct {
	Name   string
	Guest  *lease.Guest // nil: it is gone
	Lease  *client.Lease
	Probes probes
	Lives  []life
	Cut    bool // there may be more before
}

// probes is how those of a guest stand.
type probes struct {
	All     []client.Probe
	Unknown string // why that can't be told just now
}

// life is what happened to one machine that has had the name, the newest first.
type life struct {
	Incarnation int
	Now         bool   // it is the one there is
	Why         string // it was replaced or retired
	Steps       []step
	Leases      []held
}

// step is one entry of a history with how long it stood.
type step struct {
	lease.Event
	Lasted string // empty: it still stands, or it is the end
}

// held is one lease of a machine.
type held struct {
	Holder   string    // as far as the visitor may see it
	From, To time.Time // a zero To: it goes on
	Outcome  string    // as far as the visitor may see it
	Then     lease.State
}

// Guest is GET /guests/{guest}. A guest that is gone has a page as long as its history is kept.
func (s *Site) Guest() http.Handler {
	return s.reading(func(w http.ResponseWriter, r *http.Request, who visitor) { s.guest(w, r, who, fault{}) })
}

func (s *Site) guest(w http.ResponseWriter, r *http.Request, who visitor, why fault) {
	api, ctx, body := s.api(who), r.Context(), guestPage{Name: r.PathValue("guest")}
	events, err := api.Events(ctx, body.Name, maxEvents)
	if err == nil {
		var g lease.Guest
		switch g, err = api.Guest(ctx, body.Name); {
		case err == nil:
			body.Guest = &g
		case errors.Is(err, lease.ErrUnknownGuest) && len(events) > 0:
			err = nil
		}
	}
	if err == nil && body.Guest != nil && body.Guest.State == lease.Leased {
		body.Lease, err = leaseOf(r, api, *body.Guest)
	}
	if err != nil {
		s.sorry(w, who, err)
		return
	}
	if body.Guest != nil {
		if body.Probes.All, err = api.Probes(ctx, body.Name); err != nil { // no reason to show nothing else
			_, body.Probes.Unknown = problem(err)
		}
	}
	body.Lives, body.Cut = lives(events, body.Guest), len(events) == maxEvents
	s.show(w, r, who, why, "guest", page{
		Title: "Guest " + body.Name, Nav: "fleet", Live: &live{Path: "/guests/" + body.Name, About: "guest=" + body.Name}, Body: body,
	})
}

// leaseOf finds the lease of a guest among those that the visitor may see.
func leaseOf(r *http.Request, api *client.Client, g lease.Guest) (*client.Lease, error) {
	leases, err := api.Leases(r.Context(), g.Cache)
	if i := slices.IndexFunc(leases, func(l client.Lease) bool { return l.Guest != nil && l.Guest.Name == g.Name }); err == nil && i >= 0 {
		return &leases[i], nil
	}
	return nil, err
}

// lives sorts a history, the newest entry first, by the machines that it is of.
func lives(events []lease.Event, now *lease.Guest) (out []life) {
	next := time.Time{} // of the step after
	for _, e := range events {
		if drawn(e, events) || e.From == e.To && e.Detail == "" { // the latter: a run has taken up what was ordered
			continue
		}
		if len(out) == 0 || out[len(out)-1].Incarnation != e.Incarnation {
			out = append(out, life{Incarnation: e.Incarnation, Now: now != nil && now.Incarnation == e.Incarnation})
		}
		l := &out[len(out)-1]
		one := step{Event: e}
		if !next.IsZero() && e.To != lease.Gone {
			one.Lasted = lasted(next.Sub(e.Time))
		}
		next = e.Time
		l.Steps = append(l.Steps, one)
		if ended := e.To == lease.Tainted || e.To == lease.Retiring || e.To == lease.Replacing || e.To == lease.Failed; ended && e.Reason != "" {
			l.Why = e.Reason // the oldest counts: what comes after follows from it
		}
	}
	for i := range out {
		out[i].Leases = leasesOf(out[i].Steps)
	}
	return out
}

// drawn tells the entry that only says that a spare is now another cache's: its old record ended.
func drawn(e lease.Event, events []lease.Event) bool {
	pool, _, _ := lease.ParseGuestName(e.Guest)
	return e.To == lease.Gone && e.Cache == pool && slices.ContainsFunc(events, func(o lease.Event) bool {
		return o.Incarnation == e.Incarnation && o.Cache != e.Cache
	})
}

// leasesOf finds the leases of a machine in its steps, the newest first.
func leasesOf(steps []step) (out []held) {
	end := step{}
	for _, st := range steps {
		switch {
		case st.From == lease.Leased && st.To != lease.Leased:
			end = st
		case st.To == lease.Leased && st.From != lease.Leased:
			out = append(out, held{Holder: st.Actor, From: st.Time, To: end.Time, Outcome: end.Detail, Then: end.To})
			end = step{}
		}
	}
	return out
}

// Says is the guest in a sentence.
func (p guestPage) Says() string {
	switch g := p.Guest; {
	case g == nil:
		return "It is gone; this is what is kept of its history."
	case g.State == lease.Leased && p.Lease != nil:
		return fmt.Sprintf("It is leased by %s.", p.Lease.Holder)
	default:
		return fmt.Sprintf("It is %s%s.", g.State, colon(g.Reason))
	}
}

// Title names the machine that a life is of.
func (l life) Title() string {
	switch {
	case l.Now && l.Why == "":
		return "the current machine"
	case l.Now:
		return "the current machine, on its way out: " + l.Why
	case slices.ContainsFunc(l.Steps, func(s step) bool { return s.To == lease.Replacing }):
		return "replaced" + colon(l.Why)
	}
	return "gone" + colon(l.Why)
}

// Known tells the visitor more than others may see: where the guest is.
func (p guestPage) Known() bool { return p.Guest != nil && p.Guest.Host != "" }
