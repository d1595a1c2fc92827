package web

import (
	"cmp"
	"net/http"
	"slices"

	"greenroom/lease"
	"greenroom/lease/client"
)

// cachePage is what the template of a cache gets.
type cachePage struct {
	shelf
	Settings []setting
	Listed   guestTable
	Leases   []client.Lease
	Requests []client.Lease
	Reason   string // why the requests wait
	Hidden   int    // leases that are not the visitor's to see
	Unseen   int    // likewise requests
}

// Cache is GET /caches/{cache}.
func (s *Site) Cache() http.Handler {
	return s.reading(func(w http.ResponseWriter, r *http.Request, who visitor) { s.cache(w, r, who, fault{}) })
}

func (s *Site) cache(w http.ResponseWriter, r *http.Request, who visitor, why fault) {
	name := r.PathValue("cache")
	body, err := s.look(r, who, name)
	if err != nil {
		s.sorry(w, who, err)
		return
	}
	title := "Cache " + name
	if body.Invisible {
		title = "Spares of pool " + name
	}
	s.show(w, r, who, why, "cache", page{
		Title: title, Nav: "fleet", Live: &live{Path: "/caches/" + name, About: "cache=" + name}, Body: body,
	})
}

func (s *Site) look(r *http.Request, who visitor, name string) (cachePage, error) {
	api, ctx := s.api(who), r.Context()
	c, err := api.Cache(ctx, name)
	if err != nil {
		return cachePage{}, err
	}
	guests, err := api.CacheGuests(ctx, name)
	if err != nil {
		return cachePage{}, err
	}
	leases, err := api.Leases(ctx, name)
	if err != nil {
		return cachePage{}, err
	}
	p := cachePage{shelf: shelved(c), Listed: listed(guests, false)}
	if spec := s.o.Store.Fleet().Cache(name); spec != nil {
		p.Settings = cacheSettings(spec)
	}
	for _, l := range leases {
		if l.Phase == lease.Active {
			p.Leases = append(p.Leases, l)
		}
	}
	slices.SortFunc(p.Leases, func(a, b client.Lease) int { // so that no row moves for nothing
		return cmp.Or(a.Granted.Compare(b.Granted), cmp.Compare(a.ID, b.ID))
	})
	if c.Queue > 0 {
		if p.Requests, err = api.Queue(ctx, name); err != nil {
			return cachePage{}, err
		}
	}
	if len(p.Requests) > 0 {
		p.Reason = p.Requests[0].Reason
	}
	p.Hidden, p.Unseen = max(0, c.Leases-len(p.Leases)), max(0, c.Queue-len(p.Requests))
	p.Leases, p.Requests = p.Leases[:min(len(p.Leases), maxRows)], p.Requests[:min(len(p.Requests), maxRows)]
	return p, nil
}

// queuePage is what the template of the queue gets.
type queuePage struct {
	Lines []line
	All   int
}

// line is the requests that wait in one cache.
type line struct {
	client.Cache
	Requests []client.Lease
	Reason   string
	Unseen   int // that are not the visitor's to see, or too many to list
}

// Queue is GET /queue: all requests that wait.
func (s *Site) Queue() http.Handler {
	return s.reading(func(w http.ResponseWriter, r *http.Request, who visitor) {
		api := s.api(who)
		caches, err := api.Caches(r.Context())
		body := queuePage{}
		for _, c := range caches {
			if c.Queue == 0 {
				continue
			}
			one := line{Cache: c}
			if one.Requests, err = api.Queue(r.Context(), c.Name); err != nil {
				break
			}
			if len(one.Requests) > 0 {
				one.Reason = one.Requests[0].Reason
			}
			one.Requests = one.Requests[:min(len(one.Requests), maxRows)]
			one.Unseen = max(0, c.Queue-len(one.Requests))
			body.Lines, body.All = append(body.Lines, one), body.All+c.Queue
		}
		if err != nil {
			s.sorry(w, who, err)
			return
		}
		s.show(w, r, who, fault{}, "queue", page{Title: "Queue", Nav: "queue", Live: &live{Path: "/queue"}, Body: body})
	})
}

// Says is the queue in a sentence.
func (q queuePage) Says() string {
	if q.All == 0 {
		return "Nobody waits."
	}
	return waiting(q.All) + "."
}
