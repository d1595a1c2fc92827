package server

import (
	"context"
	"flag"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"greenroom/internal/embedded"
	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/lease/leasetest"
	"greenroom/reconcile"
	"greenroom/specs"
	"greenroom/watchdog"
)

var update = flag.Bool("update", false, "write the golden files anew")

// clock is a time that only tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// frozenHouse is a house whose store and API have a clock of their own.
func frozenHouse(t *testing.T) (*house, *clock) {
	t.Helper()
	c := &clock{now: time.Unix(1_700_000_000, 0)}
	store, err := embedded.Open(embedded.Options{Dir: t.TempDir(), Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	h := newHouse(t, store.Client())
	h.parts.Now = c.Now
	h.serveAgain()
	return h, c
}

// exposition is what a scrape gets, but for what is said of the process and of the calls that were made.
func (h *house) exposition() string {
	h.t.Helper()
	var text strings.Builder
	for line := range strings.Lines(string(h.do(sent{method: "GET", path: "/metrics"}).Body)) {
		name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE "), "{")
		if strings.HasPrefix(name, "greenroom_") && !strings.HasPrefix(name, "greenroom_http_") {
			text.WriteString(line)
		}
	}
	return text.String()
}

// series lists those of one name whose value is not zero.
func (h *house) series(name string) []string {
	h.t.Helper()
	out := []string{}
	for line := range strings.Lines(h.exposition()) {
		if strings.HasPrefix(line, name+"{") && !strings.HasSuffix(line, " 0\n") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// order plans a guest, and has it on its way for a while before it boots.
func (h *house) order(c *clock, cache string, took time.Duration) lease.Guest {
	h.t.Helper()
	ctx, fleet := h.t.Context(), h.store.Fleet()
	spec := fleet.Cache(cache)
	g, err := h.store.Plan(ctx, fleet.Pool(spec.Pools[0]), spec, spec.Pools[0]+"-a", "digest", false)
	h.must(err)
	c.pass(took)
	g, err = h.store.Claim(ctx, g, lease.Provisioning, "run", "", 0)
	h.must(err)
	return h.make(g, g.Incarnation)
}

func (h *house) make(g lease.Guest, incarnation int) lease.Guest {
	h.t.Helper()
	g, err := h.store.Publish(h.t.Context(), g, "run", incarnation, lease.Machine{ID: "1", Host: "127.0.0.1", Port: 22, User: "root", HostKey: "ssh-ed25519 AAAA"})
	h.must(err)
	g, err = h.store.Booted(h.t.Context(), g)
	h.must(err)
	return g
}

// retire takes a guest off the record for a reason.
func (h *house) retire(g lease.Guest, reason string) {
	h.t.Helper()
	g, err := h.store.Claim(h.t.Context(), g, lease.Retiring, "run", reason, 0)
	h.must(err)
	h.must(h.store.Remove(h.t.Context(), g, "run", reason))
}

var platform = lease.Caller{Name: "jenkins", Owner: "platform", Role: lease.User}

// lease asks the store for a guest, so that no call of the API is counted.
func (h *house) lease(cache string) lease.Lease {
	h.t.Helper()
	l, err := h.store.Acquire(h.t.Context(), platform, lease.Request{Cache: cache, Wait: lease.Forever})
	h.must(err)
	return l
}

func (h *house) release(l lease.Lease, r lease.Release) {
	h.t.Helper()
	_, err := h.store.Release(h.t.Context(), platform, l.ID, r)
	h.must(err)
}

// busy makes a small fleet that has seen something of everything.
func (h *house) busy(c *clock) {
	ctx, dog := h.t.Context(), lease.Caller{Name: "watchdog", Role: lease.System}
	h.order(c, "ci", 20*time.Second)
	h.release(h.lease("ci"), lease.Release{Outcome: "pass"})
	h.lease("ci") // has the guest, so that the next one waits
	second := h.lease("ci")
	dead := h.order(c, "ci", 3*time.Second)
	c.pass(5 * time.Minute)
	h.release(second, lease.Release{Outcome: "fail"})
	dead, err := h.store.Taint(ctx, dog, dead, lease.Taint{Reason: "dead", Death: true})
	h.must(err)
	dead, err = h.store.Claim(ctx, dead, lease.Replacing, "run", "dead", 0)
	h.must(err)
	c.pass(40 * time.Second)
	h.make(dead, 2)
	h.retire(h.order(c, "ci", time.Second), "excess")
	h.order(c, "big", time.Second)
	lab := lease.Caller{Name: "alice", Owner: "research", Role: lease.User}
	_, err = h.store.Acquire(ctx, lab, lease.Request{Cache: "lab", Wait: lease.Forever})
	h.must(err)
	h.must(h.store.Toggle(ctx, dog, "lab", lease.Override{By: "root"}))
	c.pass(42 * time.Second)
}

func TestTheMetricsOfASmallFleet(t *testing.T) {
	h, c := frozenHouse(t)
	h.busy(c)
	file := filepath.Join("testdata", "metrics.txt")
	got := h.exposition()
	if *update {
		h.must(os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	h.must(err)
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("other than %s (write it anew with -update):\n%s", file, diff)
	}
}

func TestCallsAreCountedUnderTheTemplateOfTheirRoute(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	h.shelve("ci")
	h.acquire(h.user, client.Request{Cache: "ci"})
	h.refused(404, "unknown_cache", sent{token: h.user, method: "GET", path: "/v1/caches/nosuch"})
	h.refused(404, "not_found", sent{method: "GET", path: "/v1/nosuch", against: true})
	var got []string
	for line := range strings.Lines(string(h.do(sent{method: "GET", path: "/metrics"}).Body)) {
		if strings.HasPrefix(line, "greenroom_http_request_seconds_count") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	want := []string{
		`greenroom_http_request_seconds_count{code="201",route="/v1/leases"} 1`,
		`greenroom_http_request_seconds_count{code="404",route="/v1/caches/{cache}"} 1`,
		`greenroom_http_request_seconds_count{code="404",route="unmatched"} 1`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTheMetricsHaveGoodNames(t *testing.T) {
	h, c := frozenHouse(t)
	h.busy(c)
	h.do(sent{method: "GET", path: "/healthz"})
	problems, err := testutil.GatherAndLint(h.parts.Registry)
	h.must(err)
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestAScrapeAnswersWhileTheStoreIsAway(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	h.shelve("ci")
	h.acquire(h.user, client.Request{Cache: "ci"})
	h.exposition()
	h.outage = lease.ErrUnavailable
	text := h.exposition()
	for _, want := range []string{
		"greenroom_store_up 0", `greenroom_pool_max{pool="local"} 4`, `greenroom_cache_warm{cache="ci"} 1`,
		`greenroom_lease_wait_seconds_count{cache="ci",source="shelf"} 1`,
	} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("no %s in:\n%s", want, text)
		}
	}
	for _, family := range []string{"greenroom_guests", "greenroom_cache_hits_total", "greenroom_guest_deaths_total"} {
		if strings.Contains(text, family) {
			t.Errorf("%s in:\n%s", family, text)
		}
	}
	if h.outage = nil; !strings.Contains(h.exposition(), "\ngreenroom_store_up 1\n") {
		t.Error("it is not up again")
	}
}

func TestWhatWasOnOrderBeforeARestartIsMeasuredFromItsOrder(t *testing.T) {
	h, c := frozenHouse(t)
	fleet := h.store.Fleet()
	planned, err := h.store.Plan(t.Context(), fleet.Pool("local"), fleet.Cache("ci"), "local-a", "digest", false)
	h.must(err)
	c.pass(90 * time.Second)
	changes := &Changes{}
	h.store = lease.New(h.rdb, lease.Options{Notify: changes.tell})
	h.must(h.store.Adopt(t.Context(), fleet))
	h.parts.Store, h.parts.Changes = h.store, changes
	h.serveAgain()
	g, err := h.store.Claim(t.Context(), planned, lease.Provisioning, "run", "", 0)
	h.must(err)
	c.pass(30 * time.Second)
	h.make(g, g.Incarnation)
	if diff := cmp.Diff([]string{`greenroom_guest_ready_seconds_sum{pool="local"} 120`}, h.series("greenroom_guest_ready_seconds_sum")); diff != "" {
		t.Error(diff)
	}
}

// without is the fleet without cache lab and pool big.
func without() *specs.Fleet {
	fleet := testFleet()
	fleet.Revision = "test-2"
	fleet.Pools, fleet.Caches = fleet.Pools[1:], fleet.Caches[:1]
	return fleet
}

func TestSeriesEndWithTheLastGuestOfWhatTheSpecHasNoMore(t *testing.T) {
	h, c := frozenHouse(t)
	h.busy(c)
	g := h.order(c, "lab", time.Second) // leased to nobody: the cache is disabled
	spare, err := h.store.Guest(t.Context(), "big-1")
	h.must(err)
	_, err = h.store.Taint(t.Context(), lease.Caller{Name: "watchdog", Role: lease.System}, g, lease.Taint{Reason: "vanished", Death: true})
	h.must(err)
	h.must(h.store.Adopt(t.Context(), without()))
	names := func() []string {
		found := map[string]bool{}
		for _, m := range regexp.MustCompile(`(cache|pool)="(\w+)"`).FindAllString(h.exposition(), -1) {
			found[m] = true
		}
		return slices.Sorted(maps.Keys(found))
	}
	for _, step := range []struct {
		then string
		do   func()
		want []string
	}{
		{"both have a guest", func() {}, []string{`cache="big"`, `cache="ci"`, `cache="lab"`, `cache="local"`, `pool="big"`, `pool="local"`}},
		{"only the pool has one", func() { h.retire(g, "removed") }, []string{`cache="big"`, `cache="ci"`, `cache="local"`, `pool="big"`, `pool="local"`}},
		{"neither has", func() { h.retire(spare, "removed") }, []string{`cache="ci"`, `cache="local"`, `pool="local"`}},
		{"both are back", func() { h.must(h.store.Adopt(t.Context(), testFleet())) }, []string{`cache="big"`, `cache="ci"`, `cache="lab"`, `cache="local"`, `pool="big"`, `pool="local"`}},
	} {
		step.do()
		if diff := cmp.Diff(step.want, names()); diff != "" {
			t.Errorf("%s:\n%s", step.then, diff)
		}
	}
	want := []string{`greenroom_guest_deaths_total{pool="big",reason="vanished"} 1`, `greenroom_guest_deaths_total{pool="local",reason="dead"} 1`}
	if diff := cmp.Diff(want, h.series("greenroom_guest_deaths_total")); diff != "" {
		t.Errorf("what the store has counted:\n%s", diff)
	}
}

// trips counts the round trips to the store, less those that open a connection.
type trips struct{ n atomic.Int64 }

func (c *trips) count(cmd redis.Cmder) {
	if name := cmd.Name(); name != "hello" && name != "client" {
		c.n.Add(1)
	}
}

func (c *trips) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.count(cmd)
		return next(ctx, cmd)
	}
}

func (c *trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.count(cmds[0])
		return next(ctx, cmds)
	}
}

// inspect registers the metrics of the other parts beside those of the API, as a whole server does.
func (h *house) inspect() {
	h.t.Helper()
	h.parts.Registry = prometheus.NewRegistry()
	dog, err := watchdog.New(watchdog.Options{Store: h.store, Registerer: h.parts.Registry})
	h.must(err)
	loop := reconcile.New(reconcile.Options{Store: h.store, Registry: h.parts.Registry})
	h.parts.Prober, h.parts.Reconciler = dog, loop
	server := httptest.NewServer(Handler(h.parts))
	h.t.Cleanup(server.Close)
	h.url = server.URL
}

func TestAScrapeTakesTwoRoundTripsHoweverManyGuestsThereAre(t *testing.T) {
	eachHouse(t, func(h *house) {
		h.inspect()
		h.store = lease.New(h.rdb, lease.Options{}) // tells nobody, so that nobody goes and reads
		h.must(h.store.Adopt(h.t.Context(), testFleet()))
		h.shelve("ci")
		h.exposition() // the first brings the script
		count := &trips{}
		h.rdb.AddHook(count)
		scrape := func() int64 {
			before := count.n.Load()
			h.exposition()
			return count.n.Load() - before
		}
		few := scrape()
		for range 3 {
			h.shelve("ci")
			h.shelve("lab")
			h.shelve("big")
		}
		if many := scrape(); few != 2 || many != few {
			h.t.Errorf("%d round trips with one guest, %d with ten, want 2", few, many)
		}
	})
}

func TestScrapesDoNotStandInEachOthersWay(t *testing.T) {
	eachHouse(t, func(h *house) {
		h.inspect()
		h.shelve("ci")
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 10 {
					resp, err := http.Get(h.url + "/metrics")
					if err != nil {
						h.t.Error(err)
						return
					}
					if resp.Body.Close(); resp.StatusCode != http.StatusOK {
						h.t.Error(resp.Status)
					}
				}
			})
		}
		all.Go(func() {
			for range 20 {
				h.release(h.lease("ci"), lease.Release{})
			}
		})
		all.Go(func() {
			for range 5 {
				h.must(h.store.Adopt(h.t.Context(), without()))
				h.must(h.store.Adopt(h.t.Context(), testFleet()))
			}
		})
		all.Wait()
		want := []string{`greenroom_leases_ended_total{cache="ci",how="released"} 20`}
		if diff := cmp.Diff(want, h.series("greenroom_leases_ended_total")); diff != "" {
			h.t.Error(diff)
		}
	})
}

func TestTheMetricsTellOfPlans(t *testing.T) {
	h, _ := plansHouse(t)
	var got []string
	for line := range strings.Lines(h.exposition()) {
		if strings.HasPrefix(line, "greenroom_plans{") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	want := []string{`greenroom_plans{phase="failed"} 0`, `greenroom_plans{phase="making"} 0`, `greenroom_plans{phase="ready"} 1`, `greenroom_plans{phase="replaced"} 0`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// collected is a registerer that keeps what is registered.
type collected struct{ all []prometheus.Collector }

func (c *collected) Register(one prometheus.Collector) error { c.MustRegister(one); return nil }

func (c *collected) MustRegister(some ...prometheus.Collector) { c.all = append(c.all, some...) }

func (c *collected) Unregister(prometheus.Collector) bool { return false }

func TestTheDocsListEveryMetricWithItsTypeAndLabels(t *testing.T) {
	h, c := frozenHouse(t)
	h.inspect()
	h.busy(c)
	h.exposition()
	parts := &collected{}
	_, err := watchdog.New(watchdog.Options{Store: h.store, Registerer: parts})
	h.must(err)
	reconcile.New(reconcile.Options{Store: h.store, Registry: parts})
	parts.MustRegister(newMetrics(&api{Parts: Parts{Store: h.store}.withDefaults()}))
	served := map[string]string{}
	for _, one := range parts.all {
		descs := make(chan *prometheus.Desc, 100)
		one.Describe(descs)
		close(descs)
		for d := range descs {
			m := regexp.MustCompile(`fqName: "(\w+)".*variableLabels: \{([^}]*)\}`).FindStringSubmatch(d.String())
			served[m[1]] = m[2]
		}
	}
	text, err := os.ReadFile("../../docs/metrics.md")
	h.must(err)
	listed, types := map[string]string{}, map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\| (.*?) ?\\|").FindAllStringSubmatch(string(text), -1) {
		listed[m[1]] = strings.ReplaceAll(strings.ReplaceAll(m[3], "`", ""), ", ", ",")
		types[m[1]] = m[2]
	}
	if diff := cmp.Diff(served, listed); diff != "" {
		t.Errorf("-served +listed:\n%s", diff)
	}
	families, err := h.parts.Registry.Gather()
	h.must(err)
	for _, f := range families {
		if kind := strings.ToLower(f.GetType().String()); strings.HasPrefix(f.GetName(), "greenroom_") && types[f.GetName()] != kind {
			t.Errorf("%s is listed as a %s, and is a %s", f.GetName(), types[f.GetName()], kind)
		}
	}
}
