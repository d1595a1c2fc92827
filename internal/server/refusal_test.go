package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/lease/leasetest"
	"greenroom/reconcile/condition"
)

// Each refusal names its code, and none of them changes what the store has.
func TestBadInputIsRefusedAndNothingIsLost(t *testing.T) {
	eachHouse(t, func(h *house) {
		guest := h.shelve("ci")
		mine := h.acquire(h.user, client.Request{Cache: "ci"})
		over := h.overLease()
		before := h.dump()
		expired := h.token("old", "platform", lease.User, client.Duration(time.Nanosecond))
		post := func(body any) sent {
			return sent{token: h.user, method: "POST", path: "/v1/leases", body: body, against: true}
		}
		for name, c := range map[string]struct {
			status int
			code   string
			sent   sent
		}{
			"an oversized body":             {413, "too_large", post(`{"cache": "` + strings.Repeat("x", maxBody) + `"}`)},
			"malformed JSON":                {400, "malformed", post(`{"cache": `)},
			"broken JSON":                   {400, "malformed", post(`{"cache" "ci"}`)},
			"a list":                        {400, "malformed", post(`[]`)},
			"null":                          {400, "malformed", post(`null`)},
			"white space":                   {400, "malformed", post(`  `)},
			"two objects":                   {400, "malformed", post(`{"cache": "ci"} {}`)},
			"a wrong type":                  {400, "malformed", post(`{"cache": 7}`)},
			"a duration that is a number":   {400, "malformed", post(`{"cache": "ci", "ttl": 30}`)},
			"a negative duration":           {400, "malformed", post(`{"cache": "ci", "ttl": "-1s"}`)},
			"an unknown field":              {400, "unknown_field", post(`{"cache": "ci", "guest": "local-1"}`)},
			"a body where none is":          {400, "unknown_field", sent{token: h.admin, method: "DELETE", path: "/v1/caches/ci/override", body: `{"a": 1}`, against: true}},
			"a form":                        {415, "unsupported_media", sent{token: h.user, method: "POST", path: "/v1/leases", body: "cache=ci", header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, against: true}},
			"no content type":               {415, "unsupported_media", sent{token: h.user, method: "POST", path: "/v1/leases", body: "{}", header: map[string]string{"Content-Type": ""}, against: true}},
			"a key that is none":            {400, "invalid", post(client.Request{Cache: "ci", PublicKey: "ssh-rsa nothing"})},
			"a key with options":            {400, "invalid", post(client.Request{Cache: "ci", PublicKey: `command="true" ` + edKey})},
			"a long reason to taint":        {400, "invalid", sent{token: h.admin, method: "POST", path: "/v1/guests/" + guest.Name + "/taint", body: client.Reason{Reason: strings.Repeat("r", maxReason+1)}, against: true}},
			"a long reason to pause":        {400, "invalid", sent{token: h.admin, method: "POST", path: "/v1/pools/local/pause", body: client.Reason{Reason: strings.Repeat("r", maxReason+1)}, against: true}},
			"a long reason to disable":      {400, "invalid", sent{token: h.admin, method: "POST", path: "/v1/caches/ci/disable", body: client.Toggle{Reason: strings.Repeat("r", maxReason+1)}, against: true}},
			"two keys":                      {400, "invalid", post(client.Request{Cache: "ci", PublicKey: edKey + "\n" + edKey})},
			"a negative capacity":           {400, "invalid", post(client.Request{Cache: "ci", AtLeast: map[string]float64{"cpus": -1}})},
			"a ttl below a second":          {400, "invalid", post(client.Request{Cache: "ci", TTL: 1})},
			"a long idempotency key":        {400, "invalid", sent{token: h.user, method: "POST", path: "/v1/leases", header: map[string]string{"Idempotency-Key": strings.Repeat("k", 129)}, against: true}},
			"an unknown cache":              {404, "unknown_cache", post(client.Request{Cache: "cd"})},
			"an impossible request":         {422, "impossible", post(client.Request{Cache: "ci", Labels: map[string]string{"os": "plan9"}})},
			"another team's cache":          {403, "not_yours", post(client.Request{Cache: "lab"})},
			"nothing ready, not waiting":    {409, "none_ready", post(client.Request{Cache: "ci", Wait: new(client.Duration)})},
			"no token":                      {401, "unauthorized", sent{method: "POST", path: "/v1/leases"}},
			"a foreign token":               {401, "unauthorized", sent{token: "gr_FOREIGN", method: "POST", path: "/v1/leases"}},
			"an expired token":              {401, "unauthorized", sent{token: expired, method: "POST", path: "/v1/leases"}},
			"basic authentication":          {401, "unauthorized", sent{method: "GET", path: "/v1/leases", header: map[string]string{"Authorization": "Basic cm9vdDpyb290"}}},
			"a user who taints":             {403, "forbidden", sent{token: h.user, method: "POST", path: "/v1/guests/" + guest.Name + "/taint"}},
			"a user who holds":              {403, "forbidden", sent{token: h.user, method: "POST", path: "/v1/guests/" + guest.Name + "/hold", body: client.Hold{For: 1}}},
			"a user who disables":           {403, "forbidden", sent{token: h.user, method: "POST", path: "/v1/caches/ci/disable"}},
			"a user who removes a guest":    {403, "forbidden", sent{token: h.user, method: "DELETE", path: "/v1/caches/ci/guests/" + guest.Name}},
			"a user who pauses":             {403, "forbidden", sent{token: h.user, method: "POST", path: "/v1/pools/local/pause"}},
			"a user who reconciles":         {403, "forbidden", sent{token: h.user, method: "POST", path: "/v1/reconcile"}},
			"a user who makes tokens":       {403, "forbidden", sent{token: h.user, method: "POST", path: "/v1/tokens", body: client.NewToken{Name: "x", Owner: "x", Role: lease.Admin}}},
			"another team's lease":          {403, "not_yours", sent{token: h.stranger, method: "DELETE", path: "/v1/leases/" + mine.ID}},
			"renewing another team's lease": {403, "not_yours", sent{token: h.stranger, method: "POST", path: "/v1/leases/" + mine.ID + "/renew"}},
			"an unknown lease":              {404, "unknown_lease", sent{token: h.user, method: "GET", path: "/v1/leases/ci.NOSUCHLEASE"}},
			"a lease id that is none":       {404, "unknown_lease", sent{token: h.user, method: "GET", path: "/v1/leases/%7Bci%7D:x"}},
			"an ended lease":                {410, "lease_over", sent{token: h.user, method: "POST", path: "/v1/leases/" + over + "/renew"}},
			"an odd outcome":                {400, "invalid", sent{token: h.user, method: "DELETE", path: "/v1/leases/" + mine.ID, body: client.Release{Outcome: "meh"}, against: true}},
			"an odd wait":                   {400, "malformed", sent{token: h.user, method: "GET", path: "/v1/leases/" + mine.ID + "?wait=soon", against: true}},
			"an unknown cache to look at":   {404, "unknown_cache", sent{token: h.user, method: "GET", path: "/v1/caches/cd"}},
			"an unknown cache's leases":     {404, "unknown_cache", sent{token: h.user, method: "GET", path: "/v1/leases?cache=cd"}},
			"an unknown cache to disable":   {404, "unknown_cache", sent{token: h.admin, method: "POST", path: "/v1/caches/cd/disable"}},
			"an end in the past":            {400, "invalid", sent{token: h.admin, method: "POST", path: "/v1/caches/ci/disable", body: client.Toggle{Until: time.Unix(1, 0)}}},
			"two ends":                      {400, "invalid", sent{token: h.admin, method: "POST", path: "/v1/caches/ci/disable", body: client.Toggle{For: 1, Until: time.Now()}}},
			"a guest that does not exist":   {404, "unknown_guest", sent{token: h.user, method: "GET", path: "/v1/guests/local-99"}},
			"a guest name that is none":     {404, "unknown_guest", sent{token: h.admin, method: "POST", path: "/v1/guests/nobody/taint"}},
			"tainting a missing guest":      {404, "unknown_guest", sent{token: h.admin, method: "POST", path: "/v1/guests/local-99/taint"}},
			"events of a missing guest":     {404, "unknown_guest", sent{token: h.admin, method: "GET", path: "/v1/guests/local-99/events"}},
			"too many events":               {400, "malformed", sent{token: h.user, method: "GET", path: "/v1/guests/local-1/events?n=1000", against: true}},
			"a guest of another cache":      {404, "unknown_guest", sent{token: h.admin, method: "DELETE", path: "/v1/caches/lab/guests/" + guest.Name}},
			"holding a leased guest":        {409, "leased", sent{token: h.admin, method: "POST", path: "/v1/guests/" + guest.Name + "/hold", body: client.Hold{For: client.Duration(time.Minute)}}},
			"holding for no time":           {400, "invalid", sent{token: h.admin, method: "POST", path: "/v1/guests/" + guest.Name + "/hold", against: true}},
			"an unknown pool":               {404, "unknown_pool", sent{token: h.user, method: "GET", path: "/v1/pools/cloud"}},
			"pausing an unknown pool":       {404, "unknown_pool", sent{token: h.admin, method: "POST", path: "/v1/pools/cloud/pause"}},
			"resuming an unknown pool":      {404, "unknown_pool", sent{token: h.admin, method: "POST", path: "/v1/pools/cloud/resume"}},
			"guests of an unknown pool":     {404, "unknown_pool", sent{token: h.admin, method: "GET", path: "/v1/guests?pool=cloud"}},
			"reconciling an unknown pool":   {404, "unknown_pool", sent{token: h.admin, method: "POST", path: "/v1/reconcile", body: client.Reconcile{Pools: []string{"cloud"}}}},
			"an unknown token to revoke":    {404, "unknown_token", sent{token: h.admin, method: "DELETE", path: "/v1/tokens/NOSUCH"}},
			"a token for nobody's team":     {400, "invalid", sent{token: h.admin, method: "POST", path: "/v1/tokens", body: client.NewToken{Name: "x", Role: lease.User}}},
			"a token of the system's role":  {400, "invalid", sent{token: h.admin, method: "POST", path: "/v1/tokens", body: client.NewToken{Name: "x", Owner: "x", Role: lease.System}, against: true}},
			"a path that is none":           {404, "not_found", sent{token: h.user, method: "GET", path: "/v2/leases", against: true}},
			"a path with two slashes":       {404, "not_found", sent{token: h.user, method: "GET", path: "//v1/leases", against: true}},
			"a method that is none":         {405, "method_not_allowed", sent{token: h.user, method: "PUT", path: "/v1/leases", against: true}},
		} {
			p, header := h.refused(c.status, c.code, c.sent)
			if p.Detail == "" || strings.Contains(p.Detail, "\n") {
				h.t.Errorf("%s: the detail %q is no line for people", name, p.Detail)
			}
			if want := map[string]string{
				"a duration that is a number": `a duration such as "30m"`, "a wrong type": "a string", "nothing ready, not waiting": "every guest of cache ci is leased",
			}[name]; !strings.Contains(p.Detail, want) {
				h.t.Errorf("%s: the detail %q does not say %q", name, p.Detail, want)
			}
			if (c.status == 401) != (header.Get("WWW-Authenticate") != "") {
				h.t.Errorf("%s: WWW-Authenticate is %q", name, header.Get("WWW-Authenticate"))
			}
			if c.status == 405 && header.Get("Allow") != "GET, HEAD, POST" {
				h.t.Errorf("%s: Allow is %q", name, header.Get("Allow"))
			}
		}
		if after := h.dump(); after != before {
			h.t.Errorf("the store has changed from\n%s\nto\n%s", before, after)
		}
		if text := h.logs.String(); text != "" {
			h.t.Errorf("bad input was logged as a fault of ours: %s", text)
		}
	})
}

const edKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHguu/XameD6Ig/QW4wvXBRSrivQQwT9bmogJW5SMzEo"

// overLease is the id of a lease that has ended.
func (h *house) overLease() string {
	h.t.Helper()
	l := ask[client.Lease](h, 202, sent{token: h.user, method: "POST", path: "/v1/leases", body: client.Request{Cache: "ci"}})
	ask[client.Lease](h, 200, sent{token: h.user, method: "DELETE", path: "/v1/leases/" + l.ID})
	return l.ID
}

// dump is everything in the store that a bad call could have touched.
func (h *house) dump() string {
	h.t.Helper()
	out := ""
	for _, c := range h.store.Fleet().AllCaches() {
		st, err := h.store.Stock(h.t.Context(), c.Name)
		h.must(err)
		leases, err := h.store.Leases(h.t.Context(), c.Name, 100)
		h.must(err)
		queue, err := h.store.Queue(h.t.Context(), c.Name, 100)
		h.must(err)
		guests, err := h.store.CacheGuests(h.t.Context(), c.Name)
		h.must(err)
		out += fmt.Sprintf("%+v %+v %+v %+v\n", st, leases, queue, guests)
	}
	return out
}

func TestAStoreThatIsAwayIsSaidSo(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	h.outage = fmt.Errorf("%w: connection refused", lease.ErrUnavailable)
	for _, path := range []string{"/v1/leases", "/v1/caches", "/v1/guests", "/readyz"} {
		want := "unavailable"
		if path == "/readyz" {
			want = "not_ready"
		}
		if _, header := h.refused(503, want, sent{token: h.admin, method: "GET", path: path}); header.Get("Retry-After") == "" {
			h.t.Errorf("%s: there is no Retry-After", path)
		}
	}
	h.refused(401, "unauthorized", sent{method: "GET", path: "/v1/leases"})
	ask[map[string]string](h, 200, sent{method: "GET", path: "/healthz"})
	ask[struct{ Tokens []client.Token }](h, 200, sent{token: h.admin, method: "GET", path: "/v1/tokens"})
	st := ask[client.Status](h, 200, sent{token: h.admin, method: "GET", path: "/v1/status"})
	if st.Store == "" || len(st.Pools) != 1 {
		h.t.Errorf("status: %+v", st)
	}
}

