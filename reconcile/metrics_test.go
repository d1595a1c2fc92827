package reconcile

import (
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"greenroom/reconcile/condition"
	"greenroom/reconcile/terraform"
	"greenroom/specs"
)

var update = flag.Bool("update", false, "write the golden files anew")

// scrape is what a scrape gets.
func scrape(t *testing.T, g prometheus.Gatherer) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(g, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	return w.Body.String()
}

// measured is a loop that does not run, with pools in force, and the registry of its metrics.
func measured(pools ...string) (*Loop, *prometheus.Registry) {
	registry := prometheus.NewPedanticRegistry()
	l := New(Options{Registry: registry, Now: func() time.Time { return time.Unix(1_700_000_000, 0) }})
	l.fleet = &specs.Fleet{Revision: "r1"}
	for _, name := range pools {
		l.fleet.Pools = append(l.fleet.Pools, &specs.Pool{Name: name})
		l.recipes[name] = recipe{Source: "module-of-" + name}
		l.pool(name)
	}
	return l, registry
}

func (l *Loop) condition(shard, pool string, types ...condition.Type) {
	sh := l.shardLocked(shard, pool)
	for _, t := range types {
		sh.conditions.set(l.o.Now(), "r1", t, true, "Test", "")
	}
}

func TestTheMetricsOfASmallFleet(t *testing.T) {
	l, registry := measured("big", "local")
	l.passed = l.o.Now()
	l.condition("big-a", "big", condition.Ready)
	l.condition("big-b", "big", condition.Ready)
	l.condition("big-c", "big", condition.Waiting, condition.Reconciling)
	l.condition("local-a", "local", condition.Stalled)
	l.pools["local"].conditions.set(l.o.Now(), "r1", condition.Stalled, true, "Test", "")
	l.breaker("module-of-local").until = l.o.Now().Add(time.Minute)
	l.fault = &condition.Fault{Reason: condition.SpecInvalid, Revision: "r2", Since: l.o.Now().Add(-time.Hour)}
	for _, step := range []terraform.Step{
		{Op: "version", Seconds: 0.01, Result: "ok"},
		{Op: "init", Seconds: 0.2, Result: "ok"},
		{Op: "plan", Seconds: 0.4, Result: "ok"},
		{Op: "apply", Seconds: 20, Result: "failed"},
		{Op: "output", Seconds: 0.1, Result: "ok"},
		{Op: "preview-version", Seconds: 0.01, Result: "ok"},
		{Op: "preview-init", Seconds: 0.2, Result: "ok"},
		{Op: "preview-plan", Seconds: 0.7, Result: "ok"},
		{Op: "preview-show", Seconds: 0.1, Result: "ok"},
		{Op: "preview-init", Seconds: 3, Result: "failed"},
	} {
		l.Observe("local", step)
	}
	l.Observe("previewed-only", terraform.Step{Op: "preview-plan", Seconds: 1, Result: "ok"})
	file := filepath.Join("testdata", "metrics.txt")
	got := scrape(t, registry)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("other than %s (write it anew with -update):\n%s", file, diff)
	}
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %+v", err, problems)
	}
}

func TestTheSeriesOfAPoolEndWithIt(t *testing.T) {
	l, registry := measured("big", "local")
	l.condition("big-a", "big", condition.Ready)
	l.Observe("big", terraform.Step{Op: "apply", Seconds: 1, Result: "ok"})
	l.fleet = &specs.Fleet{Revision: "r2", Pools: l.fleet.Pools[1:]}
	if text := scrape(t, registry); !strings.Contains(text, `greenroom_terraform_runs_total{op="apply",pool="big",result="ok"} 1`) {
		t.Errorf("a pool that has guests still:\n%s", text)
	}
	delete(l.pools, "big") // as after a pass that found no guest of it
	if text := scrape(t, registry); strings.Contains(text, `"big"`) || !strings.Contains(text, `"local"`) {
		t.Errorf("a pool that has gone:\n%s", text)
	}
	l.Observe("big", terraform.Step{Op: "apply", Seconds: 1, Result: "ok"})
	if text := scrape(t, registry); strings.Contains(text, `"big"`) {
		t.Errorf("a run that came in late:\n%s", text)
	}
}

func TestScrapesAndRunsDoNotStandInEachOthersWay(t *testing.T) {
	l, registry := measured("big", "local")
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 20 {
				l.Observe("local", terraform.Step{Op: "plan", Seconds: 1, Result: "ok"})
			}
		})
		all.Go(func() {
			for range 20 {
				scrape(t, registry)
			}
		})
	}
	all.Wait()
	if text := scrape(t, registry); !strings.Contains(text, `greenroom_terraform_runs_total{op="plan",pool="local",result="ok"} 80`) {
		t.Error(text)
	}
}
