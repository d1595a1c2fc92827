package watchdog

import "github.com/prometheus/client_golang/prometheus"

// metrics of the watchdog. The brake is read when it is scraped, so that it is never stale.
type metrics struct {
	watchdog *Watchdog
	probes   *prometheus.CounterVec
	brake    *prometheus.Desc
}

func newMetrics(w *Watchdog) *metrics {
	return &metrics{
		watchdog: w,
		probes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "greenroom_probes_total", Help: "Probes of guests by result: ok, failed, unknown (this host could not ask).",
		}, []string{"pool", "result"}),
		brake: prometheus.NewDesc("greenroom_watchdog_brake", "1 while so much of a pool is unhealthy that nobody in it is tainted.",
			[]string{"pool"}, nil),
	}
}

// Describe is prometheus.Collector's.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	m.probes.Describe(ch)
	ch <- m.brake
}

// Collect is prometheus.Collector's.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	m.probes.Collect(ch)
	for pool, on := range m.brakes() {
		ch <- prometheus.MustNewConstMetric(m.brake, prometheus.GaugeValue, on, pool)
	}
}

// brakes are those of the pools under watch, and of those in the spec that are not yet.
func (m *metrics) brakes() map[string]float64 {
	all := map[string]float64{}
	for _, p := range m.watchdog.o.Store.Fleet().Pools {
		all[p.Name] = 0
	}
	m.watchdog.mu.Lock()
	defer m.watchdog.mu.Unlock()
	for pool, why := range m.watchdog.brakes {
		all[pool] = 0
		if why != "" {
			all[pool] = 1
		}
	}
	return all
}

// count books a probe, unless its pool went away meanwhile. It needs the watchdog's mu, as forget does.
func (m *metrics) count(pool string, o Outcome) {
	if _, watched := m.watchdog.brakes[pool]; watched {
		m.probes.WithLabelValues(pool, string(o)).Inc()
	}
}

// start shows a pool's counters from zero.
func (m *metrics) start(pool string) {
	for _, o := range []Outcome{OK, Failed, Unknown} {
		m.probes.WithLabelValues(pool, string(o))
	}
}

func (m *metrics) forget(pool string) {
	m.probes.DeletePartialMatch(prometheus.Labels{"pool": pool})
}
