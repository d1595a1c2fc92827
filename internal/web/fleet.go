package web

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/plan"
)

// fleetPage is what the template of the first page gets.
type fleetPage struct {
	client.Status
	Caches   []shelf
	Pools    []supply
	Spec     string // short
	Newer    string // the revision that is not in force, short
	Troubles []condition.Condition
}

// supply is a pool as it is drawn.
type supply struct {
	client.Pool
	Bar      bar
	All      int
	Standing condition.Condition
}

func supplied(p client.Pool) supply {
	return supply{
		Pool: p, Bar: stacked(p.Guests, lease.States, p.Max), All: sum(p.Guests, lease.States...), Standing: standing(p.Conditions),
	}
}

// Says is the pool in a sentence.
func (s supply) Says() string {
	parts := make([]string, len(s.Bar.Parts))
	for i, p := range s.Bar.Parts {
		parts[i] = fmt.Sprintf("%d %s", p.Guests, p.State)
	}
	return fmt.Sprintf("%d of at most %d guests", s.All, s.Max) + colon(strings.Join(parts, ", ")) + "."
}

// colon leads over to what is there.
func colon(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}

// standing is the condition that says most: a human must act, tried again later, under way, ready.
func standing(conditions []condition.Condition) condition.Condition {
	for _, t := range []condition.Type{condition.Stalled, condition.Waiting, condition.Reconciling, condition.Ready} {
		if c := condition.Of(conditions, t); c.Status {
			return c
		}
	}
	return condition.Condition{Reason: "NotReady"}
}

// Fleet is GET /.
func (s *Site) Fleet() http.Handler {
	return s.reading(func(w http.ResponseWriter, r *http.Request, who visitor) { s.fleet(w, r, who, fault{}) })
}

func (s *Site) fleet(w http.ResponseWriter, r *http.Request, who visitor, why fault) {
	st, err := s.api(who).Status(r.Context())
	if err != nil {
		s.sorry(w, who, err)
		return
	}
	body := fleetPage{Status: st, Spec: plan.Short(st.Revision)}
	if st.SpecFault != nil {
		body.Newer = plan.Short(st.SpecFault.Revision)
	}
	var spares []shelf
	for _, c := range st.Caches {
		switch one := shelved(c); {
		case !c.Invisible:
			body.Caches = append(body.Caches, one)
		case one.All+c.Leases+c.Queue+c.Size > 0:
			spares = append(spares, one)
		}
	}
	body.Caches = append(body.Caches, spares...)
	for _, p := range st.Pools {
		body.Pools = append(body.Pools, supplied(p))
	}
	for _, c := range st.Conditions {
		if c.Status && c.Type != condition.Ready {
			body.Troubles = append(body.Troubles, c)
		}
	}
	s.show(w, r, who, why, "fleet", page{Title: "Fleet", Nav: "fleet", Live: &live{Path: "/"}, Body: body})
}

// Says is the fleet in a sentence.
func (f fleetPage) Says() string {
	if f.Store != "" {
		return "The store is away: no lease is granted until it is back."
	}
	guests, leased, queue := 0, 0, 0
	for _, p := range f.Pools {
		guests += p.All
		leased += p.Guests[lease.Leased]
	}
	for _, c := range f.Caches {
		queue += c.Queue
	}
	if guests == 0 {
		return "There are no guests; " + waiting(queue) + "."
	}
	return fmt.Sprintf("%s, %s leased; %s.", plural(guests, "guest"), map[bool]string{true: "none", false: strconv.Itoa(leased)}[leased == 0], waiting(queue))
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
