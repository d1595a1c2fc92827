package server

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"greenroom/lease"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/plan"
	"greenroom/specs"
)

// scrapeTimeout bounds what a scrape waits for the store.
const scrapeTimeout = 4 * time.Second

// metrics are what the API counts itself; what the store knows is read from it at scrape time, see stockCollector.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.HistogramVec
	wait     *prometheus.HistogramVec
	held     *prometheus.HistogramVec
}

func newMetrics(a *api) *metrics {
	m := &metrics{
		registry: a.Registry,
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
	}
	m.registry.MustRegister(m.requests, m.wait, m.held, stockCollector{a}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	a.Changes.Subscribe(m.observe)
	return m
}

func (m *metrics) observe(c lease.Change) {
	switch {
	case c.Lease == nil:
	case c.Kind == lease.Granted:
		m.wait.WithLabelValues(c.Cache, c.Lease.Source).Observe(c.Lease.Granted.Sub(c.Lease.Created).Seconds())
	case c.Kind == lease.LeaseEnded && !c.Lease.Granted.IsZero():
		m.held.WithLabelValues(c.Cache).Observe(c.Lease.EndedAt.Sub(c.Lease.Granted).Seconds())
	}
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// measured counts next under the route's template, so that names in paths make no series.
func (m *metrics) measured(route string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, seen := time.Now(), &recorder{ResponseWriter: w, status: http.StatusInternalServerError}
		defer func() {
			m.requests.WithLabelValues(route, strconv.Itoa(seen.status)).Observe(time.Since(start).Seconds())
		}()
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

// gauge is one family that is read from the store at scrape time.
type gauge struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func family(kind prometheus.ValueType, name, help string, labels ...string) gauge {
	return gauge{prometheus.NewDesc("greenroom_"+name, help, labels, nil), kind}
}

func (g gauge) send(ch chan<- prometheus.Metric, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(g.desc, g.kind, v, labels...)
}

const (
	gaugeKind   = prometheus.GaugeValue
	counterKind = prometheus.CounterValue
)

var (
	guestsFamily   = family(gaugeKind, "guests", "Guests by state.", "pool", "cache", "state")
	poolMaxFamily  = family(gaugeKind, "pool_max", "Most guests that the pool may have.", "pool")
	sizeFamily     = family(gaugeKind, "cache_size", "Most guests that may stay shelved.", "cache")
	warmFamily     = family(gaugeKind, "cache_warm", "Guests to be kept shelved ahead of demand.", "cache")
	enabledFamily  = family(gaugeKind, "cache_enabled", "Whether the cache grants leases, overrides included.", "cache")
	hitsFamily     = family(counterKind, "cache_hits_total", "Leases granted at once.", "cache")
	missesFamily   = family(counterKind, "cache_misses_total", "Leases granted after waiting.", "cache")
	removalsFamily = family(counterKind, "cache_removals_total", "Guests retired from the cache.", "cache", "reason")
	deathsFamily   = family(counterKind, "guest_deaths_total", "Guests found dead.", "pool", "reason")
	leasesFamily   = family(gaugeKind, "leases", "Active leases.", "cache")
	endedFamily    = family(counterKind, "leases_ended_total", "Leases and requests that ended.", "cache", "how")
	queueFamily    = family(gaugeKind, "queue_length", "Requests that wait.", "cache")
	oldestFamily   = family(gaugeKind, "queue_oldest_seconds", "How long the head of the queue has waited.", "cache")
	specFamily     = family(gaugeKind, "spec_info", "The revision in force.", "revision")
	validFamily    = family(gaugeKind, "spec_valid", "Whether the newest revision seen is the one in force.")
	faultFamily    = family(gaugeKind, "spec_fault_since_seconds", "Unix time since when a newer revision is not in force.", "reason", "revision")
	plansFamily    = family(gaugeKind, "plans", "Plans by phase.", "phase")
	shardsFamily   = family(gaugeKind, "shards", "Shards for which the condition is true.", "pool", "condition")

	families = []gauge{
		guestsFamily, poolMaxFamily, sizeFamily, warmFamily, enabledFamily, hitsFamily, missesFamily, removalsFamily, deathsFamily,
		leasesFamily, endedFamily, queueFamily, oldestFamily, specFamily, validFamily, faultFamily, plansFamily, shardsFamily,
	}
	deathReasons   = []string{"dead", "vanished", "boot_failed", "prepare_failed", "reset_failed"}
	removalReasons = []string{"excess", "age", "uses", "outdated", "forced"}
	endings        = []string{
		lease.Released, lease.Expired, lease.Cancelled, lease.Abandoned, lease.TimedOut, lease.Removed,
	}
	conditions = []condition.Type{condition.Ready, condition.Reconciling, condition.Stalled, condition.Waiting}
)

// stockCollector reads gauges and counters when they are asked for, so that none goes stale. While the store is away a
// scrape answers for the rest.
type stockCollector struct{ api *api }

func (c stockCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range families {
		ch <- f.desc
	}
}

func (c stockCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	fleet := c.api.Store.Fleet()
	for _, p := range fleet.Pools {
		poolMaxFamily.send(ch, float64(p.Max), p.Name)
	}
	c.reconciler(ctx, ch)
	c.plans(ch)
	died := deaths{}
	for _, p := range fleet.Pools { // from zero, so that a rate sees the first
		for _, reason := range deathReasons {
			died[struct{ pool, reason string }{p.Name, reason}] = 0
		}
	}
	for _, cache := range fleet.AllCaches() {
		if c.api.Outage() != nil {
			return
		}
		st, err := c.api.Store.Stock(ctx, cache.Name)
		if err != nil {
			return // deaths are sums over the caches: a part of them would be a counter that goes back
		}
		c.cache(ch, cache, st)
		counters(ch, st)
		died.add(st)
	}
	for of, n := range died {
		deathsFamily.send(ch, float64(n), of.pool, of.reason)
	}
}

// deaths counts by pool and reason what the scripts count by cache, as "deaths:<pool>:<reason>".
type deaths map[struct{ pool, reason string }]int64

func (d deaths) add(st lease.Stock) {
	for name, n := range st.Stats {
		if rest, ok := strings.CutPrefix(name, "deaths:"); ok {
			pool, reason, _ := strings.Cut(rest, ":")
			d[struct{ pool, reason string }{pool, reason}] += n
		}
	}
}

func (c stockCollector) cache(ch chan<- prometheus.Metric, cache *specs.Cache, st lease.Stock) {
	for pool, counts := range st.Counts {
		for state, n := range counts {
			guestsFamily.send(ch, float64(n), pool, cache.Name, string(state))
		}
	}
	oldest := 0.0
	if !st.Oldest.IsZero() {
		oldest = max(0, c.api.Now().Sub(st.Oldest).Seconds())
	}
	sizeFamily.send(ch, float64(cache.Size), cache.Name)
	warmFamily.send(ch, float64(cache.Warm), cache.Name)
	enabledFamily.send(ch, truth(effective(cache, st)), cache.Name)
	hitsFamily.send(ch, float64(st.Stats["hits"]), cache.Name)
	missesFamily.send(ch, float64(st.Stats["misses"]), cache.Name)
	leasesFamily.send(ch, float64(st.Leases), cache.Name)
	queueFamily.send(ch, float64(st.Queue), cache.Name)
	oldestFamily.send(ch, oldest, cache.Name)
}

// counters sends what the scripts count: "removals:<reason>" and "ended:<how>", zeros included.
func counters(ch chan<- prometheus.Metric, st lease.Stock) {
	removals, ended := zeros(removalReasons), zeros(endings)
	for name, n := range st.Stats {
		kind, rest, _ := strings.Cut(name, ":")
		switch kind {
		case "removals":
			removals[rest] += n
		case "ended":
			ended[rest] += n
		}
	}
	for reason, n := range removals {
		removalsFamily.send(ch, float64(n), st.Cache, reason)
	}
	for how, n := range ended {
		endedFamily.send(ch, float64(n), st.Cache, how)
	}
}

func zeros(names []string) map[string]int64 {
	out := map[string]int64{}
	for _, name := range names {
		out[name] = 0
	}
	return out
}

// reconciler sends what the loop knows of the spec and the shards.
func (c stockCollector) reconciler(ctx context.Context, ch chan<- prometheus.Metric) {
	st, err := c.api.reconciled(ctx)
	if err != nil {
		return
	}
	specFamily.send(ch, 1, st.Revision)
	validFamily.send(ch, truth(st.SpecValid))
	if f := st.SpecFault; f != nil && !f.Since.IsZero() {
		faultFamily.send(ch, float64(f.Since.UnixMilli())/1000, f.Reason, f.Revision)
	}
	for _, p := range st.Pools {
		for _, aspect := range conditions {
			n := 0.0
			for _, s := range p.Shards {
				n += truth(condition.Of(s.Conditions, aspect).Status)
			}
			shardsFamily.send(ch, n, p.Pool, string(aspect))
		}
	}
}

func (c stockCollector) plans(ch chan<- prometheus.Metric) {
	if c.api.Plans == nil {
		return
	}
	phases := map[plan.Phase]int{plan.Making: 0, plan.Ready: 0, plan.Failed: 0, plan.Replaced: 0}
	for _, p := range c.api.Plans.List() {
		phases[p.Phase]++
	}
	for phase, n := range phases {
		plansFamily.send(ch, float64(n), string(phase))
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
