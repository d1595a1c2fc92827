package server

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/lease/leasetest"
)

// follow opens a stream and returns its lines; it ends with the test.
func (h *house) follow(token, query, lastID string) (*bufio.Scanner, func()) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url+"/v1/events"+query, nil)
	h.must(err)
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "text/event-stream")
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	h.must(err)
	h.t.Cleanup(func() { cancel(); resp.Body.Close() })
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		h.t.Fatalf("the stream: %s, %v", resp.Status, resp.Header)
	}
	lines := bufio.NewScanner(resp.Body)
	if !lines.Scan() || lines.Text() != ": events follow" {
		h.t.Fatalf("the stream begins with %q", lines.Text())
	}
	return lines, cancel
}

// until reads to the line that begins with prefix, and returns the rest of it.
func until(t *testing.T, lines *bufio.Scanner, prefix string) string {
	t.Helper()
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), prefix); ok {
			return rest
		}
	}
	t.Fatalf("the stream ended before %q: %v", prefix, lines.Err())
	return ""
}

func TestAStreamTellsWhatHappensAndGoesOnWhereItBroke(t *testing.T) {
	eachHouse(t, func(h *house) {
		lines, leave := h.follow(h.user, "?cache=ci", "")
		h.shelve("lab")
		h.shelve("ci")
		id := until(t, lines, "id: ")
		if data := until(t, lines, "data: "); !strings.Contains(data, `"guest":"local-1"`) || !strings.Contains(data, `"to":"planned"`) {
			t.Errorf("the first event is %s", data)
		}
		leave()
		lines, _ = h.follow(h.user, "?cache=ci", id)
		for _, state := range []string{"provisioning", "booting", "shelved"} {
			if data := until(t, lines, "data: "); !strings.Contains(data, fmt.Sprintf(`"to":%q`, state)) {
				t.Errorf("after the break: %s, want %s", data, state)
			}
		}
	})
}

func TestASignOfLifeMovesThePlaceAndEndsWithTheToken(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	h.parts.Feed.beat = 10 * time.Millisecond
	lines, _ := h.follow(h.user, "?cache=ci", "")
	h.shelve("lab")
	last := h.happened(h.admin, "", 4)[3].ID
	for id := ""; id != fmt.Sprint(last); id = until(t, lines, "id: ") {
		if lines.Err() != nil {
			t.Fatal(lines.Err())
		}
	}
	for _, token := range h.parts.Tokens.List() {
		if token.Name == "jenkins" {
			h.must(h.parts.Tokens.Revoke(token.ID))
		}
	}
	for lines.Scan() {
	}
	if err := lines.Err(); err != nil {
		t.Errorf("the end: %v", err)
	}
}

func TestTheEndOfTheServerEndsStreams(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	closing := make(chan struct{})
	h.parts.Closing, h.parts.Feed = closing, NewFeed(h.store, time.Now, closing)
	h.serveAgain()
	lines, _ := h.follow(h.user, "", "")
	close(closing)
	for lines.Scan() {
	}
	if err := lines.Err(); err != nil {
		t.Errorf("the end: %v", err)
	}
}

func TestNoMoreFollowThanMay(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var first <-chan client.Event
	for i := range maxFollowers {
		events, err := h.parts.Feed.Subscribe(ctx, lease.Caller{Role: lease.System})
		h.must(err)
		if i == 0 {
			first = events
		}
	}
	h.refused(http.StatusServiceUnavailable, "too_many_followers", sent{token: h.user, method: "GET", path: "/v1/events?follow=true"})
	cancel()
	for range first {
		t.Error("something happened")
	}
}

// hits tells the feed of n leases that were granted at once, for which nothing is looked up.
func (h *house) hits(n int) {
	for i := range n {
		l := &lease.Lease{ID: fmt.Sprint("ci.", i), Holder: "jenkins", Owner: "platform", Guest: "local-1", Hit: true, Granted: time.Now()}
		h.parts.Feed.Notify(lease.Change{Kind: lease.Granted, Cache: "ci", Guest: l.Guest, Lease: l})
	}
}

func TestAFollowerThatIsTooSlowIsToldSoAndCanGoOn(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	events, err := h.parts.Feed.Subscribe(t.Context(), lease.Caller{Role: lease.System})
	h.must(err)
	h.hits(behind + 50)
	h.happened(h.admin, "", behind+50)
	var got []client.Event
	for e := range events {
		got = append(got, e)
	}
	last := got[len(got)-1]
	if len(got) != behind+1 || last.Kind != client.FeedEnded || last.ID != got[behind-1].ID || !strings.Contains(last.Reason, "too slow") {
		t.Errorf("%d events, the last of them %+v", len(got), last)
	}
	rest := h.happened(h.admin, fmt.Sprintf("?after=%d", last.ID), 50)
	if len(rest) != 50 || rest[0].Lease != fmt.Sprint("ci.", behind) {
		t.Errorf("%d events are left, the first of them of %s", len(rest), rest[0].Lease)
	}
}

