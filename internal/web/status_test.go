package web_test

import (
	"context"
	"errors"
	"html"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"greenroom/lease"
	"greenroom/reconcile/condition"
	"greenroom/specs"
	"greenroom/watchdog"
)

// as signs somebody in, who looks at a page first.
func (h *house) as(secret, path string) (*browser, got) {
	h.t.Helper()
	b := h.browser()
	h.pass(time.Minute) // so that no test is slowed for signing in often
	return b, b.signIn(secret, path)
}

// text is what a page says, without its tags.
func (g got) text() string {
	_, body, _ := strings.Cut(g.body, "<main")
	body = regexp.MustCompile(`</?(span|a|strong|code|time)( (class="[^w][a-z ]*"|(href|datetime|aria-hidden|id|role)="[^"]*"))*>`).ReplaceAllString(body, "")
	return html.UnescapeString(strings.Join(strings.Fields(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(body, " ")), " "))
}

// says wants a page to say something, whatever its tags.
func (g got) says(t *testing.T, words ...string) {
	t.Helper()
	text := g.text()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%s does not say %q:\n%s", g.Request.URL, w, text)
		}
	}
}

// busy is a house in which something has happened: bob has local-1, local-2 was used and replaced, local-3 is a spare.
func busy(t *testing.T) *house {
	t.Helper()
	h := newHouse(t)
	h.shelve("ci")
	h.shelve("ci")
	h.shelve("local")
	h.release(bob, h.acquire(bob, "ci"), "pass")
	for _, l := range []lease.Lease{h.acquire(bob, "ci"), h.acquire(bob, "ci")} {
		if l.Guest == "local-2" {
			h.release(bob, l, "fail")
		}
	}
	h.replace(h.guest("local-2"), "dead", "dial tcp 192.0.2.7:2222: connection refused")
	return h
}

func (h *house) guest(name string) lease.Guest {
	h.t.Helper()
	g, err := h.store.Guest(h.t.Context(), name)
	must(h.t, err)
	return g
}

func TestTheFleetIsShownToEverybodyWithAToken(t *testing.T) {
	h := busy(t)
	h.browser().get("/").want(t, http.StatusOK, "/signin")
	for _, token := range []string{h.admin.Secret, h.user.Secret, h.stranger.Secret} {
		_, page := h.as(token, "/")
		page.want(t, http.StatusOK, "/", "<h1>Fleet</h1>", `<a href="/caches/ci">`, `href="/pools/local"`, "<svg", `class="is-shelved"`, `class="mark-warm"`)
		page.says(t, "Revision test-1 of a test is in force", "1 shelved", "warm 1", "size 3", "Leased 1 of 4", "Waiting 0", "Hits 100 % of 3", "spares of local", "1 booting 2 shelved")
		page.lacks(t, "held", "Not done")
	}
}

func TestWhatIsWrongStandsOnTheFirstPage(t *testing.T) {
	h := busy(t)
	h.loop.say(func(st *condition.Status) {
		st.SpecValid = false
		st.SpecFault = &condition.Fault{Reason: condition.GuardExceeded, Revision: strings.Repeat("b", 40), Message: "pool <local>: 3 of 4\n  would go", Since: now.Add(-3 * time.Minute), Plan: "p1"}
		st.Conditions = []condition.Condition{{Type: condition.Stalled, Status: true, Reason: "GuardExceeded", Message: "it is held", Since: now}}
		st.Pools[0].Conditions = []condition.Condition{{Type: condition.Waiting, Status: true, Reason: "RunFailed", Message: "no credentials; tried again at 13:10:00", Since: now}}
		st.Pools[0].Pause = &lease.Pause{By: "alice", Reason: "moving racks", Since: now}
	})
	must(t, h.store.SetPause(t.Context(), "local", &lease.Pause{By: "alice", Reason: "moving racks", Since: now}))
	h.dog.brakes = map[string]string{"local": "3 of 4 guests look dead"}
	must(t, h.store.Toggle(t.Context(), alice, "ci", lease.Override{Until: time.Now().Add(time.Hour), By: "alice", Reason: "an upgrade"}))
	b, page := h.as(h.user.Secret, "/")
	page.want(t, http.StatusOK, "/", "pool &lt;local&gt;: 3 of 4\n  would go", `<a href="/plans/p1">`)
	page.says(t, "Revision bbbbbbbbbbbb is held", "GuardExceeded, found 13:01:00 (4 min ago)", "Stalled: it is held", "local Waiting paused brake", "no credentials", "3 of 4 guests look dead", "ci disabled")
	b.get("/caches/ci").says(t, "Disabled. It grants no leases, by alice (an upgrade), until")
	b.get("/pools/local").says(t, "Paused by alice (moving racks), since", "The watchdog's brake is on: 3 of 4 guests look dead", "Waiting Yes: RunFailed")
	must(t, h.store.SetPause(t.Context(), "local", nil))
	b.get("/pools/local").lacks(t, "<strong>Paused</strong>") // whatever the loop's last pass has seen
	h.leave()
	b.get("/").says(t, "The store is away: no lease is granted", "connection refused")
	b.get("/caches/ci").want(t, http.StatusServiceUnavailable, "/caches/ci", "<h1>Not just now</h1>", "connection refused")
}

