package main

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/reconcile/condition"
)

// printed is what a table comes to.
func printed[T any](t *testing.T, table func(*tabwriter.Writer, T), v T) string {
	t.Helper()
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	table(w, v)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// spoilt is the same table of the same value, and of what a hostile server makes of it.
func spoilt[T any](t *testing.T, table func(*tabwriter.Writer, T), v T) (clean, hostile string) {
	t.Helper()
	clean = printed(t, table, v)
	spoil(reflect.ValueOf(&v).Elem())
	return clean, printed(t, table, v)
}

func TestNoTextOfTheServerSteersATable(t *testing.T) {
	pause := &lease.Pause{By: "root", Reason: "an upgrade"}
	conditions := []condition.Condition{{Type: condition.Waiting, Status: true, Message: "a bad build", Reason: "Pauses"}}
	pool := client.Pool{PoolStatus: condition.PoolStatus{Pool: "local", Pause: pause, Conditions: conditions, Shards: []condition.ShardStatus{{Shard: "local-a", Conditions: conditions}}}}
	cache := client.Cache{Name: "ci", Override: &lease.Override{By: "root", Reason: "an upgrade"}}
	guest := lease.Guest{Name: "local-1", State: lease.Tainted, Reason: "manual"}
	events := []lease.Event{{To: lease.Tainted, Actor: "root", Reason: "manual", Detail: "smells"}}
	for name, of := range map[string]func() (clean, hostile string){
		"pool show":    func() (string, string) { return spoilt(t, poolDetails, pool) },
		"cache show":   func() (string, string) { return spoilt(t, cacheDetails, cache) },
		"cache queue":  func() (string, string) { return spoilt(t, queueTable, []client.Lease{{ID: "ci.X", Reason: "6 of 6"}}) },
		"guest list":   func() (string, string) { return spoilt(t, guestTable, []lease.Guest{guest}) },
		"guest events": func() (string, string) { return spoilt(t, historyTable, events) },
	} {
		clean, hostile := of()
		if !strings.Contains(hostile, `\x1b[2J`) {
			t.Errorf("%s: the table is not spoilt: %s", name, hostile)
		}
		if strings.ContainsFunc(hostile, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
			t.Errorf("%s: control characters reach the terminal: %q", name, hostile)
		}
		if name != "pool show" && strings.Count(clean, "\n") != strings.Count(hostile, "\n") { // there a message has its lines
			t.Errorf("%s: the lines are others:\n%s\nwant:\n%s", name, hostile, clean)
		}
	}
}

func TestNoTextOfTheServerSteersTheTerminalBesideTables(t *testing.T) {
	var out bytes.Buffer
	cmd := &cobra.Command{}
	cmd.SetErr(&out)
	inLine(cmd)(client.Lease{Cache: "ci", Position: 1, Reason: "you are 1st: cache ci is disabled by root: \x1b[2J\nnow"})
	report(&out, cmd, errors.New("no\x1b[2J\nmore\tof it"))
	want := "1st in line for cache ci: cache ci is disabled by root: \\x1b[2J\\nnow\ngreenroom: no\\x1b[2J\nmore    of it\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestAFailureIsShownWithTheEndOfItsOutput(t *testing.T) {
	detail := "prepare script failed, its output ends:\n" + strings.Repeat("noise ", 100) + "\nno space left on device\n"
	for name, got := range map[string]string{
		"guest events": printed(t, historyTable, []lease.Event{{Detail: detail}}),
		"events":       eventLine(client.Event{Detail: detail}, false),
	} {
		if !strings.Contains(got, "prepare script failed") || !strings.HasSuffix(strings.TrimSpace(got), " / no space left on device") {
			t.Errorf("%s: %s", name, got)
		}
		if len(got) > 600 {
			t.Errorf("%s: %d bytes", name, len(got))
		}
	}
}

func TestAQueueSaysWhoWaitsForWhatAndWhy(t *testing.T) {
	inUTC(t)
	queue := []client.Lease{{
		ID: "ci.X", Position: 1, Holder: "jenkins", Created: time.Now(), WaitUntil: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC),
		Reason: "you are 1st: 6 of at most 6 guests are leased",
	}}
	want := "PLACE  LEASE  HOLDER   OWNER  WAITS SINCE  UNTIL                REASON\n" +
		"1      ci.X   jenkins  -      0s ago       2026-11-20 12:00:00  6 of at most 6 guests are leased\n"
	if diff := cmp.Diff(want, printed(t, queueTable, queue)); diff != "" {
		t.Error(diff)
	}
}

func TestAConditionOfSeveralLinesStandsBesideItsName(t *testing.T) {
	since := time.Now()
	p := client.Pool{PoolStatus: condition.PoolStatus{
		Pool: "local", Module: "local", Max: 2, Shards: []condition.ShardStatus{{Shard: "local-a", Outdated: true}},
		Conditions: []condition.Condition{
			{Type: condition.Stalled, Status: true, Reason: "Guard", Message: "no:\nmore", Since: since}, {Type: condition.Reconciling, Reason: "Idle", Since: since},
		},
	}}
	want := "POOL   MODULE  MAX  SPARE  SHARDS  CONDITION     GUESTS\n" +
		"local  local   2    0      1       Stalled: no:  -\n\n" +
		"Stalled      true: no:\n             more (Guard, 0s ago)\nReconciling  false (Idle, 0s ago)\n\n" +
		"SHARD    GUESTS  OUTDATED  RUN  FAILURES  LAST RUN  CONDITION\n" +
		"local-a  0       yes       -    0         -         not ready\n"
	if diff := cmp.Diff(want, printed(t, poolDetails, p)); diff != "" {
		t.Error(diff)
	}
}

func TestAnOverrideWithoutAReasonEndsItsLine(t *testing.T) {
	got := printed(t, cacheDetails, client.Cache{Name: "ci", Override: &lease.Override{By: "root"}})
	if want := "\n\nOverride by root until it is taken back with \"greenroom cache reset ci\".\n"; !strings.HasSuffix(got, want) {
		t.Errorf("got %q, want %q at the end", got, want)
	}
}
