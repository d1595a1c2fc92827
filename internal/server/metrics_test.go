package server

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/lease/leasetest"
	"greenroom/reconcile/condition"
)

func TestTheMetricsTellWhatTheStoreHas(t *testing.T) {
	eachHouse(t, func(h *house) {
		h.shelve("ci")
		l := h.acquire(h.user, client.Request{Cache: "ci"})
		ask[client.Lease](h, 202, sent{token: h.user, method: "POST", path: "/v1/leases", body: client.Request{Cache: "ci"}})
		ask[client.Lease](h, 200, sent{token: h.user, method: "DELETE", path: "/v1/leases/" + l.ID})
		h.refused(404, "unknown_cache", sent{token: h.user, method: "GET", path: "/v1/caches/nosuch"})
		text := string(h.do(sent{method: "GET", path: "/metrics"}).Body)
		for _, want := range []string{
			`greenroom_guests{cache="ci",pool="local",state="leased"} 1`,
			`greenroom_guests{cache="ci",pool="local",state="shelved"} 0`,
			`greenroom_guests{cache="big",pool="big",state="held"} 0`,
			`greenroom_pool_max{pool="local"} 4`,
			`greenroom_cache_size{cache="ci"} 3`,
			`greenroom_cache_warm{cache="ci"} 1`,
			`greenroom_cache_enabled{cache="ci"} 1`,
			`greenroom_cache_hits_total{cache="ci"} 1`,
			`greenroom_cache_misses_total{cache="ci"} 1`,
			`greenroom_cache_removals_total{cache="ci",reason="excess"} 0`,
			`greenroom_leases{cache="ci"} 1`,
			`greenroom_leases_ended_total{cache="ci",how="released"} 1`,
			`greenroom_leases_ended_total{cache="ci",how="expired"} 0`,
			`greenroom_queue_length{cache="ci"} 0`,
			`greenroom_queue_oldest_seconds{cache="ci"} 0`,
			`greenroom_lease_wait_seconds_count{cache="ci",source="shelf"} 2`,
			`greenroom_lease_seconds_count{cache="ci"} 1`,
			`greenroom_spec_info{revision="test-1"} 1`,
			`greenroom_spec_valid 1`,
			`greenroom_shards{condition="Ready",pool="local"} 1`,
			`greenroom_shards{condition="Stalled",pool="local"} 0`,
			`greenroom_http_request_seconds_count{code="201",route="/v1/leases"} 1`,
			`greenroom_http_request_seconds_count{code="404",route="/v1/caches/{cache}"} 1`,
			`go_goroutines `,
		} {
			if !strings.Contains(text, "\n"+want) {
				h.t.Errorf("the metrics lack %s", want)
			}
		}
	})
}

func TestTheMetricsHaveGoodNames(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	h.do(sent{method: "GET", path: "/healthz"})
	problems, err := testutil.GatherAndLint(h.parts.Registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestAScrapeAnswersWhileTheStoreIsAway(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	h.outage = lease.ErrUnavailable
	g := h.do(sent{method: "GET", path: "/metrics"})
	text := string(g.Body)
	if g.Status != 200 || !strings.Contains(text, "greenroom_spec_valid 1") || !strings.Contains(text, "greenroom_pool_max") || strings.Contains(text, "greenroom_guests{") {
		t.Errorf("%d:\n%s", g.Status, text)
	}
}

func TestDeathsAreCountedByPoolAndReason(t *testing.T) {
	eachHouse(t, func(h *house) {
		g := h.shelve("ci")
		_, err := h.store.Taint(h.t.Context(), lease.Caller{Name: "watchdog", Role: lease.System}, g, lease.Taint{Reason: "dead", Death: true})
		h.must(err)
		got := []string{}
		for line := range strings.Lines(string(h.do(sent{method: "GET", path: "/metrics"}).Body)) {
			if strings.HasPrefix(line, "greenroom_guest_deaths_total{") && !strings.HasSuffix(line, " 0\n") {
				got = append(got, strings.TrimSpace(line))
			}
		}
		if diff := cmp.Diff([]string{`greenroom_guest_deaths_total{pool="local",reason="dead"} 1`}, got); diff != "" {
			h.t.Error(diff)
		}
	})
}

func TestTheMetricsTellOfPlansAndOfAFaultOfTheSpecsWhileThereIsOne(t *testing.T) {
	h, _ := plansHouse(t)
	series := func(name string) (out []string) {
		for line := range strings.Lines(string(h.do(sent{method: "GET", path: "/metrics"}).Body)) {
			if strings.HasPrefix(line, name+"{") {
				out = append(out, strings.TrimSpace(line))
			}
		}
		return out
	}
	want := []string{`greenroom_plans{phase="failed"} 0`, `greenroom_plans{phase="making"} 0`, `greenroom_plans{phase="ready"} 1`, `greenroom_plans{phase="replaced"} 0`}
	if diff := cmp.Diff(want, series("greenroom_plans")); diff != "" {
		t.Error(diff)
	}
	if got := series("greenroom_spec_fault_since_seconds"); got != nil {
		t.Errorf("without a fault: %s", got)
	}
	h.loop.status.SpecValid, h.loop.status.SpecFault = false, &condition.Fault{Reason: condition.SpecInvalid, Revision: "bad1", Since: time.Unix(1700000000, 0)}
	want = []string{`greenroom_spec_fault_since_seconds{reason="SpecInvalid",revision="bad1"} 1.7e+09`}
	if diff := cmp.Diff(want, series("greenroom_spec_fault_since_seconds")); diff != "" {
		t.Error(diff)
	}
	problems, err := testutil.GatherAndLint(h.parts.Registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %+v", err, problems)
	}
}
