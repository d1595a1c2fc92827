package watchdog

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"greenroom/lease"
	"greenroom/specs"
)

// exposition is what a scrape gets, where N stands for however many probes there were.
func exposition(t *testing.T, g prometheus.Gatherer) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(g, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != 200 {
		t.Fatal(w.Body)
	}
	return regexp.MustCompile(`(?m)^(greenroom_probes_total.*) [1-9].*$`).ReplaceAllString(w.Body.String(), "$1 N")
}

func TestTheMetricsTellOfAPoolFromItsSpecUntilItsLastGuestHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y, h := newYard(t, poolOf(2)), newHands()
		guest := y.shelve("p", 1)[0]
		registry := prometheus.NewPedanticRegistry()
		w := run(t, y, Options{Registerer: registry}, h.probe)
		eventually(t, "it is probed", func() bool { return h.probes(guest.Name) > 1 })
		of := func(series string) string {
			head := "# HELP greenroom_probes_total Probes of guests by result: ok, failed, unknown (this host could not ask).\n# TYPE greenroom_probes_total counter\n"
			brake := "# HELP greenroom_watchdog_brake 1 while so much of a pool is unhealthy that nobody in it is tainted.\n# TYPE greenroom_watchdog_brake gauge\n"
			at := strings.Index(series, "greenroom_watchdog_brake")
			return head + series[:at] + brake + series[at:]
		}
		is := func(want string) {
			t.Helper()
			if diff := cmp.Diff(of(want), exposition(t, registry)); diff != "" {
				t.Error(diff)
			}
		}
		is(`greenroom_probes_total{pool="p",result="failed"} 0
greenroom_probes_total{pool="p",result="ok"} N
greenroom_probes_total{pool="p",result="unknown"} 0
greenroom_watchdog_brake{pool="p"} 0
`)
		other := poolOf(2)
		other.Name = "q"
		next := &specs.Fleet{Revision: "r2", Pools: []*specs.Pool{&other}}
		if err := y.Adopt(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		is(`greenroom_probes_total{pool="p",result="failed"} 0
greenroom_probes_total{pool="p",result="ok"} N
greenroom_probes_total{pool="p",result="unknown"} 0
greenroom_probes_total{pool="q",result="failed"} 0
greenroom_probes_total{pool="q",result="ok"} 0
greenroom_probes_total{pool="q",result="unknown"} 0
greenroom_watchdog_brake{pool="p"} 0
greenroom_watchdog_brake{pool="q"} 0
`)
		y.retire(guest)
		pass(time.Minute)
		w.count("p", Result{Outcome: OK}) // of a probe that was still under way
		is(`greenroom_probes_total{pool="q",result="failed"} 0
greenroom_probes_total{pool="q",result="ok"} 0
greenroom_probes_total{pool="q",result="unknown"} 0
greenroom_watchdog_brake{pool="q"} 0
`)
		problems, err := testutil.GatherAndLint(registry)
		if err != nil || len(problems) > 0 {
			t.Errorf("%v, %+v", err, problems)
		}
	})
}

func (y *yard) retire(g lease.Guest) {
	y.t.Helper()
	g, err := y.Claim(y.t.Context(), g, lease.Retiring, "run1", "removed", 0)
	if err == nil {
		err = y.Remove(y.t.Context(), g, "run1", "removed")
	}
	if err != nil {
		y.t.Fatal(err)
	}
}
