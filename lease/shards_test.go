package lease_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"greenroom/lease"
	"greenroom/lease/leasetest"
	"greenroom/specs"
)

func TestTheGuestsOfAShardAreReadByThemselves(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		s, ctx := lease.New(rdb, lease.Options{}), t.Context()
		pool := &specs.Pool{Name: "local", Max: 6}
		ci := &specs.Cache{Name: "ci", Owner: "platform", Enabled: true, Pools: []string{"local"}, Size: 6, Max: 6}
		fleet := &specs.Fleet{Revision: "r", Pools: []*specs.Pool{pool}, Caches: []*specs.Cache{ci}}
		if err := errors.Join(s.Open(ctx), s.Adopt(ctx, fleet)); err != nil {
			t.Fatal(err)
		}
		for n := range 6 {
			cache := []string{"local", "ci"}[n/3]
			if _, err := s.Plan(ctx, pool, fleet.Cache(cache), fmt.Sprint("shard-", n%2+1), "digest", false); err != nil {
				t.Fatal(err)
			}
		}
		for shard, want := range map[string][]string{
			"shard-1": {"local-1 local", "local-3 local", "local-5 ci"}, "shard-2": {"local-2 local", "local-4 ci", "local-6 ci"}, "shard-3": nil,
		} {
			guests, err := s.GuestsOf(ctx, "local", shard)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, g := range guests {
				got = append(got, g.Name+" "+g.Cache)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %s", shard, diff)
			}
		}
		// A slot that was given free and is taken again belongs to its new guest's shard only.
		g, err := s.Guest(ctx, "local-3")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Move(ctx, lease.Caller{Role: lease.System}, lease.Step{Guest: g, From: []lease.State{lease.Planned}, To: lease.Gone}); err != nil {
			t.Fatal(err)
		}
		if again, err := s.Plan(ctx, pool, fleet.Cache("ci"), "shard-2", "digest", false); err != nil || again.Name != "local-3" {
			t.Fatal(again, err)
		}
		for shard, want := range map[string]int{"shard-1": 2, "shard-2": 4} {
			if guests, err := s.GuestsOf(ctx, "local", shard); err != nil || len(guests) != want {
				t.Errorf("%s has %v, %v, want %d guests", shard, guests, err, want)
			}
		}
		if none, err := s.GuestsOf(ctx, "other", "shard-1"); err != nil || len(none) > 0 {
			t.Errorf("a pool without guests has %v, %v", none, err)
		}
	})
}
