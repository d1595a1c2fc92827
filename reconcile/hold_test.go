package reconcile_test

import (
	"context"
	"strings"
	"testing"

	"greenroom/reconcile"
	"greenroom/reconcile/condition"
	"greenroom/specs"
)

func guard(share float64) func(*specs.Fleet) {
	return func(f *specs.Fleet) { f.Guard = &specs.Guard{MaxRetire: share} }
}

// status is the loop's, and the reason why the newest revision is not in force.
func (h *house) status() (condition.Status, string) {
	st, err := h.loop.Status(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	if st.SpecFault == nil {
		return st, ""
	}
	return st, st.SpecFault.Reason
}

func (h *house) inForce(revision string) {
	h.t.Helper()
	h.until(revision+" is in force", func() bool { st, why := h.status(); return st.Revision == revision && why == "" })
}

func TestARevisionPastItsGuardWaitsForAnApprovalAlsoOverARestart(t *testing.T) {
	h := openHouse(t)
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 4, guard(.5))})
	h.shelved(4)
	none := reconcile.Revision{Fleet: fleet("r2", 0, func(f *specs.Fleet) { f.Caches[0].Size = 0 })}
	for range 2 { // the second time after a restart
		h.loop.Offer(none)
		h.until("the revision is held", func() bool {
			st, why := h.status()
			stalled := condition.Of(st.Conditions, condition.Stalled)
			return why == condition.GuardExceeded && st.Revision == "r1" && st.SpecFault.Revision == "r2" && stalled.Status &&
				strings.HasPrefix(st.SpecFault.Plan, "plan-") && strings.Contains(stalled.Message, "greenroom plan approve "+st.SpecFault.Plan)
		})
		h.stop()
		h.start()
		h.inForce("r1")
	}
	if err := h.loop.Approve("alice", "sha256-of-another"); err != nil {
		t.Fatal(err)
	}
	h.loop.Offer(none)
	h.until("the revision is held", func() bool { _, why := h.status(); return why == condition.GuardExceeded })
	if got := len(h.shelved(4)); got != 4 {
		t.Errorf("%d guests on the shelf", got)
	}
	if err := h.loop.Approve("alice", h.lastHeld()); err != nil {
		t.Fatal(err)
	}
	h.inForce("r2")
	h.shelved(0)
}

func TestAnApprovalIsUsedUp(t *testing.T) {
	h := openHouse(t)
	grown := fleet("r1", 3, guard(.5))
	h.loop.Offer(reconcile.Revision{Fleet: grown})
	h.shelved(3)
	small := fleet("r2", 0, guard(.5), func(f *specs.Fleet) { f.Caches[0].Size = 0 })
	h.loop.Offer(reconcile.Revision{Fleet: small})
	h.until("it is held", func() bool { _, why := h.status(); return why == condition.GuardExceeded })
	if err := h.loop.Approve("alice", h.lastHeld()); err != nil {
		t.Fatal(err)
	}
	h.inForce("r2")
	h.shelved(0)
	h.loop.Offer(reconcile.Revision{Fleet: grown})
	h.shelved(3)
	h.loop.Offer(reconcile.Revision{Fleet: small})
	h.until("it is held again", func() bool { st, why := h.status(); return why == condition.GuardExceeded && st.Revision == "r1" })
}

func TestRewrittenHistoryIsHeldAndADescendantTakesItsPlace(t *testing.T) {
	h := openHouse(t)
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 1)})
	h.shelved(1)
	h.loop.Offer(reconcile.Revision{Fleet: fleet("rewritten", 2), Detached: true})
	h.until("it is held", func() bool { _, why := h.status(); return why == condition.NotFastForward })
	h.loop.Offer(reconcile.Revision{Fault: &condition.Fault{Reason: condition.SpecInvalid, Revision: "bad", Message: "no good"}})
	h.until("the newest is bad", func() bool { _, why := h.status(); return why == condition.SpecInvalid })
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r2", 2)})
	h.inForce("r2")
	h.shelved(2)
}