func TestAPoolIsShownWithoutItsSecrets(t *testing.T) {
	h := busy(t)
	b, page := h.as(h.admin.Secret, "/pools/local")
	page.says(t, "3 of at most 6 guests: 1 booting, 2 shelved.", "Ready Yes: Converged", "module git::https://…@git.example.org/modules.git",
		"variables image, isolation (values are not told)", "user_data given (not told)", "probe ssh every 10s, 3s at most, dead after 3 failures",
		"guard holds a revision that retires more than 25%", "local-1234-1 Ready", "3 guests, last run r7 ok at 13:04:00", "Last runs None has ended since the server's start.")
	for _, path := range []string{"/", "/pools/local", "/pools/local?all=1", "/caches/ci", "/caches/local", "/guests/local-1", "/queue"} {
		b.get(path).lacks(t, "hunter2", "secret-image", "secret-user-data", b.admin.Secret)
	}
}

func TestThePoolTellsWhatItsLastRunsWereToDoAndDid(t *testing.T) {
	h := busy(t)
	h.loop.runs = []condition.RunStatus{
		{
			Run: "r9", Shard: "local-1234-1", Started: now.Add(-80 * time.Second), Ended: now.Add(-time.Minute), Result: "apply", Message: "<b>quota</b>",
			Plan:   condition.RunPlan{Create: []string{"local-4", "local-5"}, Retire: []string{"local-6"}},
			Failed: map[string]string{"local-5": "no room"}, Created: []string{"local-4"},
		},
		{
			Run: "r0", Shard: "local-1234-1", Started: now, Ended: now, Result: "init", Message: "no such module",
			Plan: condition.RunPlan{Create: strings.Split(strings.Repeat("local-7 ", 13), " ")[:13]},
		},
		{
			Run: "r8", Shard: "local-1234-1", Started: now.Add(-130 * time.Second), Ended: now.Add(-2 * time.Minute), Result: "ok",
			Plan: condition.RunPlan{Replace: []string{"local-2"}}, Replaced: []string{"local-2"},
		},
	}
	_, page := h.as(h.user.Secret, "/pools/local")
	page.says(t, "r9 failed: apply shard local-1234-1, ended 13:03:00 (2 min ago) after 20 s to create local-4 local-5 to retire local-6 not done local-6 failed: local-5 no room it says <b>quota</b>",
		"r8 ok shard local-1234-1, ended 13:02:00 (3 min ago) after 10 s to replace local-2 Settings",
		"after 0.0 s to create 13 guests local-7", "local-7 it says no such module") // nothing was done, which goes without saying
	page.lacks(t, "<b>quota")
}

