package server

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"greenroom/lease"
	"greenroom/reconcile/plan"
	"greenroom/specs"
)

// scrapeTimeout bounds what a scrape waits for the store. It is shorter than that of most Prometheuses, which take a late answer for
// none: then the server seems down when only its store hangs.
const scrapeTimeout = 2 * time.Second

// family is one name that is served from what is read when somebody asks, so that it never goes stale.
type family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func gauge(name, help string, labels ...string) family {
	return family{prometheus.NewDesc("greenroom_"+name, help, labels, nil), prometheus.GaugeValue}
}

func counter(name, help string, labels ...string) family {
	return family{prometheus.NewDesc("greenroom_"+name, help, labels, nil), prometheus.CounterValue}
}

func (f family) send(ch chan<- prometheus.Metric, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(f.desc, f.kind, v, labels...)
}

// sum sends counts by the last label.
func (f family) sum(ch chan<- prometheus.Metric, counts map[string]int64, labels ...string) {
	for last, n := range counts {
		f.send(ch, float64(n), append(slices.Clip(labels), last)...)
	}
}

var (
	guestsFamily   = gauge("guests", "Guests by state.", "pool", "cache", "state")
	poolMaxFamily  = gauge("pool_max", "Most guests that the pool may have.", "pool")
	sizeFamily     = gauge("cache_size", "Most guests that may stay shelved.", "cache")
	warmFamily     = gauge("cache_warm", "Guests to be kept shelved ahead of demand.", "cache")
	enabledFamily  = gauge("cache_enabled", "Whether the cache grants leases, overrides included.", "cache")
	hitsFamily     = counter("cache_hits_total", "Leases granted at once.", "cache")
	missesFamily   = counter("cache_misses_total", "Leases granted after waiting.", "cache")
	removalsFamily = counter("cache_removals_total", "Guests of the cache that were retired or replaced.", "cache", "reason")
	deathsFamily   = counter("guest_deaths_total", "Guests found dead.", "pool", "reason")
	leasesFamily   = gauge("leases", "Active leases.", "cache")
	endedFamily    = counter("leases_ended_total", "Leases and requests that ended.", "cache", "how")
	queueFamily    = gauge("queue_length", "Requests that wait.", "cache")
	oldestFamily   = gauge("queue_oldest_seconds", "How long the head of the queue has waited.", "cache")
	storeFamily    = gauge("store_up", "Whether the store could be read for this scrape; while it could not, what is read from it is missing.")
	plansFamily    = gauge("plans", "Plans by phase.", "phase")

	families = []family{
		guestsFamily, poolMaxFamily, sizeFamily, warmFamily, enabledFamily, hitsFamily, missesFamily, removalsFamily, deathsFamily,
		leasesFamily, endedFamily, queueFamily, oldestFamily, storeFamily, plansFamily,
	}
)

// What the labels say, from zero on: a rate does not see the first of what has no series before.
var (
	sources        = []string{"shelf", "spare", "new"}
	deathReasons   = []string{"dead", "vanished", "boot_failed", "prepare_failed", "reset_failed"}
	removalReasons = append([]string{
		"excess", "age", "uses", "outdated", "forced", "manual", "removed", "unwanted", "hold_over", "quarantine_over", "run_failed",
	}, deathReasons...)
	endings = []string{lease.Released, lease.Expired, lease.Cancelled, lease.Abandoned, lease.TimedOut, lease.Removed}
)

// Describe is prometheus.Collector's.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range families {
		ch <- f.desc
	}
	for _, vec := range []*prometheus.HistogramVec{m.requests, m.wait, m.held, m.ready} {
		vec.Describe(ch)
	}
}

// Collect is prometheus.Collector's. While the store is away it answers for the rest.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	fleet := m.api.Store.Fleet()
	caches := map[string]*specs.Cache{}
	for _, c := range fleet.AllCaches() {
		caches[c.Name] = c
		sizeFamily.send(ch, float64(c.Size), c.Name)
		warmFamily.send(ch, float64(c.Warm), c.Name)
	}
	for _, p := range fleet.Pools {
		poolMaxFamily.send(ch, float64(p.Max), p.Name)
	}
	stocks, err := m.stocks(caches)
	storeFamily.send(ch, truth(err == nil))
	if err == nil {
		m.inStock(ch, fleet, caches, stocks)
	}
	for _, vec := range []*prometheus.HistogramVec{m.requests, m.wait, m.held, m.ready} {
		vec.Collect(ch)
	}
	m.plans(ch)
}

