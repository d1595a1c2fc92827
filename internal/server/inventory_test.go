package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/lease/leasetest"
	"greenroom/reconcile/condition"
)

func TestACacheShowsWhatItHasAndWhatIsInEffect(t *testing.T) {
	eachHouse(t, func(h *house) {
		h.shelve("ci")
		h.shelve("ci")
		h.acquire(h.user, client.Request{Cache: "ci"})
		c := ask[client.Cache](h, 200, sent{token: h.stranger, method: "GET", path: "/v1/caches/ci"})
		if !c.Enabled || c.Leases != 1 || c.Hits != 1 || c.Guests[lease.Shelved] != 1 || c.Guests[lease.Leased] != 1 || len(c.Guests) != len(lease.States) {
			h.t.Errorf("cache: %+v", c)
		}
		c = ask[client.Cache](h, 200, sent{token: h.admin, method: "POST", path: "/v1/caches/ci/disable", body: client.Toggle{For: client.Duration(time.Hour), Reason: "an upgrade"}})
		if c.Enabled || c.Override == nil || c.Override.By != "root" || c.Override.Reason != "an upgrade" || c.Override.Until.IsZero() {
			h.t.Errorf("disabled: %+v", c)
		}
		h.refused(409, "none_ready", sent{token: h.user, method: "POST", path: "/v1/leases", body: client.Request{Cache: "ci", Wait: new(client.Duration)}})
		c = ask[client.Cache](h, 200, sent{token: h.admin, method: "POST", path: "/v1/caches/ci/enable"})
		if !c.Enabled || c.Override == nil || !c.Override.Until.IsZero() {
			h.t.Errorf("enabled: %+v", c)
		}
		c = ask[client.Cache](h, 200, sent{token: h.admin, method: "DELETE", path: "/v1/caches/ci/override"})
		if c.Override != nil {
			h.t.Errorf("without the override: %+v", c)
		}
		list := ask[struct{ Caches []client.Cache }](h, 200, sent{token: h.user, method: "GET", path: "/v1/caches"})
		names := []string{}
		for _, c := range list.Caches {
			names = append(names, c.Name)
		}
		if diff := cmp.Diff([]string{"big", "ci", "lab", "local"}, names); diff != "" {
			h.t.Error(diff)
		}
	})
}

func TestGuestsShowTheirAddressToTheOwnerOfTheirCacheOnly(t *testing.T) {
	eachHouse(t, func(h *house) {
		g := h.shelve("ci")
		h.acquire(h.user, client.Request{Cache: "ci"})
		leased, err := h.store.Guest(h.t.Context(), g.Name)
		h.must(err)
		h.must(h.store.SetHealth(h.t.Context(), leased, "dial tcp 127.0.0.1:22: connection refused"))
		for token, host := range map[string]string{h.admin: "127.0.0.1", h.user: "127.0.0.1", h.stranger: ""} {
			one := ask[lease.Guest](h, 200, sent{token: token, method: "GET", path: "/v1/guests/" + g.Name})
			all := ask[struct{ Guests []lease.Guest }](h, 200, sent{token: token, method: "GET", path: "/v1/guests"})
			pool := ask[struct{ Guests []lease.Guest }](h, 200, sent{token: token, method: "GET", path: "/v1/guests?pool=local"})
			cache := ask[struct{ Guests []lease.Guest }](h, 200, sent{token: token, method: "GET", path: "/v1/caches/ci/guests"})
			if len(all.Guests) != 1 || len(pool.Guests) != 1 || len(cache.Guests) != 1 {
				h.t.Fatalf("%d, %d and %d guests, want 1", len(all.Guests), len(pool.Guests), len(cache.Guests))
			}
			for _, seen := range []lease.Guest{one, all.Guests[0], pool.Guests[0], cache.Guests[0]} {
				if seen.Name != g.Name || seen.Host != host || (seen.HostKey == "") != (host == "") || (seen.Health == "") != (host == "") {
					h.t.Errorf("seen: %+v, want the host %q", seen, host)
				}
			}
		}
	})
}

func TestATaintWaitsForTheLeaseToEnd(t *testing.T) {
	eachHouse(t, func(h *house) {
		for path, method := range map[string]string{"/v1/guests/%s/taint": "POST", "/v1/caches/ci/guests/%s": "DELETE"} {
			g := h.shelve("ci")
			l := h.acquire(h.user, client.Request{Cache: "ci"})
			order := sent{token: h.admin, method: method, path: strings.Replace(path, "%s", g.Name, 1)}
			if out := ask[client.Ordered](h, 202, order); out.When != "when its lease ends" || out.State != lease.Leased {
				h.t.Errorf("%s: %+v", path, out)
			}
			ask[client.Lease](h, 200, sent{token: h.user, method: "DELETE", path: "/v1/leases/" + l.ID})
			if out := ask[client.Ordered](h, 202, order); out.When != "now" || out.State != lease.Tainted {
				h.t.Errorf("%s: %+v", path, out)
			}
		}
	})
}

