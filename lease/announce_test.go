package lease_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"greenroom/lease"
	"greenroom/lease/leasetest"
)

// between does something once, when the next call on the store has been answered and its caller has not gone on yet.
type between struct{ do func() }

func (b *between) DialHook(next redis.DialHook) redis.DialHook { return next }

func (b *between) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (b *between) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if do := b.do; do != nil && err == nil {
			b.do = nil
			do()
		}
		return err
	}
}

// one has f told of each change by itself.
func one(f func(lease.Change)) func(...lease.Change) {
	return func(changes ...lease.Change) {
		for _, c := range changes {
			f(c)
		}
	}
}

// A lease that is handed over may be over before the call that handed it over can tell of it.
func TestAGrantIsToldOnceHoweverQuickItsHolderIs(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		told := map[string][]lease.Kind{}
		b := open(t, rdb, ci())
		o := lease.Options{Prefix: "told", Notify: one(func(c lease.Change) {
			if c.Lease != nil {
				told[c.Lease.ID] = append(told[c.Lease.ID], c.Kind)
			}
		})}
		b.Store = lease.New(rdb, o)
		other := lease.New(rdb, o) // a call of the same store would wait for the one that it comes in between
		b.must(b.Open(t.Context()))
		b.must(b.Adopt(t.Context(), b.fleet))
		b.shelf("ci", 1)
		first := b.acquire(lease.Request{Wait: lease.Forever})
		quick := b.acquire(lease.Request{Wait: lease.Forever})
		release := func(s *lease.Store, id string) {
			_, err := s.Release(t.Context(), alice, id, lease.Release{})
			b.must(err)
		}
		hook := &between{}
		rdb.AddHook(hook)
		hook.do = func() { release(other, quick.ID) }
		release(b.Store, first.ID)
		want := map[string][]lease.Kind{first.ID: {lease.Granted, lease.LeaseEnded}, quick.ID: {lease.LeaseEnded, lease.Granted}}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Error(diff)
		}
	})
}