// stocks reads the caches of the spec and all that ever were, whole or not at all: a part of them would be counters that go
// back. It takes two round trips, however many guests there are.
func (m *metrics) stocks(caches map[string]*specs.Cache) ([]lease.Stock, error) {
	if err := m.api.Outage(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	var stocks []lease.Stock
	read := make(chan error, 1)
	go func() { // a read under way ends at the connection's own time, whatever ctx says
		names, err := m.api.Store.Caches(ctx)
		if err == nil {
			names = slices.AppendSeq(names, maps.Keys(caches))
			slices.Sort(names)
			stocks, err = m.api.Store.Stocks(ctx, slices.Compact(names)...)
		}
		read <- err
	}()
	select {
	case err := <-read:
		return stocks, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// inStock sends what the store has and counts of the pools and caches that are in the spec or have guests still. Those that
// have neither have no series any more.
func (m *metrics) inStock(ch chan<- prometheus.Metric, fleet *specs.Fleet, caches map[string]*specs.Cache, stocks []lease.Stock) {
	died, there := deaths{}, map[string]bool{}
	for _, p := range fleet.Pools {
		died.begin(p.Name)
	}
	for _, st := range stocks {
		spec := caches[st.Cache]
		here := spec != nil
		for pool, counts := range st.Counts {
			if occupied(counts) {
				here = true
				died.begin(pool)
			}
		}
		if here {
			there[st.Cache] = true
			m.cache(ch, spec, st)
		}
	}
	for _, st := range stocks {
		died.add(st)
	}
	for pool, reasons := range died {
		deathsFamily.sum(ch, reasons, pool)
	}
	keep(m.caches, there)
	keep(m.pools, died)
}

func occupied(counts map[lease.State]int) bool {
	for _, n := range counts {
		if n > 0 {
			return true
		}
	}
	return false
}

// cache sends what one cache has and counts. spec is nil where the spec in force has it no more.
func (m *metrics) cache(ch chan<- prometheus.Metric, spec *specs.Cache, st lease.Stock) {
	for pool, counts := range st.Counts {
		if !occupied(counts) && (spec == nil || !slices.Contains(spec.Pools, pool)) {
			continue // it drew from the pool once
		}
		for state, n := range counts {
			guestsFamily.send(ch, float64(n), pool, st.Cache, string(state))
		}
	}
	if spec != nil {
		enabledFamily.send(ch, truth(effective(spec, st)), st.Cache)
	}
	oldest := 0.0
	if !st.Oldest.IsZero() {
		oldest = max(0, m.api.Now().Sub(st.Oldest).Seconds())
	}
	hitsFamily.send(ch, float64(st.Stats["hits"]), st.Cache)
	missesFamily.send(ch, float64(st.Stats["misses"]), st.Cache)
	leasesFamily.send(ch, float64(st.Leases), st.Cache)
	queueFamily.send(ch, float64(st.Queue), st.Cache)
	oldestFamily.send(ch, oldest, st.Cache)
	removalsFamily.sum(ch, counted(st, "removals:", removalReasons), st.Cache)
	endedFamily.sum(ch, counted(st, "ended:", endings), st.Cache)
}

// counted are the counters of a cache that begin with a prefix, zeros included.
func counted(st lease.Stock, prefix string, known []string) map[string]int64 {
	out := zeros(known)
	for name, n := range st.Stats {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			out[rest] += n
		}
	}
	return out
}

func zeros(names []string) map[string]int64 {
	out := make(map[string]int64, len(names))
	for _, name := range names {
		out[name] = 0
	}
	return out
}

// deaths sums up, by pool and reason, what the scripts count by cache as "deaths:<pool>:<reason>".
type deaths map[string]map[string]int64

func (d deaths) begin(pool string) {
	if d[pool] == nil {
		d[pool] = zeros(deathReasons)
	}
}

func (d deaths) add(st lease.Stock) {
	for name, n := range st.Stats {
		if rest, ok := strings.CutPrefix(name, "deaths:"); ok {
			if pool, reason, _ := strings.Cut(rest, ":"); d[pool] != nil {
				d[pool][reason] += n
			}
		}
	}
}

func (m *metrics) plans(ch chan<- prometheus.Metric) {
	if m.api.Plans == nil {
		return
	}
	phases := map[plan.Phase]int{plan.Making: 0, plan.Ready: 0, plan.Failed: 0, plan.Replaced: 0}
	for _, p := range m.api.Plans.List() {
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
