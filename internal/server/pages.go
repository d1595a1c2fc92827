package server

import (
	"context"
	"net/http"

	"greenroom/internal/web"
	"greenroom/lease"
	"greenroom/lease/client"
)

// pages mounts what is for people, and returns it. The pages call api as whoever looks at them.
func (a *api) pages(on func(method, path string, h http.Handler), api http.Handler) *web.Site {
	site := web.New(web.Options{
		API: api, Store: a.Store, Plans: a.Plans != nil, Lookup: a.Tokens.Lookup, Log: a.Log, Now: a.Now,
		Follow: func(ctx context.Context) (<-chan client.Event, error) {
			// They are told only that there is something to look at, and look by the rights of their visitors.
			return a.Feed.Subscribe(ctx, lease.Caller{Name: "pages", Role: lease.System})
		},
	})
	on("GET", "/", site.Fleet())
	on("POST", "/reconcile", site.ActOnFleet())
	on("GET", "/pools/{pool}", site.Pool())
	on("POST", "/pools/{pool}/{act}", site.ActOnPool())
	on("GET", "/caches/{cache}", site.Cache())
	on("POST", "/caches/{cache}/{act}", site.ActOnCache())
	on("GET", "/guests/{guest}", site.Guest())
	on("POST", "/guests/{guest}/{act}", site.ActOnGuest())
	on("GET", "/queue", site.Queue())
	on("GET", "/live", site.Live())
	on("GET", "/signin", site.SignIn())
	on("POST", "/signin", site.SignIn())
	on("POST", "/signout", site.SignOut())
	on("GET", "/static/greenroom.css", site.Stylesheet())
	on("GET", "/static/live.js", site.Script())
	on("GET", "/static/icon.svg", site.Icon())
	if a.Plans != nil {
		on("GET", "/plans", site.Plans())
		on("GET", "/plans/{id}", site.Plan())
		on("POST", "/plans/{id}/approve", site.ApprovePlan())
	}
	return site
}
