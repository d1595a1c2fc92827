package web_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"greenroom/internal/server"
	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/lease/leasetest"
	"greenroom/reconcile/gitops"
	"greenroom/reconcile/plan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// keeper keeps plans without making any.
type keeper struct {
	mu       sync.Mutex
	plans    map[string]plan.Plan
	approved []string // by whom, and what
	fault    error
}

func (k *keeper) Get(_ context.Context, id string, _ time.Duration) (plan.Plan, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p, ok := k.plans[id]
	if !ok {
		return p, fmt.Errorf("%w <b>", gitops.ErrUnknownPlan)
	}
	return p, nil
}

func (k *keeper) Request(lease.Caller, gitops.PlanRequest) (plan.Plan, error) {
	return plan.Plan{}, errors.New("nothing is planned here")
}

func (k *keeper) List() (all []plan.Plan) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.plans {
		all = append(all, p)
	}
	return all
}

func (k *keeper) Approve(by lease.Caller, id, digest string) (plan.Plan, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p, ok := k.plans[id]
	switch {
	case k.fault != nil:
		return plan.Plan{}, k.fault
	case !ok:
		return plan.Plan{}, gitops.ErrUnknownPlan
	case p.Phase != plan.Ready:
		return plan.Plan{}, fmt.Errorf("%w: it is %s", gitops.ErrNotReady, p.Phase)
	case p.Digest != digest:
		return plan.Plan{}, gitops.ErrStale
	case p.Approved != nil:
		return p, nil
	}
	p.Approved = &plan.Approval{By: by.Name, At: now, Digest: p.Digest}
	k.plans[id] = p
	k.approved = append(k.approved, by.Name+" "+id)
	return p, nil
}

var now = time.Date(2026, 11, 20, 13, 4, 0, 0, time.UTC)

func held() plan.Plan {
	return plan.Plan{
		ID: "p1", Phase: plan.Ready, Ref: "refs/pull/12/head", By: "ci", Base: strings.Repeat("a", 40), Head: strings.Repeat("b", 40),
		Digest: "sha256-1", Made: now, Expires: now.Add(time.Hour), Summary: plan.Summary{Retire: 1, Keep: 1, Settings: 1, Anyway: 1},
		Pools:  []plan.Pool{{Pool: "local", Change: plan.Removed}, {Pool: "vm", Change: plan.Same}},
		Caches: []plan.Cache{{Cache: "ci", Owner: "platform", Change: plan.Changed, Settings: []plan.Setting{{Name: "warm", From: "2", To: "1"}}, Dip: &plan.Dip{Warm: 2, Lowest: 1, Seconds: 40}}, {Cache: "docs", Change: plan.Same}},
		Guests: []plan.Guest{
			{Guest: "local-1", Incarnation: 2, Pool: "local", Cache: "ci", State: "leased", Verb: plan.Retire, When: plan.Released, Reason: "removed", Lease: &plan.Lease{Owner: "web", Deadline: now.Add(time.Hour), Cap: now.Add(4 * time.Hour)}},
			{Guest: "vm-1", Incarnation: 1, Pool: "vm", Cache: "docs", State: "shelved", Verb: plan.Keep},
		},
		Notes:    []string{"pool vm is paused by bob"},
		Breaches: []plan.Breach{{Guard: "fleet", Retire: 1, Of: 2, Allowed: .25}},
		Terraform: &plan.Terraform{Phase: plan.Ready, Shards: []plan.Shard{
			{Shard: "local-1234-1", Pool: "local", Resources: []plan.Resource{{Address: "terraform_data.layer2", Action: "delete", Attributes: []plan.Attribute{{Path: "input", Before: `"x"`}}}}},
			{Shard: "vm-1234-1", Pool: "vm", Error: "Error: no credentials\n\n  on main.tf line 3"},
		}},
	}
}