func TestAGuestTellsHowItsProbesStand(t *testing.T) {
	h := busy(t)
	ssh := specs.Probe{Kind: "ssh", Every: 10 * time.Second, Failures: 3}
	h.dog.probes = []watchdog.Standing{
		{Probe: ssh, Failures: 2, Last: watchdog.Result{At: now, Outcome: watchdog.Failed, Detail: "<i>refused</i>"}},
		{Probe: specs.Probe{Kind: "http", Every: time.Minute, Failures: 5}},
	}
	b, page := h.as(h.user.Secret, "/guests/local-1")
	page.says(t, "ssh every 10s 13:04:00 (1 min ago) failed <i>refused</i> 2 of 3 http every 1m not asked yet 0 of 5")
	_, page = h.as(h.stranger.Secret, "/guests/local-1")
	page.says(t, "ssh every 10s 13:04:00 (2 min ago) failed 2 of 3")
	page.lacks(t, "refused")
	h.dog.probes = nil
	b.get("/guests/local-1").says(t, "It has not been asked yet.")
	_, err := h.store.Hold(t.Context(), alice, h.guest("local-2"), time.Now().Add(time.Hour))
	must(t, err)
	b.get("/guests/local-2").says(t, "It is not probed while it is held.")
	h.dog.err = context.DeadlineExceeded
	b.get("/guests/local-1").says(t, "It can't be told just now how they stand: not ready: the watchdog does not answer.")
}

func TestGuestsThatAreGoneAreNamedWhenAskedFor(t *testing.T) {
	h := busy(t)
	ctx := t.Context()
	g, err := h.store.Claim(ctx, h.guest("local-3"), lease.Retiring, "run", "excess", 0)
	must(t, err)
	must(t, h.store.Remove(ctx, g, "run", "excess"))
	b, page := h.as(h.user.Secret, "/pools/local")
	page.lacks(t, "local-3</a></th>", `href="/guests/local-3">local-3</a></li>`)
	b.get("/pools/local?all=1").want(t, http.StatusOK, "/pools/local", `<a class="name" href="/guests/local-3">local-3</a></li>`)
	gone := b.get("/guests/local-3")
	gone.want(t, http.StatusOK, "/guests/local-3")
	gone.says(t, "It is gone; this is what is kept of its history.", "local-3.1 gone: excess", "gone: excess", "retiring: excess for")
	gone.lacks(t, "<form class=\"act\"")
	b.get("/guests/local-9").want(t, http.StatusNotFound, "/guests/local-9", "there is no guest local-9")
}

func TestACacheTellsWhoHasItsGuestsToThoseWhoMayKnow(t *testing.T) {
	h := busy(t)
	h.shelve("ci")
	h.acquire(bob, "ci")
	h.acquire(bob, "ci")
	h.acquire(bob, "ci") // waits
	h.acquire(alice, "ci")
	for _, c := range []struct {
		token string
		says  []string
		lacks []string
	}{
		{h.admin.Secret, []string{"Place Of Team", "1 bob platform", "2 alice admin", "They wait because every guest of cache ci is leased."}, []string{"of other teams"}},
		{h.user.Secret, []string{"1 bob platform", "They wait because every guest of cache ci is leased.", "1 of other teams"}, []string{"alice"}},
		{h.stranger.Secret, []string{"2 of other teams", "3 of other teams", "3 leased; 2 requests wait"}, []string{"bob", "alice", "192.0.2"}},
	} {
		b, page := h.as(c.token, "/caches/ci")
		page.says(t, append(c.says, "lease for 1m from each heartbeat, 1h at most", "reuse 50 uses, 24h of age", "hold 1 guest for 2h at most")...)
		page.lacks(t, c.lacks...)
		queue := b.get("/queue")
		queue.says(t, "2 requests wait.", "ci")
		queue.lacks(t, c.lacks...)
	}
	b, _ := h.as(h.user.Secret, "/")
	b.get("/caches/none").want(t, http.StatusNotFound, "/caches/none", "unknown cache")
	b.get("/pools/none").want(t, http.StatusNotFound, "/pools/none", "there is no pool")
}

func TestAGuestTellsItsHistory(t *testing.T) {
	h := busy(t)
	for _, c := range []struct {
		token string
		says  []string
		lacks []string
	}{
		{h.admin.Secret, []string{"address root@192.0.2.8:2222", "dial tcp 192.0.2.7:2222: connection refused", "released: fail"}, nil},
		{h.user.Secret, []string{"address root@192.0.2.8:2222"}, []string{"connection refused", "released: fail", "Actions"}},
		{h.stranger.Secret, []string{"It is shelved."}, []string{"192.0.2", "address", "connection refused", "released: fail", "Actions", "bob"}},
	} {
		_, page := h.as(c.token, "/guests/local-2")
		page.says(t, append(c.says, "local-2.2 the current machine", "local-2.1 replaced: dead", "tainted: dead for", "by alice", "cache ci", "pool local, shard local-1234-1", "Lease of From To")...)
		page.lacks(t, c.lacks...)
		if n := strings.Count(page.text(), "replacing: dead"); n != 1 {
			t.Errorf("that it is replaced is told %d times:\n%s", n, page.text())
		}
	}
}

