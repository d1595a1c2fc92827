package server

import (
	"net/http"
	"strings"

	"github.com/gorilla/mux"
)

// api is the parts with what the calls share.
type api struct {
	Parts
	metrics *metrics
	refused rarely                    // webhooks
	leases  map[endpoint]http.Handler // the calls on leases
}

// Handler answers the HTTP API and registers its metrics with p.Registry.
func Handler(p Parts) http.Handler {
	a := &api{Parts: p.withDefaults(), leases: map[endpoint]http.Handler{}}
	a.metrics = newMetrics(a)
	router := mux.NewRouter().SkipClean(true)
	a.routes(router)
	router.MethodNotAllowedHandler = a.metrics.measured("unmatched", notAllowed(router))
	router.Use(pathValues)
	return a.recovered(a.direct(router))
}

// endpoint is a method on a path, as the routes have it.
type endpoint struct{ method, path string }

// direct answers the calls on leases, of which there are thousands a second, as the router would and without its cost.
func (a *api) direct(router http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at := endpoint{r.Method, r.URL.Path}
		if id, ok := strings.CutPrefix(at.path, leasesPath+"/"); ok && id != "" && !strings.Contains(id, "/") {
			at.path = leasesPath + "/{lease}"
		}
		if h := a.leases[at]; h != nil {
			h.ServeHTTP(w, r)
			return
		}
		router.ServeHTTP(w, r)
	})
}

const leasesPath = "/v1/leases"

func (a *api) routes(router *mux.Router) {
	on := func(method, path string, h http.Handler) {
		methods := []string{method}
		if method == http.MethodGet {
			methods = append(methods, http.MethodHead) // RFC 9110 section 9.3.2; net/http leaves the body out
		}
		h = a.metrics.measured(path, h)
		router.Handle(path, h).Methods(methods...)
		if path == leasesPath || path == leasesPath+"/{lease}" {
			for _, method := range methods {
				a.leases[endpoint{method, path}] = h
			}
		}
	}
	user, admin := access{}, access{admin: true}
	quick := access{bounded: true}

	on("POST", leasesPath, handle(a, quick, a.acquire))
	on("GET", leasesPath, handle(a, user, a.listLeases))
	on("GET", leasesPath+"/{lease}", handle(a, user, a.getLease))
	on("DELETE", leasesPath+"/{lease}", handle(a, quick, a.release))
	on("POST", leasesPath+"/{lease}/renew", handle(a, quick, a.renew))

	on("GET", "/v1/caches", handle(a, user, a.listCaches))
	on("GET", "/v1/caches/{cache}", handle(a, user, a.getCache))
	on("GET", "/v1/caches/{cache}/guests", handle(a, user, a.listCacheGuests))
	on("GET", "/v1/caches/{cache}/queue", handle(a, user, a.listQueue))
	on("POST", "/v1/caches/{cache}/enable", handle(a, admin, a.toggle(true)))
	on("POST", "/v1/caches/{cache}/disable", handle(a, admin, a.toggle(false)))
	on("DELETE", "/v1/caches/{cache}/override", handle(a, admin, a.dropOverride))
	on("DELETE", "/v1/caches/{cache}/guests/{guest}", handle(a, admin, a.removeGuest))

	on("GET", "/v1/guests", handle(a, user, a.listGuests))
	on("GET", "/v1/guests/{guest}", handle(a, user, a.getGuest))
	on("GET", "/v1/guests/{guest}/events", handle(a, user, a.listEvents))
	on("GET", "/v1/guests/{guest}/probes", handle(a, user, a.listProbes))
	on("POST", "/v1/guests/{guest}/taint", handle(a, admin, a.taint))
	on("POST", "/v1/guests/{guest}/probe", handle(a, admin, a.probe))
	on("POST", "/v1/guests/{guest}/hold", handle(a, admin, a.hold))

	on("GET", "/v1/pools", handle(a, user, a.listPools))
	on("GET", "/v1/pools/{pool}", handle(a, user, a.getPool))
	on("POST", "/v1/pools/{pool}/pause", handle(a, admin, a.pause))
	on("POST", "/v1/pools/{pool}/resume", handle(a, admin, a.resume))
	on("GET", "/v1/shards", handle(a, user, a.listShards))
	on("GET", "/v1/status", handle(a, access{anytime: true}, a.status))
	on("POST", "/v1/reconcile", handle(a, admin, a.reconcile))
	on("GET", "/v1/events", handle(a, access{anytime: true}, a.feed))

	on("POST", "/v1/plans", handle(a, user, a.requestPlan))
	on("GET", "/v1/plans", handle(a, access{anytime: true}, a.listPlans))
	on("GET", "/v1/plans/{plan}", handle(a, access{anytime: true}, a.getPlan))
	on("POST", "/v1/plans/{plan}/approve", handle(a, access{admin: true, told: true}, a.approvePlan))
	on("POST", "/v1/hooks/{forge}", http.HandlerFunc(a.hook))

	on("GET", "/v1/log", handle(a, access{admin: true, anytime: true}, a.getLog))
	on("PUT", "/v1/log", handle(a, access{admin: true, anytime: true, told: true}, a.setLog))

	on("GET", "/v1/tokens", handle(a, access{admin: true, anytime: true}, a.listTokens))
	on("POST", "/v1/tokens", handle(a, access{admin: true, anytime: true, told: true}, a.createToken))
	on("DELETE", "/v1/tokens/{token}", handle(a, access{admin: true, anytime: true, told: true}, a.revokeToken))

	on("GET", "/healthz", http.HandlerFunc(health))
	on("GET", "/readyz", http.HandlerFunc(a.ready))
	on("GET", "/metrics", a.metrics.handler())
	on("GET", "/openapi.yaml", http.HandlerFunc(openapi))
	site := a.pages(on, router)
	router.NotFoundHandler = a.metrics.measured("unmatched", notFound(site.Unknown()))
}

// pathValues hands the variables of the path on in the standard library's way.
func pathValues(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range mux.Vars(r) {
			r.SetPathValue(name, value)
		}
		next.ServeHTTP(w, r)
	})
}

// notFound answers a browser with a page, except of the API, and all others with a problem.
func notFound(page http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		looks := r.Method == http.MethodGet || r.Method == http.MethodHead
		if looks && !strings.HasPrefix(r.URL.Path+"/", "/v1/") && strings.Contains(r.Header.Get("Accept"), "text/html") {
			page.ServeHTTP(w, r)
			return
		}
		writeProblem(w, problem(http.StatusNotFound, "not_found", "there is no such path; /openapi.yaml lists all of them"))
	}
}

// notAllowed answers 405 with the methods that the path has (RFC 9110 section 15.5.6).
func notAllowed(router *mux.Router) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var allowed []string
		for _, method := range []string{"DELETE", "GET", "HEAD", "POST", "PUT"} {
			probe := r.Clone(r.Context())
			probe.Method = method
			var match mux.RouteMatch
			if router.Match(probe, &match) && match.MatchErr == nil {
				allowed = append(allowed, method)
			}
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		writeProblem(w, problem(http.StatusMethodNotAllowed, "method_not_allowed", "this path takes "+strings.Join(allowed, " and ")))
	}
}
