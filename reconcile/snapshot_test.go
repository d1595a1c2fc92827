package reconcile

import (
	"strings"
	"testing"
	"time"

	"greenroom/lease"
	"greenroom/specs"
)

func TestACacheIsOffAsItsOverrideSaysUntilItEnds(t *testing.T) {
	for _, c := range []struct {
		name     string
		enabled  bool
		override *lease.Override
		want     bool
	}{
		{"as the spec says", true, nil, false},
		{"as the spec says, disabled", false, nil, true},
		{"disabled for good", true, &lease.Override{}, true},
		{"enabled for good", false, &lease.Override{Enabled: true}, false},
		{"disabled for a while", true, &lease.Override{Until: epoch.Add(time.Second)}, true},
		{"disabled until now", true, &lease.Override{Until: epoch}, false},
		{"enabled until now", false, &lease.Override{Enabled: true, Until: epoch}, true},
	} {
		spec := &specs.Cache{Name: "ci", Enabled: c.enabled}
		if got := off(spec, c.override, epoch); got != c.want {
			t.Errorf("%s: off %v", c.name, got)
		}
		pv := &previewing{now: epoch, overrides: map[string]*lease.Override{"ci": c.override}}
		if got := pv.snapshot(side{fleet: fleetOf(nil, spec)}).Off["ci"]; got != c.want {
			t.Errorf("%s: off in a preview %v", c.name, got)
		}
	}
}

func TestARequestIsToldOfTheSpecOnlyWhereNoOverrideStandsOverIt(t *testing.T) {
	cache := testCache("ci", 0, 1, 1, "paaa")
	cache.Enabled = false
	fleet := cold(1)
	fleet.Caches = []*specs.Cache{cache}
	l, store, _, _ := ticking(t, fleet)
	if got := l.Explain(t.Context(), "ci"); got != "cache ci is disabled by the spec" {
		t.Error(got)
	}
	if err := store.Toggle(t.Context(), lease.Caller{Name: "alice", Role: lease.Admin}, "ci", lease.Override{Enabled: true, By: "alice"}); err != nil {
		t.Fatal(err)
	}
	if got := l.Explain(t.Context(), "ci"); !strings.HasPrefix(got, "0 of at most 1 guests are leased") {
		t.Error(got)
	}
}

func TestAPreviewTakesFewRoundTripsHoweverManyPoolsThereAre(t *testing.T) {
	l, _, commands, _ := ticking(t, cold(50))
	head := cold(50)
	head.Revision = "head"
	before := commands.trips.Load()
	if _, err := l.Preview(t.Context(), Revision{Name: "head", Fleet: head}); err != nil {
		t.Fatal(err)
	}
	if n := commands.trips.Load() - before; n > 10 {
		t.Errorf("it takes %d", n)
	}
}
