package lease_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"greenroom/lease"
	"greenroom/lease/leasetest"
	"greenroom/specs"
)

// trips counts the round trips to the store, less those that open a connection.
type trips struct{ n atomic.Int64 }

func (c *trips) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *trips) count(cmd redis.Cmder) {
	if name := cmd.Name(); name != "hello" && name != "client" {
		c.n.Add(1)
	}
}

func (c *trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.count(cmd)
		return next(ctx, cmd)
	}
}

func (c *trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.count(cmds[0])
		return next(ctx, cmds)
	}
}

func TestTheStockOfManyCachesIsReadInOneRoundTrip(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		lab := &specs.Cache{Name: "lab", Pools: []string{"local"}, Size: 4, Max: 6, Enabled: true}
		b := open(t, rdb, ci(), lab)
		b.shelf("ci", 2)
		b.shelf("lab", 1)
		names := []string{"lab", "ci", "local", "nosuch"}
		count := &trips{}
		rdb.AddHook(count)
		for _, want := range []int64{2, 1} { // the first has to send the script
			count.n.Store(0)
			all, err := b.Stocks(t.Context(), names...)
			b.must(err)
			if n := count.n.Load(); n != want {
				t.Errorf("%d round trips, want %d", n, want)
			}
			var got []int
			for i, st := range all {
				got = append(got, st.In(lease.Shelved))
				one, err := b.Stock(t.Context(), names[i])
				b.must(err)
				if diff := cmp.Diff(one, st); diff != "" {
					t.Error(diff)
				}
			}
			if diff := cmp.Diff([]int{1, 2, 0, 0}, got); diff != "" {
				t.Error(diff)
			}
		}
	})
}

func TestNoStockIsReadOfAStoreThatIsAway(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	store := lease.New(rdb, lease.Options{})
	if err := rdb.Close(); err != nil {
		t.Fatal(err)
	}
	if all, err := store.Stocks(t.Context(), "ci", "local"); all != nil || !errors.Is(err, lease.ErrUnavailable) {
		t.Errorf("%v, %v", all, err)
	}
	if all, err := store.Stocks(t.Context()); all != nil || err != nil {
		t.Errorf("of no cache: %v, %v", all, err)
	}
}

func TestIdleCachesAreSweptInOneRoundTrip(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		lab := &specs.Cache{Name: "lab", Pools: []string{"local"}, Size: 4, Max: 6, Enabled: true}
		b := open(t, rdb, ci(), lab)
		b.shelf("ci", 2)
		b.must(b.Sweep(t.Context())) // the first after a start
		b.acquire(lease.Request{Cache: "ci"})
		count := &trips{}
		rdb.AddHook(count)
		b.must(b.Sweep(t.Context())) // it sends the script
		count.n.Store(0)
		b.must(b.Sweep(t.Context()))
		if n := count.n.Load(); n != 1 {
			t.Errorf("%d round trips, want one for all caches", n)
		}
	})
}
