package integration

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/reconcile/condition"
)

// watched is a fleet of 20 guests whose watchdog finds the dead soon.
func watched(brake string) fleet {
	return fleet{max: 20, warm: 20, size: 20, pool: fmt.Sprintf(`
  probe "ssh" {
    every    = "1s"
    timeout  = "1s"
    failures = 2
  }
  brake { max_unhealthy = %q }
`, brake)}
}

func TestFewDeadAreReplacedAndManyPullTheBrake(t *testing.T) {
	tf := newTerraform(t)
	h := newHouse(t, options{args: []string{"--terraform", tf.path}})
	h.write(watched("40%"))
	h.start()
	h.converged()
	t.Run("2 of 20 are replaced in their slots", func(t *testing.T) { fewDie(t, h, tf) })
	t.Run("12 of 20 pull the brake", func(t *testing.T) { manyDie(t, h) })
	t.Run("the brake lets go where the spec allows more", func(t *testing.T) {
		before := h.living()
		h.write(watched("100%"))
		h.replaced(t, doomed(12), before)
		if on := h.metric(`greenroom_watchdog_brake{pool="local"}`); on != 0 {
			t.Errorf("the brake's metric is %v, want 0", on)
		}
	})
}

// doomed names the first n guests.
func doomed(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = lease.GuestName("local", i+1)
	}
	return names
}

func (h *house) killAll(names []string) {
	h.Helper()
	guests := h.guests()
	for _, name := range names {
		h.killGuest(guests[name])
	}
}

func fewDie(t *testing.T, h *house, tf *terraform) {
	dead := doomed(2)
	before := h.living()
	started := len(tf.runs())
	h.killAll(dead)
	h.replaced(t, dead, before)

	var asked []string
	for _, line := range tf.runs()[started:] {
		for _, name := range dead {
			if strings.HasPrefix(line, "plan") && strings.Contains(line, ` -replace=module.guests.terraform_data.guest["`+name+`"]`) {
				asked = append(asked, name)
			}
		}
	}
	slices.Sort(asked)
	if diff := cmp.Diff(dead, slices.Compact(asked)); diff != "" {
		t.Errorf("the guests that Terraform was told to replace: %s\n%s", diff, strings.Join(tf.runs()[started:], "\n"))
	}
	var replaced []string
	for _, s := range must(h.api.Shards(t.Context()))(t) {
		if s.LastRun != nil {
			replaced = append(replaced, s.LastRun.Replaced...)
		}
	}
	// Verdicts that come apart make two runs, of which the last one is told of.
	strange := func(name string) bool { return !slices.Contains(dead, name) }
	if len(replaced) == 0 || slices.ContainsFunc(replaced, strange) {
		t.Errorf("the last run says that it has replaced %v, want some of %v", replaced, dead)
	}
}

// replaced waits until the dead have successors in their slots, and asserts that the others are as they were.
func (h *house) replaced(t *testing.T, dead []string, before map[string][]int) {
	t.Helper()
	was := h.guests()
	for _, name := range dead {
		h.in(name, was[name].Incarnation+1, lease.Shelved)
		h.died(t, name)
	}
	h.converged()
	after := h.guests()
	if len(after) != 20 {
		t.Errorf("%d guests, want 20", len(after))
	}
	h.matched()
	alive := h.living()
	for name, g := range after {
		if !slices.Contains(dead, name) && !slices.Equal(alive[g.Principal()], before[g.Principal()]) {
			t.Errorf("guest %s was process %v and is %v", g.Principal(), before[g.Principal()], alive[g.Principal()])
		}
	}
}

// died asserts that a guest's history tells of its death and succession, with the evidence.
func (h *house) died(t *testing.T, name string) {
	t.Helper()
	var states []lease.State
	for _, e := range must(h.api.Events(t.Context(), name, 5))(t) { // replacing is entered twice: decided, and taken up by a run
		states = append(states, e.To)
		if e.To == lease.Tainted && (e.Reason != "dead" || e.Detail == "") {
			t.Errorf("guest %s was tainted for %q with evidence %q, want dead with some", name, e.Reason, e.Detail)
		}
	}
	slices.Reverse(states)
	states = slices.Compact(states)
	if diff := cmp.Diff([]lease.State{lease.Tainted, lease.Replacing, lease.Booting, lease.Shelved}, states); diff != "" {
		t.Errorf("the history of %s: %s", name, diff)
	}
}