// house is the pages of a server with a real store and real tokens. What reconciles and probes says what a test wants.
type house struct {
	t           *testing.T
	url         string
	keeper      *keeper
	loop        *loop
	dog         *dog
	store       *lease.Store
	closing     chan struct{}
	tokens      *server.Tokens
	admin, user client.Token
	stranger    client.Token

	mu     sync.Mutex
	now    time.Time
	outage error
}

// away is why the store can't be used.
func (h *house) away() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.outage
}

// leave takes the store away.
func (h *house) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.outage = fmt.Errorf("%w: connection refused", lease.ErrUnavailable)
}

func (h *house) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *house) pass(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{
		t: t, now: now, keeper: &keeper{plans: map[string]plan.Plan{"p1": held()}}, closing: make(chan struct{}),
		loop: &loop{status: standing()}, dog: &dog{},
	}
	var err error
	h.tokens, err = server.OpenTokens(t.TempDir(), h.clock)
	must(t, err)
	h.admin, err = h.tokens.Create(client.NewToken{Name: "alice", Role: lease.Admin})
	must(t, err)
	h.user, err = h.tokens.Create(client.NewToken{Name: "bob", Owner: "platform", Role: lease.User})
	must(t, err)
	h.stranger, err = h.tokens.Create(client.NewToken{Name: "carol", Owner: "research", Role: lease.User})
	must(t, err)
	var feed *server.Feed
	h.store = lease.New(leasetest.Embedded(t), lease.Options{Notify: func(c ...lease.Change) { feed.Notify(c...) }})
	feed = server.NewFeed(h.store, h.clock, h.closing)
	must(t, h.store.Sweep(t.Context()))
	must(t, h.store.Open(t.Context()))
	must(t, h.store.Adopt(t.Context(), testFleet()))
	listener := httptest.NewServer(server.Handler(server.Parts{
		Store: h.store, Reconciler: h.loop, Prober: h.dog, Plans: h.keeper, Tokens: h.tokens, Feed: feed,
		Log: slog.New(slog.DiscardHandler), Now: h.clock, Closing: h.closing, Outage: h.away,
	}))
	t.Cleanup(listener.Close)
	h.url = listener.URL
	return h
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// browser keeps cookies, follows redirects, and sends the headers of one.
type browser struct {
	*house
	http   *http.Client
	header http.Header
}

func (h *house) browser() *browser {
	jar, err := cookiejar.New(nil)
	must(h.t, err)
	transport := &http.Transport{}
	h.t.Cleanup(transport.CloseIdleConnections)
	return &browser{h, &http.Client{Jar: jar, Transport: transport}, http.Header{}}
}

// got is an answer with its body.
type got struct {
	*http.Response
	body string
}

func (b *browser) do(method, path string, form url.Values) got {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.url+path, strings.NewReader(form.Encode()))
	must(b.t, err)
	req.Header = b.header.Clone()
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	res, err := b.http.Do(req)
	must(b.t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	must(b.t, err)
	return got{res, string(body)}
}

func (b *browser) get(path string) got { b.t.Helper(); return b.do(http.MethodGet, path, nil) }

var hidden = regexp.MustCompile(`<input type="hidden" name="([a-z]+)" value="([^"]*)">`)

// fields are the hidden ones of a page's forms.
func fields(page string) url.Values {
	v := url.Values{}
	for _, m := range hidden.FindAllStringSubmatch(page, -1) {
		v.Set(m[1], m[2])
	}
	return v
}

func (b *browser) signIn(token, next string) got {
	b.t.Helper()
	form := fields(b.get("/signin?next=" + url.QueryEscape(next)).body)
	form.Set("token", token)
	return b.do(http.MethodPost, "/signin", form)
}

func (g got) want(t *testing.T, status int, path string, words ...string) {
	t.Helper()
	if g.StatusCode != status || g.Request.URL.Path != path {
		t.Errorf("%s %s answers %d, want %d at %s\n%s", g.Request.Method, g.Request.URL.Path, g.StatusCode, status, path, g.body)
	}
	for _, w := range words {
		if !strings.Contains(g.body, w) {
			t.Errorf("%s lacks %q:\n%s", path, w, g.body)
		}
	}
}

func (g got) lacks(t *testing.T, words ...string) {
	t.Helper()
	for _, w := range words {
		if strings.Contains(g.body, w) {
			t.Errorf("%s has %q:\n%s", g.Request.URL.Path, w, g.body)
		}
	}
}

func TestWhoHasATokenSignsInSeesThePlanAndSignsOut(t *testing.T) {
	b := newHouse(t).browser()
	b.get("/plans/p1").want(t, http.StatusOK, "/signin", "<h1>Sign in</h1>", `value="/plans/p1"`)
	seen := b.signIn(b.user.Secret, "/plans/p1")
	seen.want(t, http.StatusOK, "/plans/p1",
		"Plan of refs/pull/12/head", "<code>aaaaaaaaaaaa</code>", "Plan: 1 to retire, 1 kept, 1 setting changed.", "local-1.2",
		"leased by web until 14:04 (at the latest 17:04): retired when released (removed)", "pool vm is paused by bob",
		"ci falls to 1 of 2 warm guests for about 40s (assumed, nothing measured yet)", "fleet: 1 of 2 guests would be retired",
		"good for 1 hour (until 14:04)", "1 change to guests", "bob", "(user)")
	seen.lacks(t, b.user.Secret)
	b.get("/plans").want(t, http.StatusOK, "/plans", `<a href="/plans/p1">p1</a>`, "held")
	b.do(http.MethodPost, "/signout", fields(seen.body)).want(t, http.StatusOK, "/signin")
	b.get("/plans/p1").want(t, http.StatusOK, "/signin")
}

func TestTheSessionOfASignOutIsOverForEveryCopyOfItsCookie(t *testing.T) {
	b := newHouse(t).browser()
	page := b.signIn(b.user.Secret, "/plans")
	u, err := url.Parse(b.url)
	must(t, err)
	kept := b.http.Jar.Cookies(u)
	b.do(http.MethodPost, "/signout", fields(page.body))
	b.http.Jar.SetCookies(u, kept)
	b.get("/plans").want(t, http.StatusOK, "/signin")
}

func TestAWrongTokenIsRefused(t *testing.T) {
	b := newHouse(t).browser()
	b.signIn("gr_wrong", "/plans").want(t, http.StatusUnauthorized, "/signin", "unknown, revoked or expired")
	b.signIn("", "/plans").want(t, http.StatusUnauthorized, "/signin")
	b.get("/plans").want(t, http.StatusOK, "/signin")
}

func TestARevokedTokenEndsItsSessions(t *testing.T) {
	b := newHouse(t).browser()
	b.signIn(b.user.Secret, "/plans").want(t, http.StatusOK, "/plans")
	must(t, b.tokens.Revoke(b.user.ID))
	b.get("/plans/p1").want(t, http.StatusOK, "/signin")
}

func TestASessionLastsTwelveHours(t *testing.T) {
	b := newHouse(t).browser()
	b.signIn(b.user.Secret, "/plans")
	b.pass(12*time.Hour - time.Second)
	b.get("/plans").want(t, http.StatusOK, "/plans")
	b.pass(time.Second)
	b.get("/plans").want(t, http.StatusOK, "/signin")
}

func TestSessionCookiesAreOutOfReach(t *testing.T) {
	for name, secure := range map[string]bool{"greenroom-session": false, "__Host-greenroom-session": true} {
		b := newHouse(t).browser()
		b.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		if secure {
			b.header.Set("X-Forwarded-Proto", "https")
		}
		form := b.get("/signin")
		for _, c := range form.Cookies() { // the jar keeps those for TLS to itself
			b.header.Add("Cookie", c.Name+"="+c.Value)
		}
		values := fields(form.body)
		values.Set("token", b.user.Secret)
		found := false
		for _, c := range b.do(http.MethodPost, "/signin", values).Cookies() {
			if c.Name == name && c.Value != "" {
				found = true
				if c.Secure != secure || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.MaxAge != 12*3600 || c.Domain != "" {
					t.Errorf("the cookie is %v", c)
				}
			}
		}
		if !found {
			t.Errorf("there is no cookie %s", name)
		}
	}
}

func TestAnAdminApprovesWhatWasShown(t *testing.T) {
	b := newHouse(t).browser()
	page := b.signIn(b.admin.Secret, "/plans/p1")
	page.want(t, http.StatusOK, "/plans/p1", "Held by a guard", ">Approve</button>", "terraform_data.layer2", "Error: no credentials\n\n  on main.tf line 3")
	done := b.do(http.MethodPost, "/plans/p1/approve", fields(page.body))
	done.want(t, http.StatusOK, "/plans/p1", "Past a guard, and approved", "approved by alice at 13:04")
	done.lacks(t, ">Approve</button>")
	again := b.do(http.MethodPost, "/plans/p1/approve", fields(page.body))
	again.want(t, http.StatusOK, "/plans/p1", "approved by alice at 13:04") // once more is the same as once
	if diff := cmp.Diff([]string{"alice p1"}, b.keeper.approved); diff != "" {
		t.Error(diff)
	}
}

func TestAnApprovalIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		user   bool
		path   string
		form   func(url.Values)
		header map[string]string
		before func(*house)
		status int
		says   string
	}{
		"without the token of the form":         {form: func(v url.Values) { v.Del("csrf") }, status: 403, says: "did not come from a page of this server"},
		"with another one":                      {form: func(v url.Values) { v.Set("csrf", "x") }, status: 403},
		"from another site":                     {header: map[string]string{"Sec-Fetch-Site": "cross-site"}, status: 403},
		"from a neighbour":                      {header: map[string]string{"Sec-Fetch-Site": "same-site"}, status: 403},
		"from another origin":                   {header: map[string]string{"Origin": "https://evil.example"}, status: 403},
		"by a user":                             {user: true, status: 403, says: "only admins may do this, and bob has the role user"},
		"of a plan that is none":                {path: "/plans/p2/approve", status: 404, says: "There is no such plan"},
		"of a plan that has been made again":    {before: func(h *house) { h.change(func(p *plan.Plan) { p.Digest = "sha256-2" }) }, status: 409, says: "look at it once more"},
		"of a plan that has become another":     {before: func(h *house) { h.change(func(p *plan.Plan) { p.Phase = plan.Replaced }) }, status: 409, says: "the plan is not ready: it is replaced"},
		"when the keeper of plans refuses":      {before: func(h *house) { h.keeper.fault = fmt.Errorf("%w: <b>no</b>", gitops.ErrNotReady) }, status: 409, says: "&lt;b&gt;no&lt;/b&gt;"},
		"when the keeper of plans fails":        {before: func(h *house) { h.keeper.fault = errors.New("the disk is full") }, status: 500, says: "a fault of the server"},
		"while the store is away":               {before: func(h *house) { h.leave() }, status: 503, says: "connection refused"},
		"after the token has been revoked":      {before: func(h *house) { must(h.t, h.tokens.Revoke(h.admin.ID)) }, path: "", status: 200, says: "<h1>Sign in</h1>"},
		"with a form beyond all bounds":         {form: func(v url.Values) { v.Set("x", strings.Repeat("x", 1<<20)) }, status: 403},
		"with the digest of what was not shown": {form: func(v url.Values) { v.Set("digest", "") }, status: 400},
	} {
		t.Run(name, func(t *testing.T) {
			b := newHouse(t).browser()
			token := b.admin.Secret
			if c.user {
				token = b.user.Secret
			}
			form := fields(b.signIn(token, "/plans/p1").body)
			form.Set("digest", "sha256-1")
			if c.form != nil {
				c.form(form)
			}
			if c.before != nil {
				c.before(b.house)
			}
			for k, v := range c.header {
				b.header.Set(k, v)
			}
			path := c.path
			if path == "" {
				path = "/plans/p1/approve"
			}
			answer := b.do(http.MethodPost, path, form)
			if answer.StatusCode != c.status || !strings.Contains(answer.body, c.says) {
				t.Errorf("answers %d, want %d and %q:\n%s", answer.StatusCode, c.status, c.says, answer.body)
			}
			if len(b.keeper.approved) > 0 {
				t.Errorf("approved by %v", b.keeper.approved)
			}
		})
	}
}