func TestWhatWasDroppedIsSaidToBeMissing(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	f := h.parts.Feed
	_, err := f.Subscribe(t.Context(), lease.Caller{Role: lease.System})
	h.must(err)
	f.mu.Lock() // the worker cannot go on
	h.hits(3 * queuedEvents)
	f.mu.Unlock()
	var missing []string
	for len(missing) == 0 {
		for _, e := range h.happened(h.admin, "", 1) {
			if e.Kind == client.EventsDropped {
				missing = append(missing, e.Reason)
			}
		}
	}
	if !strings.HasSuffix(missing[0], "events are missing here: too much happened at once") {
		t.Errorf("it says %q", missing[0])
	}
	old := ask[client.Feed](h, http.StatusOK, sent{token: h.admin, method: "GET", path: "/v1/events?after=1&n=1000"})
	if len(old.Events) != keptEvents {
		t.Errorf("%d events are listed, want the newest %d", len(old.Events), keptEvents)
	}
	lines, _ := h.follow(h.user, "", "1")
	if data := until(t, lines, "data: "); !strings.Contains(data, `"kind":"events dropped"`) {
		t.Errorf("who comes back too late is told %s", data)
	}
}

func TestWhoeverAsksIsToldOfWhatNobodyFollowed(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	f, all := h.parts.Feed, lease.Caller{Role: lease.System}
	list := func(by client.EventFilter) (leases []string, feed client.Feed) {
		feed = f.List(all, by)
		for _, e := range feed.Events {
			leases = append(leases, e.Lease)
		}
		return leases, feed
	}
	h.hits(2)
	f.lineMu.Lock()
	if f.working {
		t.Error("a worker makes events that nobody asked for")
	}
	f.lineMu.Unlock()
	leases, seen := list(client.EventFilter{})
	if diff := cmp.Diff([]string{"ci.0", "ci.1"}, leases); diff != "" {
		t.Error(diff)
	}
	h.hits(3)
	if leases, _ = list(client.EventFilter{After: seen.Last}); len(leases) != 3 {
		t.Errorf("after the first two came %v, want three", leases)
	}
	h.hits(3 * keptEvents)
	leases, late := list(client.EventFilter{After: seen.Last})
	if len(leases) != keptEvents || late.Events[len(leases)-1].Lease != fmt.Sprint("ci.", 3*keptEvents-1) {
		t.Errorf("%d events, the last of them of lease %s", len(leases), leases[len(leases)-1])
	}
	if newest, _ := list(client.EventFilter{After: seen.Last, Number: 1}); len(newest) != 1 {
		t.Errorf("the newest one is %v", newest)
	}
}

func TestWhoComesBackTooLateIsToldThoughNobodyAskedMeanwhile(t *testing.T) {
	for meanwhile, want := range map[int]client.Event{
		keptEvents:     {Kind: lease.Granted, Lease: "ci.0"},
		keptEvents + 1: {Kind: client.EventsDropped},
	} {
		h := newHouse(t, leasetest.Embedded(t))
		f, all := h.parts.Feed, lease.Caller{Role: lease.System}
		h.hits(keptEvents)
		last := f.List(all, client.EventFilter{}).Last
		h.hits(meanwhile)
		_, missed, err := f.follow(t.Context(), all, client.EventFilter{After: last})
		h.must(err)
		if got := (client.Event{Kind: missed[0].Kind, Lease: missed[0].Lease}); got != want {
			t.Errorf("after %d events the first that was missed is %+v, want %+v", meanwhile, got, want)
		}
	}
}

func TestWhatNobodyFollowedBelongsToWhoOwnedTheCacheThen(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	h.hits(1)
	now := *h.store.Fleet()
	now.Revision, now.Caches = "test-2", nil
	h.must(h.store.Adopt(t.Context(), &now))
	events := h.parts.Feed.List(lease.Caller{Name: "eve", Owner: "platform", Role: lease.User}, client.EventFilter{}).Events
	if len(events) != 1 || events[0].Lease != "ci.0" {
		t.Errorf("the owner of the cache that was sees %+v", events)
	}
	events = h.parts.Feed.List(lease.Caller{Name: "eve", Owner: "others", Role: lease.User}, client.EventFilter{}).Events
	if len(events) != 0 {
		t.Errorf("another team sees %+v", events)
	}
}

func TestTheWorkerAsksTheStoreNoMoreThanItMay(t *testing.T) {
	now := time.Now()
	f := NewFeed(nil, func() time.Time { return now }, nil)
	var asked []int
	for range 2 {
		n := 0
		for range 2 * lookRate {
			if f.mayLook() {
				n++
			}
		}
		asked = append(asked, n)
		now = now.Add(time.Second)
	}
	if diff := cmp.Diff([]int{lookRate, lookRate}, asked); diff != "" {
		t.Error(diff)
	}
}
