package lease_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"greenroom/lease"
	"greenroom/lease/leasetest"
	"greenroom/specs"
)

func TestSlotsThatAreFreeAgainAreStillListed(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		s, ctx := lease.New(rdb, lease.Options{}), t.Context()
		pool := &specs.Pool{Name: "local", Max: 12}
		fleet := &specs.Fleet{Revision: "r", Pools: []*specs.Pool{pool}}
		must(s.Sweep(ctx))
		must(s.Open(ctx))
		must(s.Adopt(ctx, fleet))
		for range 11 {
			_, err := s.Plan(ctx, pool, fleet.Cache("local"), "shard", "digest", false)
			must(err)
		}
		g, err := s.Guest(ctx, "local-2")
		must(err)
		g, err = s.Claim(ctx, g, lease.Provisioning, "run", "", 0)
		must(err)
		must(s.Remove(ctx, g, "run", "run_failed"))
		slots, err := s.Slots(ctx, "local")
		must(err)
		if diff := cmp.Diff([]int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, slots); diff != "" {
			t.Error(diff)
		}
		if none, err := s.Slots(ctx, "other"); err != nil || len(none) > 0 {
			t.Errorf("a pool without guests has the slots %v, %v", none, err)
		}
	})
}
