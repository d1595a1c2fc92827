package web

import (
	"context"
	"net/http"
	"slices"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/reconcile/condition"
)

// maxRows is the most guests, leases or requests that a page lists.
const maxRows = 500

// guestTable is guests as a page lists them.
type guestTable struct {
	Rows  []lease.Guest
	More  int  // that are not listed
	Cache bool // tell the cache of each
}

func listed(guests []lease.Guest, cache bool) guestTable {
	n := min(len(guests), maxRows)
	return guestTable{Rows: guests[:n], More: len(guests) - n, Cache: cache}
}

// poolPage is what the template of a pool gets.
type poolPage struct {
	supply
	Settings []setting
	Runs     []run
	Listed   guestTable
	History  bool     // the guests that are gone were asked for
	Gone     []string // their names
}

// run is a run that has ended.
type run struct{ condition.RunStatus }

// Undone is the guests that the run was to do something about, and did not; none where it did nothing at all.
func (r run) Undone() (undone []string) {
	if len(r.Created)+len(r.Replaced)+len(r.Retired) == 0 {
		return nil
	}
	for _, c := range []struct{ plan, done []string }{{r.Plan.Create, r.Created}, {r.Plan.Replace, r.Replaced}, {r.Plan.Retire, r.Retired}} {
		for _, guest := range c.plan {
			if _, failed := r.Failed[guest]; !failed && !slices.Contains(c.done, guest) {
				undone = append(undone, guest)
			}
		}
	}
	return undone
}

// Pool is GET /pools/{pool}.
func (s *Site) Pool() http.Handler {
	return s.reading(func(w http.ResponseWriter, r *http.Request, who visitor) { s.pool(w, r, who, fault{}) })
}

func (s *Site) pool(w http.ResponseWriter, r *http.Request, who visitor, why fault) {
	api, name := s.api(who), r.PathValue("pool")
	p, err := api.Pool(r.Context(), name)
	if err != nil {
		s.sorry(w, who, err)
		return
	}
	body, path := poolPage{supply: supplied(p), History: r.URL.Query().Get("all") == "1"}, "/pools/"+p.Pool
	guests, err := s.guestsOf(r.Context(), api, name)
	if err != nil {
		s.sorry(w, who, err)
		return
	}
	body.Listed = listed(guests, true)
	for _, r := range p.Runs {
		body.Runs = append(body.Runs, run{r})
	}
	if spec := s.o.Store.Fleet().Pool(name); spec != nil {
		body.Settings = poolSettings(spec)
	}
	if body.History {
		path += "?all=1"
		if body.Gone, err = s.gone(r.Context(), name, guests); err != nil {
			s.sorry(w, who, err)
			return
		}
	}
	s.show(w, r, who, why, "pool", page{
		Title: "Pool " + name, Nav: "fleet", Live: &live{Path: path, About: "pool=" + name}, Body: body,
	})
}

// guestsOf lists the guests of a pool also where the specs have it no more, so that the API has no list of them alone.
func (s *Site) guestsOf(ctx context.Context, api *client.Client, pool string) ([]lease.Guest, error) {
	if s.o.Store.Fleet().Pool(pool) != nil {
		return api.Guests(ctx, pool)
	}
	all, err := api.Guests(ctx, "")
	return slices.DeleteFunc(all, func(g lease.Guest) bool { return g.Pool != pool }), err
}

// gone names the guests of a pool that are on record no more.
func (s *Site) gone(ctx context.Context, pool string, guests []lease.Guest) (names []string, err error) {
	slots, err := s.o.Store.Slots(ctx, pool)
	for _, slot := range slots {
		if !slices.ContainsFunc(guests, func(g lease.Guest) bool { return g.Slot == slot }) {
			names = append(names, lease.GuestName(pool, slot))
		}
	}
	return names, err
}