// keep makes p the only plan there is.
func (h *house) keep(p plan.Plan) {
	h.keeper.mu.Lock()
	defer h.keeper.mu.Unlock()
	h.keeper.plans = map[string]plan.Plan{p.ID: p}
}

func (h *house) change(how func(*plan.Plan)) {
	h.keeper.mu.Lock()
	defer h.keeper.mu.Unlock()
	p := h.keeper.plans["p1"]
	how(&p)
	h.keeper.plans["p1"] = p
}

func TestAFormFromOurOwnPageIsTaken(t *testing.T) {
	for _, header := range []map[string]string{{"Sec-Fetch-Site": "same-origin"}, {"Origin": "null"}, {"Origin": "self"}} {
		b := newHouse(t).browser()
		form := fields(b.signIn(b.admin.Secret, "/plans/p1").body)
		for k, v := range header {
			b.header.Set(k, strings.ReplaceAll(v, "self", b.url))
		}
		b.do(http.MethodPost, "/plans/p1/approve", form).want(t, http.StatusOK, "/plans/p1", "approved by alice")
	}
}

func TestSigningInNeedsAFormOfOurs(t *testing.T) {
	b := newHouse(t).browser()
	b.do(http.MethodPost, "/signin", url.Values{"token": {b.user.Secret}}).want(t, http.StatusForbidden, "/signin", "did not come from this server")
	form := fields(b.get("/signin").body)
	form.Set("token", b.user.Secret)
	b.header.Set("Sec-Fetch-Site", "cross-site")
	b.do(http.MethodPost, "/signin", form).want(t, http.StatusForbidden, "/signin")
	b.header.Del("Sec-Fetch-Site")
	b.get("/plans").want(t, http.StatusOK, "/signin")
}

