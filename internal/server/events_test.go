package server

import (
	"fmt"
	"net/http"
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

// happened returns the feed as a token sees it, when it has n events.
func (h *house) happened(token, query string, n int) []client.Event {
	h.t.Helper()
	for range 500 {
		feed := ask[client.Feed](h, http.StatusOK, sent{token: token, method: "GET", path: "/v1/events" + query})
		if len(feed.Events) >= n {
			return feed.Events
		}
		select { // the worker has no end to be waited for
		case <-h.t.Context().Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	h.t.Fatalf("the feed did not come to have %d events", n)
	return nil
}

var bare = cmpopts.IgnoreFields(client.Event{}, "ID", "Time", "Lease")

func TestTheFeedTellsTheLifeOfAGuest(t *testing.T) {
	eachHouse(t, func(h *house) {
		g := h.shelve("ci")
		l := h.acquire(h.user, client.Request{Cache: "ci"})
		ask[client.Lease](h, http.StatusOK, sent{token: h.user, method: "DELETE", path: "/v1/leases/" + l.ID, body: client.Release{Outcome: "pass"}})
		ask[client.Ordered](h, http.StatusAccepted, sent{token: h.admin, method: "POST", path: "/v1/guests/" + g.Name + "/taint", body: client.Reason{Reason: "smells"}})
		of := func(e client.Event) client.Event {
			e.Cache, e.Pool, e.Guest, e.Incarnation = "ci", "local", g.Name, max(e.Incarnation, g.Incarnation)
			return e
		}
		moved := lease.GuestMoved
		want := []client.Event{
			{Kind: moved, To: lease.Planned, By: "greenroom"},
			{Kind: moved, From: lease.Planned, To: lease.Provisioning, By: "greenroom"},
			{Kind: moved, From: lease.Provisioning, To: lease.Booting, By: "greenroom"},
			{Kind: moved, From: lease.Booting, To: lease.Shelved, By: "greenroom"},
			{Kind: lease.Granted, From: lease.Shelved, To: lease.Leased, By: "jenkins", Source: "shelf"},
			{Kind: lease.LeaseEnded, From: lease.Leased, To: lease.Shelved, By: "jenkins", How: "released", Outcome: "pass"},
			{Kind: moved, From: lease.Shelved, To: lease.Tainted, By: "root", Reason: "manual", Detail: "smells, says root"},
		}
		for i := range want {
			want[i] = of(want[i])
		}
		got := h.happened(h.admin, "", len(want))
		if diff := cmp.Diff(want, got, bare); diff != "" {
			t.Error(diff)
		}
		for i, e := range got {
			if i > 0 && e.ID <= got[i-1].ID || e.Time.IsZero() {
				t.Errorf("event %d: id %d after %d, at %v", i, e.ID, got[max(0, i-1)].ID, e.Time)
			}
		}
		if got[4].Lease != l.ID || got[5].Lease != l.ID {
			t.Errorf("the lease is told as %q and %q, want %q", got[4].Lease, got[5].Lease, l.ID)
		}
		after := h.happened(h.admin, fmt.Sprintf("?after=%d&n=2", got[2].ID), 2)
		if diff := cmp.Diff(got[5:], after); diff != "" {
			t.Errorf("the newest two after the third: %s", diff)
		}
	})
}

func TestAFeedThatIsLateTellsEachMoveAsItWas(t *testing.T) {
	eachHouse(t, func(h *house) {
		g := h.shelve("ci")
		history, err := h.store.Events(t.Context(), g.Name, 1)
		h.must(err)
		l := h.acquire(h.user, client.Request{Cache: "ci"})
		ask[client.Lease](h, http.StatusOK, sent{token: h.user, method: "DELETE", path: "/v1/leases/" + l.ID})
		late := NewFeed(h.store, time.Now, nil)
		shelved := lease.Change{Kind: lease.GuestMoved, Cache: "ci", Guest: g.Name, State: lease.Shelved, Since: history[0].Time}
		late.make(&shelved, h.store.Fleet(), time.Now())
		events := late.List(lease.Caller{Name: "root", Role: lease.Admin}, client.EventFilter{}).Events
		if len(events) != 1 || events[0].From != lease.Booting {
			t.Errorf("the first shelving is told as %+v", events)
		}
	})
}

func TestTheFeedShowsACallerWhatIsItsOwn(t *testing.T) {
	eachHouse(t, func(h *house) {
		h.shelve("ci")
		h.shelve("ci")
		h.shelve("lab")
		mine := h.acquire(h.user, client.Request{Cache: "ci"})
		h.acquire(h.admin, client.Request{Cache: "ci"})
		h.acquire(h.stranger, client.Request{Cache: "lab"})
		h.parts.Feed.InForce("test-2")
		all := h.happened(h.admin, "", 16)
		seen := h.happened(h.user, "", 11)
		var leases, holders []string
		for _, e := range seen {
			if e.Cache == "lab" {
				t.Errorf("another owner's event is shown: %+v", e)
			}
			if e.Kind == lease.Granted {
				leases, holders = append(leases, e.Lease), append(holders, e.By)
			}
		}
		if diff := cmp.Diff([][]string{{mine.ID, ""}, {"jenkins", ""}}, [][]string{leases, holders}); diff != "" {
			t.Error(diff)
		}
		if len(all) != 16 || len(seen) != 11 || seen[10].Revision != "test-2" {
			t.Errorf("an admin sees %d events and a user %d, want 16 and 11, the last of them the spec: %+v", len(all), len(seen), seen[len(seen)-1])
		}
		h.refused(http.StatusForbidden, "not_yours", sent{token: h.user, method: "GET", path: "/v1/events?cache=lab"})
		h.refused(http.StatusNotFound, "unknown_cache", sent{token: h.user, method: "GET", path: "/v1/events?cache=typo"})
		h.refused(http.StatusNotFound, "unknown_pool", sent{token: h.user, method: "GET", path: "/v1/events?pool=typo"})
		h.refused(http.StatusNotFound, "unknown_guest", sent{token: h.user, method: "GET", path: "/v1/events?guest=typo"})
		h.refused(http.StatusUnauthorized, "unauthorized", sent{method: "GET", path: "/v1/events"})
		for _, query := range []string{"?after=-1", "?after=x", "?n=0", "?n=1001", "?follow=perhaps"} {
			h.refused(http.StatusBadRequest, "malformed", sent{token: h.user, method: "GET", path: "/v1/events" + query, against: true})
		}
	})
}

func TestASpecFaultIsToldOnceUntilOneComesIntoForce(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	bad := condition.Fault{Reason: "Invalid", Revision: "test-2", Message: strings.Repeat("x", 2*maxDetail)}
	for range 3 {
		h.parts.Feed.Fault(bad)
	}
	h.parts.Feed.InForce("test-3")
	h.parts.Feed.Fault(bad)
	want := []client.Event{
		{Kind: client.SpecFault, Revision: "test-2", Reason: "Invalid", Detail: strings.Repeat("x", maxDetail) + "…"},
		{Kind: client.SpecInForce, Revision: "test-3"},
		{Kind: client.SpecFault, Revision: "test-2", Reason: "Invalid", Detail: strings.Repeat("x", maxDetail) + "…"},
	}
	if diff := cmp.Diff(want, h.happened(h.user, "", 3), bare); diff != "" {
		t.Error(diff)
	}
}
