package reconcile_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"greenroom/lease"
	"greenroom/reconcile"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/plan"
	"greenroom/specs"
)

func TestAPreviewWithTerraformSaysWhatARunThenDoes(t *testing.T) {
	h := openHouse(t)
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 2)})
	h.shelved(2)
	held := h.acquire()
	h.shelved(2)
	head := reconcile.Revision{Fleet: fleet("r2", 2, func(f *specs.Fleet) { f.Pools[0].UserData = "new" })}
	p, err := h.loop.Preview(t.Context(), head)
	if err != nil {
		t.Fatal(err)
	}
	if want := (plan.Summary{Replace: 2, RetireLater: 1, Settings: 1}); p.Plan.Summary != want {
		t.Errorf("%+v, want %+v: %+v", p.Plan.Summary, want, p.Plan.Guests)
	}
	actions := map[string]int{}
	err = p.Terraform(t.Context(), filepath.Join(t.TempDir(), "plans"), func(s plan.Shard) {
		if s.Error != "" {
			t.Errorf("shard %s: %s", s.Shard, s.Error)
		}
		for _, r := range s.Resources {
			actions[r.Action]++
			if r.Guest == held.Guest {
				t.Errorf("terraform would touch the leased %s: %+v", held.Guest, r)
			}
		}
	})
	if err != nil || actions["create"] == 0 || actions["create"] != actions["delete"] {
		t.Errorf("%v: %v", err, actions)
	}
	h.loop.Offer(head)
	h.until("what was said has happened", func() bool {
		fresh := 0
		for _, g := range h.guests(t.Context()) {
			if g.State == lease.Shelved && g.Digest != h.digestOf(held.Guest) {
				fresh++
			}
		}
		return fresh == 2 && len(h.guests(t.Context())) == 3
	})
}

func TestAPreviewNotesWhatStandsInTheWay(t *testing.T) {
	h := openHouse(t)
	bad := t.TempDir()
	if err := os.WriteFile(filepath.Join(bad, "main.tf"), []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	web := &specs.Pool{Name: "web", Module: bad, ModuleDir: bad, Max: 2, Spare: 1, ShardSize: 5, Variables: []byte("{}"), Rollout: specs.Rollout{MaxUnavailable: 1}}
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 1, func(f *specs.Fleet) { f.Pools = append(f.Pools, web) })})
	h.until("a pool has failed", func() bool {
		st, err := h.loop.Status(t.Context())
		return err == nil && len(st.Pools) == 2 && st.Pools[0].Guests[lease.Shelved] == 1 && condition.Of(st.Pools[1].Conditions, condition.Stalled).Status
	})
	if err := h.store.SetPause(t.Context(), "local", &lease.Pause{By: "bob", Reason: "an upgrade"}); err != nil {
		t.Fatal(err)
	}
	p, err := h.loop.Preview(t.Context(), reconcile.Revision{Fleet: &specs.Fleet{Revision: "r2", Pools: []*specs.Pool{web}}}) // the other still has guests
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"pool local is paused by bob: nothing happens in it until it is resumed", "pool web does not converge just now (FaultContract): greenroom status tells why",
	}
	if diff := cmp.Diff(want, p.Plan.Notes); diff != "" {
		t.Error(diff)
	}
	if err := h.store.SetPause(t.Context(), "local", nil); err != nil {
		t.Fatal(err)
	}
}

func (h *house) digestOf(guest string) string {
	g, err := h.store.Guest(context.Background(), guest)
	if err != nil {
		h.t.Fatal(err)
	}
	return g.Digest
}