func TestAttemptsToSignInAreSlowed(t *testing.T) {
	b := newHouse(t).browser()
	for range 10 {
		b.signIn("gr_wrong", "/plans").want(t, http.StatusUnauthorized, "/signin")
	}
	slow := b.signIn(b.user.Secret, "/plans")
	slow.want(t, http.StatusTooManyRequests, "/signin", "too many attempts")
	if slow.Header.Get("Retry-After") == "" {
		t.Error("it does not say when to come back")
	}
	b.pass(2 * time.Second)
	b.signIn(b.user.Secret, "/plans").want(t, http.StatusOK, "/plans")
}

func TestAfterSigningInOnlyPagesOfOursAreGoneTo(t *testing.T) {
	b := newHouse(t).browser()
	for _, next := range []string{"https://evil.example/", "//evil.example", "/plans/../signout", "/plans/p1?x=//evil", "javascript:alert(1)", "/v1/status", "/guests/../x", ""} {
		b.signIn(b.user.Secret, next).want(t, http.StatusOK, "/")
		b.pass(time.Minute)
	}
}

func TestALinkFromAnotherSiteFindsTheSession(t *testing.T) {
	b := newHouse(t).browser()
	b.signIn(b.user.Secret, "/plans")
	signedIn := b.http.Jar
	b.http.Jar = nil // a strict cookie does not come along
	b.header.Set("Sec-Fetch-Site", "cross-site")
	page := b.get("/plans/p1")
	page.want(t, http.StatusOK, "/plans/p1", `<meta http-equiv="refresh" content="0; url=/plans/p1?again">`)
	b.get("/plans/p1?again").want(t, http.StatusOK, "/signin") // not for ever
	b.http.Jar = signedIn
	b.header.Set("Sec-Fetch-Site", "same-origin")
	b.get("/plans/p1?again").want(t, http.StatusOK, "/plans/p1", "Plan of refs/pull/12/head")
}

