package server

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/lease/leasetest"
)

// hostile are names and words as somebody sends them who wants to be seen in the metrics, or to fill them.
func hostile(i int) string {
	return fmt.Sprintf([]string{
		"x\"} 1\ngreenroom_store_up 0 %d", "{}\\%d", "../../metrics/%d", "%d\x00\xff", "\u202e\U0001F4A5%d", strings.Repeat("long", 100) + "%d", "gr_secret_%d",
	}[i%7], i)
}

// names lists the series of a scrape, without their values.
func (h *house) names() []string {
	h.t.Helper()
	var out []string
	for line := range strings.Lines(string(h.do(sent{method: "GET", path: "/metrics"}).Body)) {
		if strings.HasPrefix(line, "greenroom_") {
			out = append(out, line[:strings.LastIndexByte(line, ' ')])
		}
	}
	return out
}

// besiege has callers send hostile names wherever a call takes one.
func (h *house) besiege(i int) {
	h.t.Helper()
	word := hostile(i)
	for _, s := range []sent{
		{token: h.user, method: "POST", path: "/v1/leases", body: client.Request{Cache: word}},
		{token: h.user, method: "GET", path: "/v1/leases/" + url.PathEscape(word)},
		{token: h.user, method: "GET", path: "/v1/guests/" + url.PathEscape(word)},
		{token: h.admin, method: "GET", path: "/v1/caches/" + url.PathEscape(word)},
		{token: "gr_" + url.QueryEscape(word), method: "GET", path: "/" + url.PathEscape(word)},
	} {
		s.against = true
		if g := h.do(s); g.Status < 400 || g.Status > 499 {
			h.t.Errorf("%s %q: %d %s", s.method, s.path, g.Status, g.Body)
		}
	}
}

// live has one more guest made and leased, and a lease of it end in one of the ways there are.
func (h *house) live(i int) {
	h.t.Helper()
	ctx, who := h.t.Context(), lease.Caller{Name: hostile(i), Owner: "platform", Role: lease.User}
	h.shelve("ci")
	l, err := h.store.Acquire(ctx, who, lease.Request{Cache: "ci", Wait: lease.Forever})
	h.must(err)
	if i%2 == 0 {
		_, err = h.store.Release(ctx, who, l.ID, lease.Release{Outcome: "fail"})
		h.must(err)
		g, err := h.store.Guest(ctx, l.Guest)
		h.must(err)
		_, err = h.store.Taint(ctx, lease.Caller{Name: hostile(i), Role: lease.Admin}, g, lease.Taint{Reason: "manual", Evidence: hostile(i), Condemn: true})
		h.must(err)
	}
}

// wide has room for a thousand guests.
func (h *house) wide() {
	h.t.Helper()
	fleet := testFleet()
	fleet.Revision, fleet.Pools[1].Max = "test-wide", 2000
	fleet.Caches[0].Max, fleet.Caches[0].Size = 2000, 2000
	h.must(h.store.Adopt(h.t.Context(), fleet))
}

func TestTheNumberOfSeriesFollowsTheSpecsHoweverManyGuestsLeasesAndHostileNamesThereAre(t *testing.T) {
	t.Parallel()
	h := newHouse(t, leasetest.Redis(t).Client)
	h.inspect()
	h.wide()
	h.names() // so that a scrape has been counted
	for i := range 14 {
		h.besiege(i)
		h.live(i)
	}
	few := h.names()
	var all sync.WaitGroup
	for hand := range 4 {
		all.Go(func() {
			for i := range 250 {
				h.live(14 + hand*250 + i)
			}
		})
	}
	for i := range 1000 {
		h.besiege(14 + i)
	}
	all.Wait()
	if guests := h.series("greenroom_guests"); len(guests) != 3 {
		t.Fatalf("guests are leased, tainted and shelved, and there are %q", guests)
	}
	if diff := cmp.Diff(few, h.names()); diff != "" {
		t.Errorf("-few +many:\n%s", diff)
	}
}

// words are what a label may say: the names of the spec, the templates of routes, what docs/metrics.md lists, and numbers.
func (h *house) words() map[string]bool {
	h.t.Helper()
	docs, err := os.ReadFile("../../docs/metrics.md")
	h.must(err)
	known := map[string]bool{"unmatched": true}
	for _, m := range regexp.MustCompile("`([A-Za-z_]+)`").FindAllStringSubmatch(string(docs), -1) {
		known[m[1]] = true
	}
	for _, c := range h.store.Fleet().AllCaches() {
		known[c.Name] = true
	}
	for _, m := range regexp.MustCompile(`(?m)^  (/\S*):`).FindAllStringSubmatch(string(document), -1) {
		known[m[1]] = true
	}
	return known
}

func TestLabelsSayOnlyWordsOfTheSpecAndTheDocs(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	h.inspect()
	for i := range 14 {
		h.besiege(i)
	}
	guest := h.shelve("ci")
	l := h.acquire(h.user, client.Request{Cache: "ci"})
	ask[client.Lease](h, http.StatusOK, sent{token: h.user, method: "DELETE", path: "/v1/leases/" + l.ID, body: client.Release{Outcome: "fail"}})
	known, unknown := h.words(), map[string]bool{}
	text := string(h.do(sent{method: "GET", path: "/metrics"}).Body)
	for _, m := range regexp.MustCompile(`(?m)^greenroom_\w+\{(.*)\} \S+$`).FindAllStringSubmatch(text, -1) {
		for _, label := range regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`).FindAllStringSubmatch(m[1], -1) {
			number := regexp.MustCompile(`^(\d+(\.\d+)?(e[+-]\d+)?|\+Inf)$`).MatchString(label[2])
			if !known[label[2]] && (!number || label[1] != "le" && label[1] != "code") {
				unknown[label[0]] = true
			}
		}
	}
	if len(unknown) > 0 {
		t.Errorf("these are neither in the spec nor in docs/metrics.md: %q", slices.Sorted(maps.Keys(unknown)))
	}
	for _, secret := range []string{h.user, h.admin, l.Token, l.ID, guest.Name, guest.HostKey, guest.Host, "jenkins", "gr_"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in the metrics", secret)
		}
	}
}

// What Prometheus gets too late it throws away, and the server counts as down.
func TestAScrapeIsAnsweredInTimeWhileTheStoreHangs(t *testing.T) {
	t.Parallel()
	server := leasetest.Redis(t)
	patient := redis.NewClient(&redis.Options{Network: "unix", Addr: server.Socket, ReadTimeout: time.Minute})
	t.Cleanup(func() {
		if err := patient.Close(); err != nil {
			t.Error(err)
		}
	})
	h := newHouse(t, patient)
	h.shelve("ci")
	h.exposition()
	h.must(server.Client.Do(t.Context(), "CLIENT", "PAUSE", "60000", "ALL").Err())
	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(h.url + "/metrics")
	h.must(err)
	defer resp.Body.Close()
	text := new(strings.Builder)
	h.must(resp.Write(text))
	if !strings.Contains(text.String(), "\ngreenroom_store_up 0\n") || !strings.Contains(text.String(), "\ngreenroom_pool_max{") {
		t.Errorf("a scrape while the store hangs:\n%s", text)
	}
}
