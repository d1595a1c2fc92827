package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"greenroom/lease"
	"greenroom/lease/client"
)

// someEvents are one of each kind, with what a hostile holder might write.
func someEvents() []client.Event {
	moved := func(from, to lease.State, reason string) client.Event {
		return client.Event{Kind: lease.GuestMoved, Guest: "local-1", Cache: "ci", From: from, To: to, By: "greenroom", Reason: reason}
	}
	byHand := moved(lease.Shelved, lease.Tainted, "manual")
	byHand.By, byHand.Detail = "root", "smells\x1b[2J, says root\nsecond line"
	list := []client.Event{
		{Kind: client.SpecInForce, Revision: "3f786850e387550fdab836ed7e6dc881de23001b"},
		moved("", lease.Planned, ""),
		moved(lease.Booting, lease.Shelved, ""),
		{Kind: lease.Missed, Cache: "ci"},
		{Kind: lease.Granted, Guest: "local-1", Cache: "ci", From: lease.Shelved, To: lease.Leased, By: "jenkins", Source: "shelf"},
		{Kind: lease.Granted, Guest: "local-2", Cache: "ci", To: lease.Leased},
		{Kind: lease.LeaseEnded, Guest: "local-1", Cache: "ci", From: lease.Leased, To: lease.Resetting, How: "released", Outcome: "pass"},
		{Kind: lease.LeaseEnded, Cache: "ci", How: "timed_out"},
		byHand,
		moved(lease.Retiring, lease.Gone, "excess"),
		{Kind: lease.CacheToggle, Cache: "ci", How: "disabled", By: "root", Reason: "an upgrade"},
		{Kind: client.SpecFault, Reason: "SpecInvalid", Detail: "fleet.hcl:3: no\nmore"},
		{Kind: client.EventsDropped, Reason: "12 events are missing here: too much happened at once"},
	}
	for i := range list {
		list[i].ID, list[i].Time = int64(i+1), time.Date(2026, 11, 20, 12, 0, i, 0, time.UTC)
	}
	return list
}

func TestEachKindOfEventIsALineOfItsOwn(t *testing.T) {
	var out bytes.Buffer
	for _, e := range someEvents() {
		out.WriteString(eventLine(e, false) + "\n")
	}
	golden(t, "events.txt", out.String())
}

func TestAnEventIsColouredByTheStateOfItsGuest(t *testing.T) {
	line := eventLine(someEvents()[8], true)
	if !strings.Contains(line, "\x1b[31mshelved → tainted ") || strings.Contains(line, "\x1b[2J") {
		t.Errorf("%q", line)
	}
}

var update = flag.Bool("update", false, "write the golden files anew")

// golden holds text against a file of testdata; -update writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant (%s):\n%s", got, path, want)
	}
}