func TestAGuestIsHeldNoLongerThanItsCacheAllows(t *testing.T) {
	eachHouse(t, func(h *house) {
		g := h.shelve("ci")
		held := ask[lease.Guest](h, 200, sent{token: h.admin, method: "POST", path: "/v1/guests/" + g.Name + "/hold", body: client.Hold{For: client.Duration(48 * time.Hour)}})
		if left := time.Until(held.Until); held.State != lease.Held || left > time.Hour || left < 50*time.Minute {
			h.t.Errorf("held: %+v", held)
		}
		other := h.shelve("ci")
		h.refused(409, "hold_budget", sent{token: h.admin, method: "POST", path: "/v1/guests/" + other.Name + "/hold", body: client.Hold{For: client.Duration(time.Minute)}})
		events := ask[struct{ Events []lease.Event }](h, 200, sent{token: h.admin, method: "GET", path: "/v1/guests/" + g.Name + "/events?n=2"})
		if len(events.Events) != 2 || events.Events[0].To != lease.Held || events.Events[0].Actor != "root" {
			h.t.Errorf("events: %+v", events)
		}
	})
}

func TestAHistoryTellsTheHolderOfALeaseToItsOwnerAndAdminsOnly(t *testing.T) {
	eachHouse(t, func(h *house) {
		g := h.shelve("ci")
		for _, token := range []string{h.admin, h.user} {
			l := h.acquire(token, client.Request{Cache: "ci"})
			ask[client.Lease](h, 200, sent{token: token, method: "DELETE", path: "/v1/leases/" + l.ID})
		}
		l := h.acquire(h.user, client.Request{Cache: "ci"})
		ask[client.Ordered](h, 202, sent{token: h.admin, method: "POST", path: "/v1/guests/" + g.Name + "/taint", body: client.Reason{Reason: "smells"}})
		ask[client.Lease](h, 200, sent{token: h.admin, method: "DELETE", path: "/v1/leases/" + l.ID})
		for token, want := range map[string][]string{
			h.admin:    {"root lease", "root lease", "jenkins lease", "jenkins lease", "jenkins lease", "root lease", "root lease"},
			h.user:     {"root lease", "root lease", "jenkins lease", "jenkins lease", "jenkins lease", " ", " "},
			h.stranger: {"root ", "root ", " ", " ", " ", " ", " "}, // an admin has condemned it, and ended its lease
		} {
			events := ask[struct{ Events []lease.Event }](h, 200, sent{token: token, method: "GET", path: "/v1/guests/" + g.Name + "/events?n=7"}).Events
			seen := []string{}
			for _, e := range events {
				seen = append(seen, e.Actor+" "+map[bool]string{true: "lease"}[e.Lease != ""])
			}
			if diff := cmp.Diff(want, seen); diff != "" {
				t.Errorf("the newest first: %s", diff)
			}
		}
		h.must(h.rdb.Del(h.t.Context(), "greenroom:{ci}:lease:"+l.ID).Err())
		gone := ask[struct{ Events []lease.Event }](h, 200, sent{token: h.user, method: "GET", path: "/v1/guests/" + g.Name + "/events?n=3"}).Events
		if gone[0].Actor != "" || gone[1].Actor != "root" || gone[2].Actor != "" || gone[0].Lease+gone[2].Lease != "" {
			t.Errorf("of a lease that is not kept any more, whose nobody knows: %+v", gone)
		}
	})
}

func TestAProbeByHandTellsWhatItSaw(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	g := h.shelve("ci")
	probe := sent{token: h.admin, method: "POST", path: "/v1/guests/" + g.Name + "/probe"}
	if p := ask[client.Probed](h, 200, probe); !p.Alive || p.Result != "ssh: "+g.Name+" answers" {
		t.Errorf("alive: %+v", p)
	}
	h.dog.err = errDead
	if p := ask[client.Probed](h, 200, probe); p.Alive || p.Result != errDead.Error() {
		t.Errorf("dead: %+v", p)
	}
}

