package reconcile_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"greenroom/lease"
	"greenroom/modules"
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

// An approval says what may become of one revision. It may be given before its own is past any guard, and so not be needed.
func TestAnApprovalEndsWithTheRevisionThatItWasGivenUnder(t *testing.T) {
	h := openHouse(t)
	small := fleet("r2", 0, guard(.5), func(f *specs.Fleet) { f.Caches[0].Size = 0 })
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 0, guard(.5))})
	h.inForce("r1")
	p, err := h.loop.Preview(t.Context(), reconcile.Revision{Fleet: small})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.loop.Approve("alice", p.Plan.Digest); err != nil {
		t.Fatal(err)
	}
	h.loop.Offer(reconcile.Revision{Fleet: small})
	h.inForce("r2")
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 0, guard(.5))})
	h.inForce("r1")
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 3, guard(.5))}) // as a directory of modules would have it: with the same name
	h.shelved(3)
	h.loop.Offer(reconcile.Revision{Fleet: small})
	h.until("it is held", func() bool { _, why := h.status(); return why == condition.GuardExceeded })
}

func TestWhatHasChangedSinceItWasApprovedIsHeldAgain(t *testing.T) {
	h := openHouse(t)
	dir := t.TempDir()
	local, _ := modules.Lookup("local")
	if err := os.CopyFS(dir, local); err != nil {
		t.Fatal(err)
	}
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 2, guard(.1))})
	h.shelved(2)
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r2", 0, func(f *specs.Fleet) {
		f.Caches[0].Size, f.Pools[0].Module, f.Pools[0].ModuleDir = 0, dir, dir
	})})
	h.until("it is held", func() bool { _, why := h.status(); return why == condition.GuardExceeded })
	seen := h.lastHeld()
	if err := os.WriteFile(filepath.Join(dir, "more.tf"), []byte("# more\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.loop.Approve("alice", seen); err != nil {
		t.Fatal(err)
	}
	h.until("it is held with another plan", func() bool { return h.lastHeld() != seen })
	if st, why := h.status(); why != condition.GuardExceeded || st.Revision != "r1" {
		t.Errorf("%s is in force: %s", st.Revision, why)
	}
	if err := h.loop.Approve("alice", h.lastHeld()); err != nil {
		t.Fatal(err)
	}
	h.inForce("r2")
}

func TestAHeldRevisionStaysHeldWhenTheStoreIsLost(t *testing.T) {
	h := openHouse(t)
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 2, guard(.5))})
	h.shelved(2)
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r2", 0, func(f *specs.Fleet) { f.Caches[0].Size = 0 })})
	h.until("it is held", func() bool { _, why := h.status(); return why == condition.GuardExceeded })
	before, adopted := h.lastHeld(), h.adopted.Load()
	if err := h.rdb.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	h.loop.Wake()
	h.shelvedBeside(2, lease.Quarantined)
	if st, why := h.status(); why != condition.GuardExceeded || st.Revision != "r1" || h.lastHeld() != before {
		t.Errorf("%s is in force: %s", st.Revision, why)
	}
	if n := h.adopted.Load() - adopted; n != 0 { // of which the keeper of plans would conclude that the held one is decided
		t.Errorf("another revision is said to be in force %d times", n)
	}
	h.endQuarantine()
}

func TestApprovalsThatCannotBeReadKeepNobodyOut(t *testing.T) {
	h := openHouse(t)
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 1)})
	h.inForce("r1")
	h.stop()
	if err := os.WriteFile(filepath.Join(h.dir, "approvals"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.start()
	h.inForce("r1")
	if err := h.loop.Approve("alice", "sha256-x"); err != nil {
		t.Error(err)
	}
}

func TestARestartKnowsSinceWhenTheRevisionIsInForce(t *testing.T) {
	h := openHouse(t)
	r1 := reconcile.Revision{Fleet: fleet("r1", 1)}
	h.loop.Offer(r1)
	h.inForce("r1")
	before, _ := h.status()
	for range 2 {
		h.stop()
		h.start()
		h.loop.Offer(r1)
		h.inForce("r1")
		h.shelved(1)
		if after, _ := h.status(); !after.SpecSince.Equal(before.SpecSince) {
			t.Errorf("in force since %v, and before the restart since %v", after.SpecSince, before.SpecSince)
		}
	}
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r2", 1)})
	h.inForce("r2")
	if after, _ := h.status(); !after.SpecSince.After(before.SpecSince) {
		t.Errorf("r2 is in force since %v, and r1 since %v", after.SpecSince, before.SpecSince)
	}
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
