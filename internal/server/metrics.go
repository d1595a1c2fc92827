package server

import (
	"maps"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"greenroom/lease"
)

// metrics are what the API counts itself, and what it reads from the store when somebody asks; see metrics_stock.go.
type metrics struct {
	api      *api
	requests *prometheus.HistogramVec
	caches   *histories // of which it is the label
	wait     *prometheus.HistogramVec
	held     *prometheus.HistogramVec
	pools    *histories
	ready    *prometheus.HistogramVec
}

func newMetrics(a *api) *metrics {
	m := &metrics{
		api: a,
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "greenroom_http_request_seconds", Help: "Time to answer a call of the API, long polls included.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
		}, []string{"route", "code"}),
		wait: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "greenroom_lease_wait_seconds", Help: "Time from the request to its grant.",
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 10),
		}, []string{"cache", "source"}),
		held: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "greenroom_lease_seconds", Help: "Time from the grant of a lease to its end.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 9),
		}, []string{"cache"}),
		ready: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "greenroom_guest_ready_seconds",
			Help:    "Time from the plan of a guest, or the claim that replaces it, until it is first shelved or leased.",
			Buckets: []float64{.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600},
		}, []string{"pool"}),
	}
	m.caches = newHistories("cache", func(cache string) {
		for _, source := range sources {
			m.wait.WithLabelValues(cache, source)
		}
		m.held.WithLabelValues(cache)
	}, m.wait, m.held)
	m.pools = newHistories("pool", func(pool string) { m.ready.WithLabelValues(pool) }, m.ready)
	a.Registry.MustRegister(m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	a.Changes.Subscribe(m.observe)
	return m
}

func (m *metrics) observe(changes ...lease.Change) {
	for _, c := range changes {
		switch {
		case c.Kind == lease.Granted && c.Lease != nil:
			m.caches.observe(series{m.wait, c.Cache, c.Lease.Source, true}, c.Lease.Granted.Sub(c.Lease.Created))
		case c.Kind == lease.LeaseEnded && c.Lease != nil && !c.Lease.Granted.IsZero():
			m.caches.observe(series{vec: m.held, name: c.Cache}, c.Lease.EndedAt.Sub(c.Lease.Granted))
		case c.Kind == lease.GuestMoved && !c.Ordered.IsZero():
			if pool, _, err := lease.ParseGuestName(c.Guest); err == nil {
				m.pools.observe(series{vec: m.ready, name: pool}, c.Ready.Sub(c.Ordered))
			}
		}
	}
}

// histories are histograms with a cache or a pool as a label, whose series end with it.
type histories struct {
	label string
	vecs  []*prometheus.HistogramVec
	begin func(name string) // the series of a name
	mu    sync.Mutex
	names map[string]bool // that have series
	found map[series]prometheus.Observer
}

func newHistories(label string, begin func(name string), vecs ...*prometheus.HistogramVec) *histories {
	return &histories{label: label, vecs: vecs, begin: begin, names: map[string]bool{}, found: map[series]prometheus.Observer{}}
}

// series is one of a histogram's.
type series struct {
	vec          *prometheus.HistogramVec
	name, source string
	sourced      bool // there is a label for the source
}

// labels are those of a series; name is the label of its name.
func (s series) labels(name string) prometheus.Labels {
	if s.sourced {
		return prometheus.Labels{name: s.name, "source": s.source}
	}
	return prometheus.Labels{name: s.name}
}

func (h *histories) observe(s series, took time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o, ok := h.found[s] // to look a series up by its labels costs more than to count
	if !ok {
		o = s.vec.With(s.labels(h.label))
		h.names[s.name], h.found[s] = true, o
	}
	o.Observe(took.Seconds())
}

// keep begins the series of what is there, so that a rate sees the first lease or guest, and ends those of what has gone.
func keep[V any](h *histories, there map[string]V) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name := range h.names {
		if _, ok := there[name]; ok {
			continue
		}
		delete(h.names, name)
		maps.DeleteFunc(h.found, func(s series, _ prometheus.Observer) bool { return s.name == name })
		for _, vec := range h.vecs {
			vec.DeletePartialMatch(prometheus.Labels{h.label: name})
		}
	}
	for name := range there {
		h.names[name] = true
		h.begin(name)
	}
}

// scrapesAtOnce bounds what callers without a token can ask of the store; a few Prometheuses need no more.
const scrapesAtOnce = 8

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.api.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: scrapesAtOnce})
}

// measured counts next under the route's template, so that names in paths make no series.
func (m *metrics) measured(route string, next http.Handler) http.Handler {
	var found sync.Map // status -> prometheus.Observer
	took := func(status int) prometheus.Observer {
		o, ok := found.Load(status)
		if !ok {
			o, _ = found.LoadOrStore(status, m.requests.WithLabelValues(route, strconv.Itoa(status)))
		}
		return o.(prometheus.Observer)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, seen := time.Now(), &recorder{ResponseWriter: w, status: http.StatusInternalServerError}
		defer func() { took(seen.status).Observe(time.Since(start).Seconds()) }()
		next.ServeHTTP(seen, r)
	})
}

// recorder remembers the status. Until one is written it stands for a panic: 500.
type recorder struct {
	http.ResponseWriter
	status int
	wrote  bool
}

func (r *recorder) WriteHeader(status int) {
	if !r.wrote {
		r.status, r.wrote = status, true
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if !r.wrote {
		r.status, r.wrote = http.StatusOK, true
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController and http.MaxBytesReader reach the writer below.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