func TestARedisThatGoesAwayIsAnswered503(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})
	defer rdb.Close()
	a := &api{Parts: Parts{Store: lease.New(rdb, lease.Options{})}.withDefaults()}
	if _, err := a.listGuests(t.Context(), lease.Caller{Role: lease.Admin}, request[none]{http: &http.Request{}}); problemOf(err).Code != "unavailable" {
		t.Errorf("answered %+v for %v", problemOf(err), err)
	}
}

func TestNoSpecInForceIsNoUnknownCache(t *testing.T) {
	h := &house{t: t, loop: &fakeLoop{}, dog: &fakeDog{}, logs: &logBuffer{}, store: lease.New(leasetest.Embedded(t), lease.Options{})}
	a := &api{Parts: Parts{Store: h.store}.withDefaults()}
	_, err := a.acquire(t.Context(), lease.Caller{}, request[client.Request]{Body: client.Request{Cache: "ci"}, http: &http.Request{}})
	if problemOf(err).Code != "not_ready" {
		t.Errorf("acquire: %v", err)
	}
	if _, err = a.cache("ci"); problemOf(err).Code != "not_ready" {
		t.Errorf("cache: %v", err)
	}
}

func TestAPanicIsAnsweredAndLoggedOnceWithoutItsText(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	h.parts.Reconciler = panicLoop{}
	h.serveAgain()
	p, _ := h.refused(500, "internal", sent{token: h.admin, method: "GET", path: "/v1/pools"})
	if strings.Contains(p.Detail, "secret") || strings.Count(h.logs.String(), "a secret state") != 1 {
		t.Errorf("answered %q, logged %q", p.Detail, h.logs)
	}
}

type panicLoop struct{ reconciler }

func (panicLoop) Status(context.Context) (condition.Status, error) { panic("a secret state") }

func TestAnUnknownErrorIsInternal(t *testing.T) {
	if p := problemOf(errors.New("dial tcp 10.0.0.1: password hunter2")); p.Code != "internal" || strings.Contains(p.Detail, "hunter2") {
		t.Errorf("answered %+v", p)
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{`{}`, `{"cache":"ci","at_least":{"cpus":2},"ttl":"30m","wait":"0s"}`, `{"a":1}`, `[`, `{"ttl":1}`, `{} {}`, "\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var r client.Request
		err := decode(body, &r)
		if err == nil {
			if r.TTL < 0 || r.Wait != nil && *r.Wait < 0 {
				t.Errorf("%q was read as %+v", body, r)
			}
			return
		}
		if p := problemOf(err); p.Status != http.StatusBadRequest {
			t.Errorf("%q is answered %+v", body, p)
		}
	})
}