func TestTheProbesOfAGuestAreToldWithTheAddressToThoseWhoMaySeeIt(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	g := h.shelve("ci")
	for token, detail := range map[string]string{h.admin: "dial tcp 192.0.2.7:22: connection refused", h.user: "dial tcp 192.0.2.7:22: connection refused", h.stranger: ""} {
		all := ask[struct{ Probes []client.Probe }](h, 200, sent{token: token, method: "GET", path: "/v1/guests/" + g.Name + "/probes"}).Probes
		want := []client.Probe{
			{Kind: "ssh", Every: client.Duration(10 * time.Second), Outcome: "failed", Detail: detail, Seconds: 1, Failures: 2, Allowed: 3},
			{Kind: "ssh", Every: client.Duration(10 * time.Second), Allowed: 3},
		}
		if diff := cmp.Diff(want, all, cmpopts.IgnoreFields(client.Probe{}, "Asked", "Next")); diff != "" {
			t.Error(diff)
		}
		if all[0].Next.IsZero() || !all[1].Next.IsZero() || !all[1].Asked.IsZero() {
			t.Errorf("the times: %+v", all)
		}
	}
	h.refused(404, "unknown_guest", sent{token: h.user, method: "GET", path: "/v1/guests/local-99/probes"})
	h.dog.err = context.DeadlineExceeded
	h.refused(503, "not_ready", sent{token: h.user, method: "GET", path: "/v1/guests/" + g.Name + "/probes"})
}

func TestPoolsAreShownPausedAndWoken(t *testing.T) {
	eachHouse(t, func(h *house) {
		h.dog.brakes = map[string]string{"local": "3 of 4 guests look dead"}
		p := ask[client.Pool](h, 200, sent{token: h.user, method: "GET", path: "/v1/pools/local"})
		if p.Pool != "local" || p.Brake != "3 of 4 guests look dead" || len(p.Shards) != 1 || len(p.Runs) != 1 || p.Runs[0].Plan.Create[0] != "local-1" {
			h.t.Errorf("pool: %+v", p)
		}
		shards := ask[struct{ Shards []condition.ShardStatus }](h, 200, sent{token: h.user, method: "GET", path: "/v1/shards"})
		if len(shards.Shards) != 1 || shards.Shards[0].Shard != "local-a" {
			h.t.Errorf("shards: %+v", shards)
		}
		ask[lease.Pause](h, 200, sent{token: h.admin, method: "POST", path: "/v1/pools/local/pause", body: client.Reason{Reason: "maintenance"}})
		if paused, err := h.store.Paused(h.t.Context(), "local"); err != nil || paused == nil || paused.By != "root" || paused.Reason != "maintenance" {
			h.t.Errorf("paused: %+v, %v", paused, err)
		}
		if p := ask[client.Pool](h, 200, sent{token: h.user, method: "GET", path: "/v1/pools/local"}); p.Pause == nil || p.Pause.By != "root" {
			h.t.Errorf("the loop has not passed since, and the pool shows %+v", p.Pause)
		}
		ask[none](h, 204, sent{token: h.admin, method: "POST", path: "/v1/pools/local/resume"})
		if paused, err := h.store.Paused(h.t.Context(), "local"); err != nil || paused != nil {
			h.t.Errorf("resumed: %+v, %v", paused, err)
		}
		all := ask[client.Reconcile](h, 202, sent{token: h.admin, method: "POST", path: "/v1/reconcile"})
		one := ask[client.Reconcile](h, 202, sent{token: h.admin, method: "POST", path: "/v1/reconcile", body: client.Reconcile{Pools: []string{"big"}}})
		if diff := cmp.Diff([][]string{{"big", "local"}, {"big"}}, [][]string{all.Pools, one.Pools}); diff != "" {
			h.t.Error(diff)
		}
		if diff := cmp.Diff([]string{"[local]", "[local]", "[]", "[big]"}, h.loop.woken); diff != "" {
			h.t.Error(diff)
		}
		h.must(h.store.SetPause(h.t.Context(), "removed", &lease.Pause{By: "root"})) // before the specs lost it
		ask[none](h, 204, sent{token: h.admin, method: "POST", path: "/v1/pools/removed/resume"})
		if paused, err := h.store.Paused(h.t.Context(), "removed"); err != nil || paused != nil {
			h.t.Errorf("resumed: %+v, %v", paused, err)
		}
	})
}

func TestReadinessNamesEverythingThatIsMissing(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	ask[map[string]string](h, 200, sent{method: "GET", path: "/readyz"})
	h.loop.status.Terraform = ""
	h.outage = lease.ErrUnavailable
	p, _ := h.refused(503, "not_ready", sent{method: "GET", path: "/readyz"})
	if p.Detail != "the store cannot be reached; no usable Terraform was found" {
		t.Errorf("not ready: %q", p.Detail)
	}
}

