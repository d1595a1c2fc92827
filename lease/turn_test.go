package lease_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"greenroom/lease"
)

// Whatever the order in which notices of a guest's leases come, and whenever it was read: the turns bring it up to date or
// say that it must be read.
func TestTurnsEndInTheTruthOrAskForIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := time.UnixMilli(1_700_000_000_000).UTC()
		past := []lease.Guest{{Name: "p-1", State: lease.Shelved, Since: at}}
		var changes []lease.Change
		for n := range rapid.IntRange(1, 6).Draw(t, "leases") {
			l := lease.Lease{ID: fmt.Sprintf("ci.%d", n), Guest: "p-1", Hit: true}
			at = at.Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "ms")) * time.Millisecond)
			l.Granted = at
			granted := l
			past = append(past, lease.Guest{Name: "p-1", State: lease.Leased, Since: at, Lease: l.ID})
			changes = append(changes, lease.Change{Kind: lease.Granted, Guest: "p-1", Lease: &granted})
			if rapid.Bool().Draw(t, "goes on") {
				break
			}
			at = at.Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "ms")) * time.Millisecond)
			l.EndedAt = at
			past = append(past, lease.Guest{Name: "p-1", State: lease.Shelved, Since: at})
			changes = append(changes, lease.Change{Kind: lease.LeaseEnded, Guest: "p-1", State: lease.Shelved, Lease: &l})
		}
		read := rapid.IntRange(0, len(past)-1).Draw(t, "read at")
		guest, truth, known, turns := past[read], past[len(past)-1], true, lease.Turns{}
		for _, c := range rapid.Permutation(changes).Draw(t, "notices") {
			turn, ok := c.Turn()
			if !ok {
				t.Fatalf("%+v is no turn", c)
			}
			known = turns.Note(turn) && known
		}
		known = turns["p-1"].Apply(&guest) && known
		if known && (guest.State != truth.State || guest.Lease != truth.Lease || !guest.Since.Equal(truth.Since)) {
			t.Fatalf("the guest is %+v, want %+v", guest, truth)
		}
	})
}

func TestATurnLeavesAGuestAloneThatIsElsewhere(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_000)
	g := lease.Guest{Name: "p-1", State: lease.Tainted, Since: at}
	if (lease.Turn{Guest: "p-1", Lease: "ci.1", Began: true, At: at.Add(time.Second)}).Apply(&g) || g.State != lease.Tainted {
		t.Errorf("a tainted guest became %+v", g)
	}
}

func TestOtherChangesAreNoTurns(t *testing.T) {
	l := &lease.Lease{ID: "ci.1", Guest: "p-1"}
	for _, c := range []lease.Change{
		{Kind: lease.Granted, Guest: "p-1", Lease: l}, // from the queue: the guest was not on the shelf
		{Kind: lease.LeaseEnded, Guest: "p-1", Lease: l},
		{Kind: lease.LeaseEnded, Guest: "p-1", State: lease.Tainted, Lease: l},
		{Kind: lease.GuestMoved, Guest: "p-1", State: lease.Shelved},
		{Kind: lease.Missed, Cache: "ci"},
	} {
		if turn, ok := c.Turn(); ok {
			t.Errorf("%+v is taken for the turn %+v", c, turn)
		}
	}
}