func TestWhoIsNoAdminSeesNothingOfTerraform(t *testing.T) {
	b := newHouse(t).browser()
	page := b.signIn(b.user.Secret, "/plans/p1")
	page.want(t, http.StatusOK, "/plans/p1", "greenroom plan approve p1")
	page.lacks(t, "Terraform", "terraform_data", "credentials", "Approve</button>", "shard")
	if b.keeper.plans["p1"].Terraform == nil {
		t.Error("the plan itself has lost its layer")
	}
}

func TestPlansAreShownWhileTheStoreIsAway(t *testing.T) {
	b := newHouse(t).browser()
	b.signIn(b.user.Secret, "/plans")
	b.leave()
	b.get("/plans").want(t, http.StatusOK, "/plans", `<a href="/plans/p1">p1</a>`)
	b.get("/plans/p1").want(t, http.StatusOK, "/plans/p1", "Plan of refs/pull/12/head")
}

func TestAnUnknownPlanIsNotFound(t *testing.T) {
	b := newHouse(t).browser()
	page := b.signIn(b.user.Secret, "/plans/nope")
	page.want(t, http.StatusNotFound, "/plans/nope", "There is no such plan")
}

func TestABrowserAtAnUnknownPathIsShownAPage(t *testing.T) {
	b := newHouse(t).browser()
	b.header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	b.get("/nope").want(t, http.StatusOK, "/signin")
	b.signIn(b.user.Secret, "/")
	for _, path := range []string{"/nope", "/guests/a/b/c"} {
		page := b.get(path)
		page.want(t, http.StatusNotFound, path, "There is no such page", "The fleet")
		if csp := page.Header.Get("Content-Security-Policy"); csp == "" {
			t.Errorf("%s is not locked down", path)
		}
	}
	problem := func(method, path string) {
		if got := b.do(method, path, nil); got.StatusCode != http.StatusNotFound || got.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %d as %s, want a problem", method, path, got.StatusCode, got.Header.Get("Content-Type"))
		}
	}
	problem(http.MethodGet, "/v1")
	problem(http.MethodGet, "/v1/nope")
	problem(http.MethodPost, "/nope")
	b.header.Set("Accept", "*/*")
	problem(http.MethodGet, "/nope")
}

