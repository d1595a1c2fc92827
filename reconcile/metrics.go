package reconcile

import (
	"github.com/prometheus/client_golang/prometheus"

	"greenroom/reconcile/terraform"
)

// metrics of the reconciler.
type metrics struct {
	runs    *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "greenroom_terraform_runs_total", Help: "Terraform processes that ended, by operation and result.",
		}, []string{"pool", "op", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "greenroom_terraform_run_seconds", Help: "How long Terraform processes took.",
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800},
		}, []string{"pool", "op"}),
	}
	if r != nil {
		r.MustRegister(m.runs, m.seconds)
	}
	return m
}

// Observe books one Terraform process; it is the driver's OnStep. A pool that only a previewed revision has gets no series:
// what anybody can have previewed must not fill the metrics.
func (l *Loop) Observe(pool string, step terraform.Step) {
	l.mu.Lock()
	if l.fleet.Pool(pool) == nil && l.pools[pool] == nil {
		pool = ""
	}
	l.mu.Unlock()
	l.metrics.runs.WithLabelValues(pool, step.Op, step.Result).Inc()
	l.metrics.seconds.WithLabelValues(pool, step.Op).Observe(step.Seconds)
}
