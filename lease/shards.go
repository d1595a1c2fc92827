package lease

import (
	"context"
	"slices"

	"github.com/redis/go-redis/v9"
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

// slotsOf lists the slots whose guests are of a shard, which never changes in a guest's life, and those that were moving just
// then, for GuestsIn to find out.
func (s *Store) slotsOf(ctx context.Context, pool, shard string) (slots []int, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	taken, err := s.taken(ctx, pool, nil)
	if err != nil || len(taken) == 0 {
		return nil, outage(err)
	}
	for some := range slices.Chunk(taken, readBatch) {
		shards := make([]*redis.SliceCmd, len(some))
		_, err = s.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for i, at := range some {
				shards[i] = pipe.HMGet(ctx, s.base(at.cache)+":guest:"+GuestName(pool, at.number), "shard")
			}
			return nil
		})
		if err != nil {
			return nil, outage(err)
		}
		for i, cmd := range shards {
			if of := cmd.Val()[0]; of == nil || of == shard {
				slots = append(slots, some[i].number)
			}
		}
	}
	return slots, nil
}