func TestAFleetOfNothingSaysWhatComesFirst(t *testing.T) {
	h := newHouse(t)
	h.loop.say(func(st *condition.Status) { st.Pools = nil })
	_, page := h.as(h.user.Secret, "/")
	page.says(t, "There are no guests; nobody waits.", "Pools There are none: the specs declare them, and greenroom spec init writes some to begin with.")
}

func TestWhatAdminsDoIsDone(t *testing.T) {
	h := busy(t)
	h.pass(time.Since(h.clock())) // as the store's clock, which ends overrides and holds
	for _, c := range []struct {
		path string
		form url.Values
		says string
		done func() bool
	}{
		{"/caches/ci/disable", url.Values{"for": {"1h"}, "reason": {"an upgrade"}}, "Done. The cache grants no leases until 20", nil},
		{"/caches/ci/obey", nil, "Done. The cache grants leases, as the spec says.", nil},
		{"/caches/ci/enable", nil, "Done. The cache grants leases until somebody takes that back.", nil},
		{"/pools/local/pause", url.Values{"reason": {"moving racks"}}, "Done. The pool is paused", func() bool { return cmp.Equal(h.loop.woken, []string{"[local]"}) }},
		{"/pools/local/resume", nil, "Done. The pool goes on.", nil},
		{"/pools/local/reconcile", nil, "Done. The pool is looked at now.", func() bool { return cmp.Equal(h.loop.woken, []string{"[local]", "[local]", "[local]"}) }},
		{"/reconcile", nil, "Done. All pools are looked at now.", func() bool { return h.loop.woken[3] == "[]" }},
		{"/guests/local-2/probe", url.Values{"incarnation": {"2"}}, "Done. It is alive: ssh answers", nil},
		{"/guests/local-2/hold", url.Values{"incarnation": {"2"}, "for": {"24h"}}, "Done. It is held until 20", func() bool { return h.guest("local-2").State == lease.Held }},
		{"/guests/local-2/taint", url.Values{"incarnation": {"2"}, "reason": {"smells"}}, "Done. It is ordered to be replaced now.", func() bool { return h.guest("local-2").Evidence == "smells, says alice" }},
		{"/guests/local-1/remove", url.Values{"incarnation": {"1"}}, "Done. It is ordered to be removed when its lease ends.", func() bool { return h.guest("local-1").Condemned == "forced" }},
	} {
		h.dog.result = "ssh answers"
		b, _ := h.as(h.admin.Secret, "/")
		path, _, _ := strings.Cut(strings.TrimPrefix(c.path, "/"), "/")
		if _, rest, ok := strings.Cut(strings.TrimPrefix(c.path, "/"), "/"); ok {
			name, _, _ := strings.Cut(rest, "/")
			path = "/" + path + "/" + name
		} else {
			path = "/"
		}
		form := url.Values{"csrf": fields(b.get(path).body)["csrf"]}
		maps.Copy(form, c.form)
		page := b.do(http.MethodPost, c.path, form)
		page.want(t, http.StatusOK, path)
		page.says(t, c.says)
		b.get(path).lacks(t, "Done.")
		if c.done != nil && !c.done() {
			t.Errorf("%s was not done", c.path)
		}
	}
}

func TestWhatMayNotBeDoneIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		user   bool
		path   string
		form   url.Values
		status int
		says   string
	}{
		"by a user on a cache":                       {user: true, path: "/caches/ci/disable", status: 403, says: "Not done: only admins may do this, and bob has the role user."},
		"by a user on a pool":                        {user: true, path: "/pools/local/pause", status: 403, says: "only admins may do this"},
		"by a user on a guest":                       {user: true, path: "/guests/local-1/taint", form: url.Values{"incarnation": {"1"}}, status: 403, says: "only admins may do this"},
		"by a user on the fleet":                     {user: true, path: "/reconcile", status: 403, says: "only admins may do this"},
		"without the token of the form":              {path: "/caches/ci/disable", form: url.Values{"csrf": {""}}, status: 403, says: "did not come from a page of this server"},
		"on a machine that was not looked at":        {path: "/guests/local-2/taint", form: url.Values{"incarnation": {"1"}}, status: 409, says: "another machine under this name"},
		"without saying on which machine":            {path: "/guests/local-2/remove", status: 409, says: "another machine under this name"},
		"on a leased guest":                          {path: "/guests/local-1/hold", form: url.Values{"incarnation": {"1"}, "for": {"1h"}}, status: 409, says: "Not done: guest local-1: the guest is leased."},
		"for a time that is none":                    {path: "/caches/ci/disable", form: url.Values{"for": {"<b>"}}, status: 400, says: `"<b>" is no duration`},
		"for a reason that is beyond bounds":         {path: "/pools/local/pause", form: url.Values{"reason": {strings.Repeat("x", 2000)}}, status: 400, says: "the reason has 2000 bytes"},
		"that is nothing":                            {path: "/guests/local-1/explode", status: 404, says: "There is no such action."},
		"on a cache that is none":                    {path: "/caches/none/disable", status: 404, says: "unknown cache"},
		"on a guest that is none":                    {path: "/guests/local-9/probe", status: 404, says: "there is no guest local-9"},
		"with the watchdog's answer that it is dead": {path: "/guests/local-2/probe", form: url.Values{"incarnation": {"2"}}, status: 200, says: "It did not prove alive: no route"},
	} {
		t.Run(name, func(t *testing.T) {
			h := busy(t)
			h.dog.err = errors.New("no route")
			token := h.admin.Secret
			if c.user {
				token = h.user.Secret
			}
			b, page := h.as(token, "/")
			form := url.Values{"csrf": fields(page.body)["csrf"]}
			maps.Copy(form, c.form)
			answer := b.do(http.MethodPost, c.path, form)
			if answer.StatusCode != c.status {
				t.Errorf("answers %d, want %d", answer.StatusCode, c.status)
			}
			answer.says(t, c.says)
		})
	}
}

func TestOnlyAdminsAreOfferedActions(t *testing.T) {
	h := busy(t)
	for _, path := range []string{"/", "/caches/ci", "/pools/local", "/guests/local-1"} {
		_, page := h.as(h.admin.Secret, path)
		page.want(t, http.StatusOK, path, "Actions", `method="post" action="`+strings.TrimSuffix(path, "/")+"/")
		_, page = h.as(h.user.Secret, path)
		page.lacks(t, "Actions", `method="post" action="`+strings.TrimSuffix(path, "/")+"/r", "…</summary>")
	}
}

func TestANoticeIsForItsPageOnly(t *testing.T) {
	h := busy(t)
	b, page := h.as(h.admin.Secret, "/pools/local")
	b.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	b.do(http.MethodPost, "/pools/local/reconcile", url.Values{"csrf": fields(page.body)["csrf"]})
	b.get("/").lacks(t, "Done.")
	b.header.Set("Greenroom-Updating", "1")
	b.get("/pools/local").lacks(t, "Done.") // of a tab that was open before
	b.header.Del("Greenroom-Updating")
	b.get("/pools/local").says(t, "Done. The pool is looked at now.")
}

func TestAPageLoadsItselfAgainWithoutAScriptWhenAskedTo(t *testing.T) {
	h := busy(t)
	b, page := h.as(h.user.Secret, "/")
	page.want(t, http.StatusOK, "/", `<script src="/static/live.js" defer></script>`, `<a href="/?refresh=10">`, `data-path="/"`)
	b.get("/pools/local?all=1").want(t, http.StatusOK, "/pools/local", `<a href="/pools/local?all=1&amp;refresh=10">`, `data-path="/pools/local?all=1"`, `data-about="pool=local"`)
	for query, seconds := range map[string]string{"10": "10", "0": "2", "-5": "2", "99999": "3600"} {
		again := b.get("/?refresh=" + query)
		again.want(t, http.StatusOK, "/", `<meta http-equiv="refresh" content="`+seconds+`">`)
		again.lacks(t, "<script")
	}
	b.get("/?refresh=x").lacks(t, `http-equiv="refresh"`)
}