func TestTheDocumentIsServed(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	g := h.do(sent{method: "GET", path: "/openapi.yaml"})
	if g.Status != 200 || string(g.Body) != string(document) {
		t.Errorf("%d, %d bytes", g.Status, len(g.Body))
	}
	if g = h.do(sent{method: "HEAD", path: "/openapi.yaml", against: true}); g.Status != 200 || len(g.Body) != 0 {
		t.Errorf("HEAD: %d, %d bytes", g.Status, len(g.Body))
	}
}

func TestTokensAreMadeListedAndRevoked(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	made := ask[client.Token](h, 201, sent{token: h.admin, method: "POST", path: "/v1/tokens", body: client.NewToken{Name: "bob", Owner: "platform", Role: lease.User, For: client.Duration(time.Hour)}})
	h.shelve("ci")
	if l := h.acquire(made.Secret, client.Request{Cache: "ci"}); l.Holder != "bob" || l.Owner != "platform" {
		t.Errorf("leased by the new token: %+v", l)
	}
	g := h.do(sent{token: h.admin, method: "GET", path: "/v1/tokens"})
	if !strings.Contains(string(g.Body), made.ID) || strings.Contains(string(g.Body), made.Secret) || strings.Contains(string(g.Body), hashOf(made.Secret)) {
		t.Errorf("listed: %s", g.Body)
	}
	ask[none](h, 204, sent{token: h.admin, method: "DELETE", path: "/v1/tokens/" + made.ID})
	h.refused(401, "unauthorized", sent{token: made.Secret, method: "GET", path: "/v1/leases"})
	if text := h.logs.String(); !strings.Contains(text, "by=root") || strings.Contains(text, made.Secret) {
		t.Errorf("logged: %s", text)
	}
}

func TestTokensSurviveARestartAsHashesOnly(t *testing.T) {
	dir := t.TempDir()
	first, err := OpenTokens(dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	made, err := first.Create(client.NewToken{Name: "ci", Owner: "platform", Role: lease.User})
	if err != nil {
		t.Fatal(err)
	}
	admin, err := os.ReadFile(filepath.Join(dir, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	stored, err := os.ReadFile(filepath.Join(dir, "tokens.json"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(stored), made.Secret) || strings.Contains(string(stored), strings.TrimSpace(string(admin))) {
		t.Errorf("tokens.json holds a secret: %s", stored)
	}
	for _, name := range []string{"tokens.json", "admin.token"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	again, err := OpenTokens(dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for secret, want := range map[string]lease.Caller{
		made.Secret:                      {Name: "ci", Owner: "platform", Role: lease.User},
		strings.TrimSpace(string(admin)): {Name: "admin", Owner: "admin", Role: lease.Admin},
	} {
		if who, ok := again.Lookup(secret); !ok || who != want {
			t.Errorf("after a restart: %+v, %v, want %+v", who, ok, want)
		}
	}
	for _, wrong := range []string{"", "gr_", hashOf(made.Secret), made.ID} {
		if who, ok := again.Lookup(wrong); ok {
			t.Errorf("%q is taken for %+v", wrong, who)
		}
	}
}

func TestADamagedHashIsNoSecrets(t *testing.T) {
	dir, hash := t.TempDir(), hashOf("gr_SECRET")
	list := fmt.Sprintf(`[{"id":"a","hash":""},{"id":"b","hash":"%sZZ"},{"id":"c","hash":"%[1]s0"},{"id":"d","hash":%q}]`, hash, hash[2:])
	if err := os.WriteFile(filepath.Join(dir, "tokens.json"), []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := OpenTokens(dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"", "gr_SECRET"} {
		if who, ok := tokens.Lookup(secret); ok {
			t.Errorf("%q is taken for %+v", secret, who)
		}
	}
}

func TestTheLastAdminTokenStaysAndARevokedOneLeavesNoFile(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	file := filepath.Join(filepath.Dir(h.parts.Tokens.path), adminFile)
	h.token("soon", "admin", lease.Admin, client.Duration(time.Nanosecond)) // expired: it does not count
	revoke := func(id string) sent { return sent{token: h.admin, method: "DELETE", path: "/v1/tokens/" + id} }
	ids := map[string]string{}
	for _, made := range h.parts.Tokens.List() {
		ids[made.Name] = made.ID
	}
	ask[none](h, 204, revoke(ids["jenkins"]))
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	ask[none](h, 204, revoke(ids["admin"]))
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the secret of a revoked token is still in its file: %v", err)
	}
	h.refused(409, "last_admin", revoke(ids["root"]))
	ask[none](h, 204, revoke(ids["soon"]))
}
