package lease

import (
	"context"
	"slices"
	"strconv"
)

// Slots lists every slot that a pool ever had a guest in, also those that are free now: their guests are gone, and what
// Events keeps of them can still be read.
func (s *Store) Slots(ctx context.Context, pool string) ([]int, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	keys, err := s.rdb.HKeys(ctx, s.base(pool)+":incarnations").Result()
	slots := make([]int, 0, len(keys))
	for _, key := range keys {
		if slot, err := strconv.Atoi(key); err == nil {
			slots = append(slots, slot)
		}
	}
	slices.Sort(slots)
	return slots, outage(err)
}