func TestPagesOfTheHouseAreLockedDownToo(t *testing.T) {
	h := busy(t)
	b, _ := h.as(h.admin.Secret, "/")
	strict := "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
	for _, path := range []string{"/", "/pools/local", "/caches/ci", "/guests/local-1", "/queue"} {
		page := b.get(path)
		if got := page.Header.Get("Content-Security-Policy"); got != strict+"; script-src 'self'; connect-src 'self'" {
			t.Errorf("%s: the policy is %q", path, got)
		}
		if got := b.get(path + "?refresh=10").Header.Get("Content-Security-Policy"); got != strict {
			t.Errorf("%s without a script: the policy is %q", path, got)
		}
		if got := page.Header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s: Cache-Control is %q", path, got)
		}
		page.lacks(t, "style=", "http://", "https://git.example.org\"", "ZgotmplZ", "onclick", "javascript:")
	}
	for path, kind := range map[string]string{"/static/live.js": "text/javascript; charset=utf-8", "/static/icon.svg": "image/svg+xml", "/static/greenroom.css": "text/css; charset=utf-8"} {
		file := b.get(path)
		file.want(t, http.StatusOK, path)
		if got := file.Header.Get("Content-Type"); got != kind {
			t.Errorf("%s is %s, want %s", path, got, kind)
		}
	}
	b.get("/static/live.js").lacks(t, "eval(", "innerHTML", "Function(")
	b.get("/static/greenroom.css").want(t, http.StatusOK, "/static/greenroom.css", ".is-shelved { --state: #2f9e5b; }")
}

// hostileHouse is a house in which whatever others write is s.
func hostileHouse(t *testing.T, s string) *house {
	h := busy(t)
	h.loop.say(func(st *condition.Status) {
		var bad condition.Status
		fill(reflect.ValueOf(&bad).Elem(), s)
		bad.Pools[0].Pool, bad.Pools[0].Guests = "local", map[lease.State]int{lease.Shelved: 1, lease.State(s): 1}
		bad.Pools[0].Shards[0].LastRun.Failed = map[string]string{s: s}
		bad.Store = ""
		*st = bad
	})
	h.dog.brakes = map[string]string{"local": s}
	h.dog.result = s
	caller := lease.Caller{Name: s, Owner: s, Role: lease.Admin}
	h.shelve("ci")
	h.acquire(caller, "ci")
	h.acquire(caller, "ci")
	h.acquire(caller, "ci")
	must(t, h.store.Toggle(t.Context(), caller, "ci", lease.Override{By: s, Reason: s}))
	g := h.guest("local-2")
	must(t, h.store.SetHealth(t.Context(), g, s))
	_, err := h.store.Taint(t.Context(), caller, g, lease.Taint{Reason: s, Evidence: s, Condemn: true})
	must(t, err)
	return h
}

func TestNoNameBreaksOutOfAPage(t *testing.T) {
	shapes := map[string][]string{}
	for _, s := range []string{"a", nasty, "\"", "'", "<", "&lt;b&gt;", "javascript:alert(1)", "//evil.example", "{{.}}"} {
		h := hostileHouse(t, s)
		b, _ := h.as(h.admin.Secret, "/")
		for _, path := range []string{"/", "/pools/local", "/caches/ci", "/guests/local-2", "/queue"} {
			page := b.get(path)
			page.want(t, http.StatusOK, path)
			page.lacks(t, "\x1b", "\u202e", "\x00", "\r", "<script>", "onerror=alert(1)>", "ZgotmplZ", `href="javascript`, `href="//`)
			tags := tag.FindAllString(page.body, -1)
			if shapes[path] == nil {
				shapes[path] = tags
			}
			if diff := cmp.Diff(shapes[path], tags); diff != "" {
				t.Errorf("%q changes %s:\n%s\n%s", s, path, diff, page.body)
			}
		}
		for _, path := range []string{"/pools/", "/caches/", "/guests/"} {
			page := b.get(path + url.PathEscape(s) + "-x")
			page.lacks(t, "<script>", "\x1b", "\u202e", "\x00")
		}
		page := b.do(http.MethodPost, "/guests/local-2/probe", url.Values{"csrf": fields(b.get("/").body)["csrf"], "incarnation": {"2"}})
		page.want(t, http.StatusOK, "/guests/local-2", "It is alive: ")
		page.lacks(t, "<script>", "\x1b", "\u202e", "\x00")
	}
}
