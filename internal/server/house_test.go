package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"greenroom/internal/ssh"
	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/lease/leasetest"
	"greenroom/reconcile/condition"
	"greenroom/specs"
	"greenroom/watchdog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is the API on a real store, with every call and answer held against the OpenAPI document.
type house struct {
	t      testing.TB
	store  *lease.Store
	rdb    redis.UniversalClient
	parts  Parts
	url    string
	router routers.Router
	loop   *fakeLoop
	dog    *fakeDog
	logs   *logBuffer
	outage error

	admin, user, stranger string // bearer tokens
}

// fakeLoop stands for the reconcile loop, whose answers the tests choose.
type fakeLoop struct {
	mu     sync.Mutex
	status condition.Status
	err    error
	woken  []string
}

func (f *fakeLoop) Status(context.Context) (condition.Status, error) { return f.status, f.err }

func (f *fakeLoop) Trouble() error {
	if f.err == nil && f.status.Terraform == "" {
		return errors.New("no usable Terraform was found")
	}
	return f.err
}

func (f *fakeLoop) Wake(pools ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.woken = append(f.woken, fmt.Sprint(pools))
}

func (f *fakeLoop) Runs(pool string) []condition.RunStatus {
	plan := condition.RunPlan{Create: []string{pool + "-1"}}
	return []condition.RunStatus{{Run: "r7", Shard: pool + "-1234-1", Plan: plan, Created: plan.Create, Result: "ok"}}
}

func (f *fakeLoop) Explain(ctx context.Context, cache string) string {
	if _, ok := ctx.Deadline(); !ok {
		return "this may take for ever"
	}
	return "every guest of cache " + cache + " is leased"
}

// fakeDog stands for the watchdog.
type fakeDog struct {
	err    error
	brakes map[string]string
}

func (f *fakeDog) Probe(_ context.Context, g lease.Guest) (string, error) {
	if f.err != nil {
		return "", f.err
	}
	return "ssh: " + g.Name + " answers", nil
}

func (f *fakeDog) Brakes() map[string]string { return f.brakes }

func (f *fakeDog) Standings(context.Context, string) ([]watchdog.Standing, error) {
	last := watchdog.Result{Kind: "ssh", At: time.Now(), Outcome: watchdog.Failed, Detail: "dial tcp 192.0.2.7:22: connection refused", Took: time.Second}
	probe := specs.Probe{Kind: "ssh", Every: 10 * time.Second, Failures: 3}
	return []watchdog.Standing{{Probe: probe, Last: last, Failures: 2, Next: last.At.Add(probe.Every)}, {Probe: probe}}, f.err
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func testFleet() *specs.Fleet {
	pool := func(name string, maximum int) *specs.Pool {
		return &specs.Pool{
			Name: name, Module: "local", Max: maximum, ShardSize: 25, Labels: map[string]string{"os": "debian-12"},
			Capacity: map[string]float64{"cpus": 2}, Variables: json.RawMessage("{}"),
		}
	}
	cache := func(name, owner, pool string) *specs.Cache {
		return &specs.Cache{
			Name: name, Owner: owner, Pools: []string{pool}, Warm: 1, Size: 3, Max: 4, Enabled: true,
			Lease: specs.Lease{TTL: time.Minute, Max: time.Hour}, Hold: specs.Hold{For: time.Hour, Max: 1},
		}
	}
	return &specs.Fleet{
		Revision: "test-1", Pools: []*specs.Pool{pool("big", 8), pool("local", 4)},
		Caches: []*specs.Cache{cache("ci", "platform", "local"), cache("lab", "research", "big")},
	}
}

// eachHouse runs a test on every store.
func eachHouse(t *testing.T, test func(h *house)) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) { test(newHouse(t, rdb)) })
}

func newHouse(t testing.TB, rdb redis.UniversalClient) *house {
	t.Helper()
	h := &house{t: t, rdb: rdb, loop: &fakeLoop{}, dog: &fakeDog{}, logs: &logBuffer{}}
	changes := &Changes{}
	h.store = lease.New(rdb, lease.Options{Notify: changes.tell})
	h.must(h.store.Sweep(t.Context()))
	h.must(h.store.Open(t.Context()))
	h.must(h.store.Adopt(t.Context(), testFleet()))
	tokens, err := OpenTokens(t.TempDir(), time.Now)
	h.must(err)
	key, _, err := ssh.NewEphemeral()
	h.must(err)
	h.loop.status = condition.Status{
		Revision: "test-1", Source: "a test", SpecValid: true, SpecSince: time.Now(), Terraform: "1.11.4",
		Pools: []condition.PoolStatus{{
			Pool: "local", Module: "local", Max: 4, Guests: map[lease.State]int{lease.Shelved: 1},
			Shards: []condition.ShardStatus{{Shard: "local-a", Pool: "local", Conditions: []condition.Condition{{Type: condition.Ready, Status: true, Reason: "Converged"}}}},
		}},
	}
	h.parts = Parts{
		Store: h.store, Reconciler: h.loop, Prober: h.dog, Signer: lease.NewSigner([]byte(strings.Repeat("k", 32))),
		Authority: ssh.Authority{Key: key}, Tokens: tokens, Changes: changes,
		Log: slog.New(slog.NewTextHandler(h.logs, nil)), Outage: func() error { return h.outage },
	}
	h.parts.Feed = NewFeed(h.store, time.Now, nil)
	changes.Subscribe(h.parts.Feed.Notify)
	h.admin = h.token("root", "admin", lease.Admin, 0)
	h.user = h.token("jenkins", "platform", lease.User, 0)
	h.stranger = h.token("alice", "research", lease.User, 0)
	h.router = contract(t)
	h.serveAgain()
	return h
}