func TestAPlanInEachPhase(t *testing.T) {
	refresh := `<meta http-equiv="refresh" content="2">`
	for name, c := range map[string]struct {
		plan  plan.Plan
		has   []string
		lacks []string
	}{
		"making": {plan: plan.Plan{ID: "p1", Phase: plan.Making, Ref: "main"}, has: []string{refresh, "It is being made", "still being made"}, lacks: []string{"Caches"}},
		"failed": {
			plan: plan.Plan{ID: "p1", Phase: plan.Failed, Ref: "main", Error: "fleet: 1 fault:\n  on <fleet.hcl> line 2\n"},
			has:  []string{"fleet: 1 fault:\n  on &lt;fleet.hcl&gt; line 2", "Plan: failed"}, lacks: []string{refresh, "Caches"},
		},
		"replaced":        {plan: plan.Plan{ID: "p1", Phase: plan.Replaced, ReplacedBy: "p2"}, has: []string{`<a href="/plans/p2">`, "never made"}, lacks: []string{refresh}},
		"no changes":      {plan: plan.Plan{ID: "p1", Phase: plan.Ready, Made: now, Summary: plan.Summary{Keep: 3}}, has: []string{"No changes: 3 kept."}, lacks: []string{refresh, "Held"}},
		"terraform plans": {plan: plan.Plan{ID: "p1", Phase: plan.Ready, Made: now, Terraform: &plan.Terraform{Phase: plan.Making}}, has: []string{refresh, "Still planning"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newHouse(t).browser()
			b.keep(c.plan)
			page := b.signIn(b.admin.Secret, "/plans/p1")
			page.want(t, http.StatusOK, "/plans/p1", c.has...)
			page.lacks(t, c.lacks...)
		})
	}
}