func manyDie(t *testing.T, h *house) {
	before := h.guests()
	deaths := h.metric(`greenroom_guest_deaths_total{pool="local"`)
	started := must(h.api.Status(t.Context()))(t).Processes
	h.killAll(doomed(12))
	h.until("the brake is on", func() error {
		p, err := h.api.Pool(t.Context(), "local")
		if c := condition.Of(p.Conditions, condition.Waiting); err == nil && (!c.Status || c.Reason != "WatchdogBrake") {
			err = fmt.Errorf("the conditions are %+v", p.Conditions)
		}
		return err
	})
	if on := h.metric(`greenroom_watchdog_brake{pool="local"}`); on != 1 {
		t.Errorf("the brake's metric is %v, want 1", on)
	}
	// It goes on probing, and does nothing about what it finds.
	failed := h.metric(`greenroom_probes_total{pool="local",result="failed"}`)
	h.until("the dead have failed three more probes each", func() error {
		if now := h.metric(`greenroom_probes_total{pool="local",result="failed"}`); now < failed+36 {
			return fmt.Errorf("%v probes have failed, of %v", now-failed, 36)
		}
		return nil
	})
	after := h.guests()
	if diff := cmp.Diff(standing(before), standing(after)); diff != "" {
		t.Errorf("the watchdog has touched guests in spite of the brake: %s", diff)
	}
	if now := h.metric(`greenroom_guest_deaths_total{pool="local"`); now != deaths {
		t.Errorf("%v deaths were booked, want none", now-deaths)
	}
	if now := must(h.api.Status(t.Context()))(t).Processes; now != started {
		t.Errorf("%d Terraform processes were started under the brake, want none", now-started)
	}
}

func standing(guests map[string]lease.Guest) map[string]string {
	out := map[string]string{}
	for name, g := range guests {
		out[name] = fmt.Sprint(g.Incarnation, g.State)
	}
	return out
}

func TestTheHolderIsToldOfADeadGuestWhichIsReplacedAfterItsRelease(t *testing.T) {
	t.Parallel() // it mostly waits, last for the reset of the dead guest to give up
	h := newHouse(t, options{})
	spec := watched("50%")
	spec.max, spec.warm, spec.size = 4, 2, 4
	h.write(spec)
	h.start()
	h.converged()
	l := h.acquire()
	h.shelved(2)
	h.killGuest(h.guests()[l.Guest.Name])
	h.until("the lease tells of the guest's death", func() error {
		now, err := h.api.Lease(t.Context(), l.ID)
		if err == nil && !strings.HasPrefix(now.Guest.Health, "dead") {
			err = errors.New("its health is " + now.Guest.Health)
		}
		return err
	})
	failed := h.metric(`greenroom_probes_total{pool="local",result="failed"}`)
	h.until("it has failed three more probes", func() error {
		if now := h.metric(`greenroom_probes_total{pool="local",result="failed"}`); now < failed+3 {
			return fmt.Errorf("%v more have failed", now-failed)
		}
		return nil
	})
	if now := h.guests()[l.Guest.Name]; now.State != lease.Leased || now.Lease != l.ID || now.Incarnation != l.Guest.Incarnation || now.Condemned != "" {
		t.Errorf("the leased guest was touched: %+v", now)
	}
	if now := must(h.api.Renew(t.Context(), l.ID, client.Renewal{}))(t); now.Phase != lease.Active || !strings.HasPrefix(now.Guest.Health, "dead") {
		t.Errorf("a renewal says %+v, want an active lease on a dead guest", now)
	}
	h.release(l.ID)
	h.until("the dead guest is replaced or retired", func() error {
		now, err := h.api.Guest(t.Context(), l.Guest.Name)
		if errors.Is(err, lease.ErrUnknownGuest) {
			return nil
		}
		if err == nil && now.Incarnation == l.Guest.Incarnation {
			err = fmt.Errorf("it is %s", now.State)
		}
		return err
	})
}