// serveAgain starts a server on the parts as they are now.
func (h *house) serveAgain() {
	h.parts.Registry = prometheus.NewRegistry()
	server := httptest.NewServer(Handler(h.parts))
	h.t.Cleanup(server.Close)
	h.t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	h.url = server.URL
}

// forget loses the whole store but for a guest, which is found again as after a loss.
func (h *house) forget(g lease.Guest) {
	h.t.Helper()
	h.must(h.rdb.FlushDB(h.t.Context()).Err())
	h.must(h.store.Open(h.t.Context()))
	h.must(h.store.Adopt(h.t.Context(), testFleet()))
	h.must(h.store.Found(h.t.Context(), g, lease.Machine{ID: g.ID, Host: g.Host, Port: g.Port, User: g.User, HostKey: g.HostKey}, time.Now().Add(time.Hour)))
}

// contract reads the document; its server entry is "/", so that it routes for any address.
func contract(t testing.TB) routers.Router {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(document)
	if err == nil {
		err = doc.Validate(t.Context())
	}
	if err != nil {
		t.Fatalf("the OpenAPI document: %v", err)
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return router
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) token(name, owner string, role lease.Role, length client.Duration) string {
	h.t.Helper()
	made, err := h.parts.Tokens.Create(client.NewToken{Name: name, Owner: owner, Role: role, For: length})
	h.must(err)
	return made.Secret
}

// shelve puts one more guest of a cache on its shelf, by the steps that the loop takes.
func (h *house) shelve(cache string) lease.Guest {
	h.t.Helper()
	ctx, fleet := h.t.Context(), h.store.Fleet()
	c := fleet.Cache(cache)
	g, err := h.store.Plan(ctx, fleet.Pool(c.Pools[0]), c, c.Pools[0]+"-a", "digest", false)
	h.must(err)
	g, err = h.store.Claim(ctx, g, lease.Provisioning, "run", "", 0)
	h.must(err)
	g, err = h.store.Publish(ctx, g, "run", g.Incarnation, lease.Machine{ID: "1", Host: "127.0.0.1", Port: 22, User: "root", HostKey: "ssh-ed25519 AAAA"})
	h.must(err)
	g, err = h.store.Booted(ctx, g)
	h.must(err)
	return g
}

// sent is one call; a string is sent as it stands, anything else as JSON.
type sent struct {
	token, method, path string
	body                any
	header              map[string]string
	against             bool // the call breaks the contract on purpose: only its answer is held against it
}

type got struct {
	Status int
	Header http.Header
	Body   []byte
}

// do makes a call and holds both sides against the document.
func (h *house) do(s sent) got {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), s.method, h.url+s.path, bytes.NewReader(h.bodyOf(s.body)))
	h.must(err)
	if s.token != "" {
		req.Header.Set("Authorization", "Bearer "+s.token)
	}
	if s.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range s.header {
		req.Header.Set(k, v)
	}
	input := h.route(req, s)
	resp, err := http.DefaultTransport.RoundTrip(req)
	h.must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	h.must(err)
	if input != nil {
		out := &openapi3filter.ResponseValidationInput{RequestValidationInput: input, Status: resp.StatusCode, Header: resp.Header, Options: input.Options}
		if err := openapi3filter.ValidateResponse(h.t.Context(), out.SetBodyBytes(body)); err != nil {
			h.t.Errorf("%s %s: the answer %d %s breaks the contract: %.600v", s.method, s.path, resp.StatusCode, body, err)
		}
	}
	return got{resp.StatusCode, resp.Header, body}
}

func (h *house) bodyOf(body any) []byte {
	switch body := body.(type) {
	case nil:
		return nil
	case string:
		return []byte(body)
	}
	text, err := json.Marshal(body)
	h.must(err)
	return text
}

// route validates the call; nil for one that the document has no path for.
func (h *house) route(req *http.Request, s sent) *openapi3filter.RequestValidationInput {
	h.t.Helper()
	route, params, err := h.router.FindRoute(req)
	if err != nil {
		if !s.against {
			h.t.Fatalf("%s %s is not in the document: %.300v", s.method, s.path, err)
		}
		return nil
	}
	input := &openapi3filter.RequestValidationInput{
		Request: req, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true},
	}
	if s.against {
		return input
	}
	body := h.bodyOf(s.body)
	if err := openapi3filter.ValidateRequest(h.t.Context(), input); err != nil {
		h.t.Fatalf("%s %s: the call %s breaks the contract: %.600v", s.method, s.path, body, err)
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	return input
}

// ask makes a call that must succeed with a status, and reads its answer.
func ask[Out any](h *house, status int, s sent) Out {
	h.t.Helper()
	var out Out
	g := h.do(s)
	if g.Status != status {
		h.t.Fatalf("%s %s: %d %s, want %d", s.method, s.path, g.Status, g.Body, status)
	}
	if len(g.Body) > 0 {
		h.must(json.Unmarshal(g.Body, &out))
	}
	return out
}

// refused makes a call that must fail with a status and a code, and returns the problem.
func (h *house) refused(status int, code string, s sent) (client.Problem, http.Header) {
	h.t.Helper()
	g := h.do(s)
	var p client.Problem
	err := json.Unmarshal(g.Body, &p)
	if err != nil || g.Status != status || p.Status != status || p.Code != code || g.Header.Get("Content-Type") != "application/problem+json" {
		h.t.Errorf("%s %s: %d %s (%s), want %d %s", s.method, s.path, g.Status, g.Body, g.Header.Get("Content-Type"), status, code)
	}
	return p, g.Header
}

func (h *house) acquire(token string, body any) client.Lease {
	h.t.Helper()
	return ask[client.Lease](h, http.StatusCreated, sent{token: token, method: "POST", path: "/v1/leases", body: body})
}

var errDead = errors.New("ssh: connection refused")
