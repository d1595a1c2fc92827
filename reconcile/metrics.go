package reconcile

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"greenroom/reconcile/condition"
	"greenroom/reconcile/terraform"
)

// metrics of the reconciler. What the loop knows of the specs and the shards is read when somebody asks; the store is not.
type metrics struct {
	loop    *Loop
	runs    *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	pools   map[string]bool // that have series of runs; it needs the loop's mu

	spec, valid, fault, condition, shards, breaker, passed *prometheus.Desc
}

func newMetrics(l *Loop) *metrics {
	gauge := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("greenroom_"+name, help, labels, nil)
	}
	m := &metrics{
		loop: l, pools: map[string]bool{},
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "greenroom_terraform_runs_total", Help: "Terraform processes that ended, by operation and result.",
		}, []string{"pool", "op", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "greenroom_terraform_run_seconds", Help: "How long Terraform processes took.",
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800},
		}, []string{"pool", "op"}),
		spec:      gauge("spec_info", "The revision in force.", "revision"),
		valid:     gauge("spec_valid", "Whether the newest revision seen is the one in force."),
		fault:     gauge("spec_fault_since_seconds", "Unix time since when a newer revision is not in force.", "reason", "revision"),
		condition: gauge("pool_condition", "Whether the condition is true of the pool.", "pool", "condition"),
		shards:    gauge("shards", "Shards for which the condition is true.", "pool", "condition"),
		breaker:   gauge("terraform_breaker", "1 while runs of the pool's module wait because too many in a row have failed.", "pool"),
		passed:    gauge("reconcile_last_pass_timestamp_seconds", "When the reconciler last made a whole pass; 0: never since the start."),
	}
	if l.o.Registry != nil {
		l.o.Registry.MustRegister(m)
	}
	return m
}

// Describe is prometheus.Collector's.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	m.runs.Describe(ch)
	m.seconds.Describe(ch)
	for _, d := range []*prometheus.Desc{m.spec, m.valid, m.fault, m.condition, m.shards, m.breaker, m.passed} {
		ch <- d
	}
}

// Collect is prometheus.Collector's.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, metric := range m.read() {
		ch <- metric
	}
	m.runs.Collect(ch)
	m.seconds.Collect(ch)
}

func (m *metrics) read() (out []prometheus.Metric) {
	send := func(d *prometheus.Desc, v float64, labels ...string) {
		out = append(out, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...))
	}
	l := m.loop
	l.mu.Lock()
	defer l.mu.Unlock()
	m.keep()
	if l.fleet.Revision != "" {
		send(m.spec, 1, l.fleet.Revision)
	}
	send(m.valid, float64(truth(l.fault == nil)))
	if f := l.fault; f != nil && !f.Since.IsZero() {
		send(m.fault, unix(f.Since), f.Reason, f.Revision)
	}
	send(m.passed, unix(l.passed))
	for name, counts := range l.countShards() {
		for t, n := range counts {
			send(m.shards, float64(n), name, string(t))
			send(m.condition, float64(truth(l.pools[name].conditions[t].Status)), name, string(t))
		}
	}
	for _, p := range l.fleet.Pools {
		b := l.breakers[l.recipes[p.Name].Source]
		send(m.breaker, float64(truth(b != nil && b.until.After(l.o.Now()))), p.Name)
	}
	return out
}

// countShards counts by pool and condition, zeros included. It needs l.mu.
func (l *Loop) countShards() map[string]map[condition.Type]int {
	all := map[string]map[condition.Type]int{}
	for name := range l.pools {
		all[name] = map[condition.Type]int{condition.Ready: 0, condition.Reconciling: 0, condition.Stalled: 0, condition.Waiting: 0}
	}
	for _, sh := range l.shards {
		for t, c := range sh.conditions {
			if counts := all[sh.pool]; counts != nil && c.Status {
				counts[t]++
			}
		}
	}
	return all
}

// keep begins the counters of each pool from zero, so that a rate sees the first run, and ends those of pools that have
// gone. It needs the loop's mu.
func (m *metrics) keep() {
	for pool := range m.pools {
		if m.loop.pools[pool] == nil && pool != "" {
			delete(m.pools, pool)
			m.runs.DeletePartialMatch(prometheus.Labels{"pool": pool})
			m.seconds.DeletePartialMatch(prometheus.Labels{"pool": pool})
		}
	}
	for pool := range m.loop.pools {
		m.pools[pool] = true
		for _, op := range operations {
			m.runs.WithLabelValues(pool, op, "ok")
			m.runs.WithLabelValues(pool, op, "failed")
		}
	}
}

// previewed is the op of a preview, whatever processes it takes.
const previewed = "preview"

// operations are the ops that there are: those of every run, those that only mend a run that went wrong, and the preview.
var operations = []string{"init", "plan", "apply", "output", "push", "unlock", previewed}

// operation is under which op a process counts; empty: under none. Asking Terraform for its version is no run. A preview
// counts once: by its plan, or by the step before or after it that failed.
func operation(step terraform.Step) string {
	op, preview := strings.CutPrefix(step.Op, "preview-")
	switch {
	case op == "version":
		return ""
	case !preview:
		return op
	case op == "plan" || step.Result != "ok":
		return previewed
	}
	return ""
}

// Observe books one Terraform process; it is the driver's OnStep. A pool that only a previewed revision has gets no series:
// what anybody can have previewed must not fill the metrics.
func (l *Loop) Observe(pool string, step terraform.Step) {
	op := operation(step)
	if op == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pools[pool] == nil {
		pool = ""
	}
	l.metrics.pools[pool] = true
	l.metrics.runs.WithLabelValues(pool, op, step.Result).Inc()
	l.metrics.seconds.WithLabelValues(pool, op).Observe(step.Seconds)
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
