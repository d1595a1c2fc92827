package lease

import (
	"context"
	"slices"
)

// GuestsOf returns the guests of one shard of a pool, by slot: what a run needs, however many others the pool has. All or
// nothing, as Guests.
func (s *Store) GuestsOf(ctx context.Context, pool, shard string) (of []Guest, err error) {
	slots, err := s.slotsOf(ctx, pool, shard)
	if err != nil {
		return nil, err
	}
	guests, err := s.GuestsIn(ctx, pool, slots)
	for _, g := range guests {
		if g.Shard == shard {
			of = append(of, g)
		}
	}
	return of, err
}

// slotsOf lists the slots that were taken for a shard, which never changes in a guest's life.
func (s *Store) slotsOf(ctx context.Context, pool, shard string) ([]int, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	members, err := s.rdb.SMembers(ctx, s.base(pool)+":shard:"+shard).Result()
	if err != nil {
		return nil, outage(err)
	}
	slots := make([]int, len(members))
	for i, m := range members {
		slots[i] = int(number(m))
	}
	slices.Sort(slots)
	return slots, nil
}
