package main

import (
	"bytes"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/google/go-cmp/cmp"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/reconcile/condition"
)

func TestTheStatusSaysWhatIsInForceAndWhyNothingNewerIs(t *testing.T) {
	old, newer := "0123456789abcdef0123456789abcdef01234567", "fedcba9876543210fedcba9876543210fedcba98"
	since := time.Now().Add(-90 * time.Minute)
	for name, c := range map[string]struct {
		revision string
		fault    *condition.Fault
		want     string
	}{
		"nothing yet": {"", nil, "SPEC  nothing is in force yet, from fleet.git\n"},
		"all is well": {old, nil, "SPEC  0123456789ab from fleet.git, came into force 1h30m0s ago\n"},
		"a bad revision": {
			old, &condition.Fault{Reason: condition.SpecInvalid, Revision: newer, Message: "2 faults:\nError: x", Since: since},
			"SPEC   0123456789ab from fleet.git, came into force 1h30m0s ago\n" +
				"FAULT  the newer revision fedcba987654 is not in force (SpecInvalid, found 1h30m0s ago): 2 faults:\n" +
				"       Error: x\n",
		},
		"a remote that is away at the start": {
			"", &condition.Fault{Reason: condition.Unreachable, Message: "connection refused"},
			"SPEC   nothing is in force yet, from fleet.git\n" +
				"FAULT  no newer revision can be read (SourceUnreachable): connection refused\n",
		},
		"a held revision": {
			old, &condition.Fault{Reason: condition.GuardExceeded, Revision: newer, Message: "fleet: 4 of 4", Since: since, Plan: "p1"},
			"SPEC  0123456789ab from fleet.git, came into force 1h30m0s ago\n" +
				"HELD  the newer revision fedcba987654 is not in force (GuardExceeded, found 1h30m0s ago): fleet: 4 of 4\n" +
				"NEXT  see it with \"greenroom plan show p1\"; an admin lets it come into force with \"greenroom plan approve p1\"\n",
		},
	} {
		var b bytes.Buffer
		w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
		specRows(w, condition.Status{Revision: c.revision, Source: "fleet.git", SpecSince: since, SpecFault: c.fault})
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, b.String()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestNobodyKnowsHowPoolsStandWhileTheStoreIsAway(t *testing.T) {
	pool := client.Pool{PoolStatus: condition.PoolStatus{
		Pool: "local", Module: "local", Max: 8, Guests: map[lease.State]int{lease.Shelved: 3},
		Conditions: []condition.Condition{{Type: condition.Ready, Status: true, Message: "everything that the spec wants is there"}},
	}}
	st := client.Status{Status: condition.Status{Store: "connection refused"}, Pools: []client.Pool{pool}}
	got := printed(t, statusTable, st)
	want := "POOL   MODULE  MAX  SPARE  SHARDS  CONDITION  GUESTS\n" +
		"local  local   8    0      0       unknown    unknown\n"
	if !strings.Contains(got, "STORE      AWAY: connection refused\n") || !strings.Contains(got, want) {
		t.Errorf("got:\n%s\nwant in it:\n%s", got, want)
	}
	st.Store = ""
	if got := printed(t, statusTable, st); strings.Contains(got, "unknown") || !strings.Contains(got, "3 shelved") {
		t.Errorf("with the store there: %s", got)
	}
}