func TestEveryPageIsLockedDown(t *testing.T) {
	b := newHouse(t).browser()
	pages := []got{b.get("/signin"), b.signIn(b.admin.Secret, "/plans"), b.get("/plans/p1"), b.get("/plans/nope"), b.do(http.MethodPost, "/signout", nil)}
	for _, page := range append(pages, b.get("/static/greenroom.css")) {
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
			"X-Content-Type-Options":  "nosniff", "Referrer-Policy": "no-referrer",
		} {
			if got := page.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", page.Request.URL, name, got, want)
			}
		}
	}
	for _, page := range pages {
		if got := page.Header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s: Cache-Control is %q", page.Request.URL, got)
		}
		page.lacks(t, "<script", "style=", "http://", "https://", "ZgotmplZ", "<img")
		for _, want := range []string{`<html lang="en">`, `<main id="main" tabindex="-1">`, "<header>", "<footer>", "<h1>", "<title>"} {
			page.want(t, page.StatusCode, page.Request.URL.Path, want)
		}
	}
	css := b.get("/static/greenroom.css")
	css.want(t, http.StatusOK, "/static/greenroom.css", "prefers-color-scheme: dark", ":focus-visible")
	css.lacks(t, "url(", "@import")
	if kind := css.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/css") {
		t.Errorf("the stylesheet is %s", kind)
	}
}

const nasty = "\x1b[31m\u202e\"'><script>alert(1)</script><img src=x onerror=alert(1)></title></pre></textarea>{{.}} javascript:alert(1)\r\n\x00\xff&amp;"

// hostile is a plan in which every string is s.
func hostile(s string) plan.Plan {
	var p plan.Plan
	fill(reflect.ValueOf(&p).Elem(), s)
	p.ID, p.Phase, p.Approved = "p1", plan.Ready, nil
	g := p.Guests[0]
	for _, verb := range []plan.Verb{plan.Create, plan.Keep} {
		g.Verb = verb
		p.Guests = append(p.Guests, g)
	}
	fine := p.Terraform.Shards[0]
	fine.Error = ""
	p.Terraform.Shards = append(p.Terraform.Shards, fine)
	return p
}

// fill sets every field of v to something: its strings to s.
func fill(v reflect.Value, s string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Int:
		v.SetInt(3)
	case reflect.Float64:
		v.SetFloat(0.5)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), s)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), s)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(now))
			return
		}
		for _, field := range v.Fields() {
			fill(field, s)
		}
	}
}

var tag = regexp.MustCompile(`<[^\s>]*`)

// No field adds a tag to a page, takes one away, or has a character in it that turns the text around.
func checkPages(t *testing.T, b *browser, s string) {
	t.Helper()
	var shape []string
	for _, s := range []string{"a", s} {
		failed := hostile(s)
		failed.ID, failed.Phase = "p2", plan.Failed
		b.keep(hostile(s))
		page := b.get("/plans/p1").body + b.get("/plans").body
		b.keep(failed)
		page += b.get("/plans/p2").body
		tags := tag.FindAllString(page, -1)
		if shape == nil {
			shape = tags
		}
		if diff := cmp.Diff(shape, tags); diff != "" {
			t.Errorf("%q changes the page:\n%s\n%s", s, diff, page)
		}
		for _, bad := range []string{"\x1b", "\u202e", "\x00", "\r", "<script", "onerror=alert(1)>"} {
			if strings.Contains(page, bad) {
				t.Errorf("a page has %q:\n%s", bad, page)
			}
		}
	}
}

func TestNoFieldOfAPlanBreaksOutOfAPage(t *testing.T) {
	b := newHouse(t).browser()
	b.signIn(b.admin.Secret, "/plans").want(t, http.StatusOK, "/plans")
	for _, s := range []string{nasty, "\"", "'", "<", ">", "&lt;b&gt;", "`", "//evil.example", "javascript:alert(1)", "{{template \"body\"}}"} {
		checkPages(t, b, s)
	}
}
