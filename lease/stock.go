package lease

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"greenroom/specs"
)

// Stock is what one cache has, read in one round trip whose cost does not grow with the number of guests.
type Stock struct {
	Cache    string                   `json:"cache"`
	Counts   map[string]map[State]int `json:"counts"` // pool -> state -> guests, zeros included
	Queue    int                      `json:"queue"`
	Oldest   time.Time                `json:"oldest,omitzero"` // when the head of the queue came
	Leases   int                      `json:"leases"`
	Override *Override                `json:"override,omitempty"`
	Stats    map[string]int64         `json:"stats"` // counters, by the names that the scripts give them
}

// In sums the guests of the cache that are in one of the states.
func (st Stock) In(states ...State) int {
	n := 0
	for _, counts := range st.Counts {
		for _, state := range states {
			n += counts[state]
		}
	}
	return n
}

// Override is the run-time knob over a cache's enabled.
type Override struct {
	Enabled bool      `json:"enabled"`
	Until   time.Time `json:"until,omitzero"` // zero: until it is taken back
	By      string    `json:"by"`
	Reason  string    `json:"reason,omitempty"`
}

// Stock reads one cache. Its pools are those of the spec and, where a guest is left of another, that one too.
func (s *Store) Stock(ctx context.Context, c *specs.Cache) (Stock, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	base := s.base(c.Name)
	pipe := s.rdb.Pipeline()
	cards := map[string]map[State]*redis.IntCmd{}
	for _, pool := range c.Pools {
		cards[pool] = map[State]*redis.IntCmd{}
		for _, state := range States {
			cards[pool][state] = pipe.ZCard(ctx, base+":in:"+pool+":"+string(state))
		}
	}
	queue := pipe.ZCard(ctx, base+":queue")
	head := pipe.ZRange(ctx, base+":queue", 0, 0)
	leases := pipe.ZCard(ctx, base+":deadlines")
	override := pipe.HGetAll(ctx, base+":override")
	stats := pipe.HGetAll(ctx, base+":stats")
	if _, err := pipe.Exec(ctx); err != nil {
		return Stock{}, outage(err)
	}
	st := Stock{Cache: c.Name, Counts: map[string]map[State]int{}, Queue: int(queue.Val()), Leases: int(leases.Val()), Stats: map[string]int64{}}
	for pool, byState := range cards {
		st.Counts[pool] = map[State]int{}
		for state, n := range byState {
			st.Counts[pool][state] = int(n.Val())
		}
	}
	for k, v := range stats.Val() {
		st.Stats[k], _ = strconv.ParseInt(v, 10, 64)
	}
	st.Override = parseOverride(override.Val())
	if len(head.Val()) == 1 {
		created, err := s.rdb.HGet(ctx, base+":lease:"+head.Val()[0], "created").Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return Stock{}, outage(err)
		}
		st.Oldest = ms(created)
	}
	return st, nil
}

func parseOverride(f map[string]string) *Override {
	if len(f) == 0 {
		return nil
	}
	o := &Override{Enabled: f["enabled"] == "1", Until: ms(f["until"]), By: f["by"], Reason: f["reason"]}
	if !o.Until.IsZero() && o.Until.Before(time.Now()) {
		return nil
	}
	return o
}

// Toggle enables or disables a cache at run time, over what the spec says, until a time or until it is taken back.
func (s *Store) Toggle(ctx context.Context, by Caller, cache string, o Override) error {
	tctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	err := s.rdb.HSet(tctx, s.base(cache)+":override", "enabled", flag(o.Enabled), "until", millis(o.Until), "by", by.Name, "reason", clip(o.Reason, 200)).Err()
	if err != nil {
		return outage(err)
	}
	return s.toggled(ctx, cache)
}

// Untoggle takes an override back: the spec is in force again.
func (s *Store) Untoggle(ctx context.Context, _ Caller, cache string) error {
	tctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	if err := s.rdb.Del(tctx, s.base(cache)+":override").Err(); err != nil {
		return outage(err)
	}
	return s.toggled(ctx, cache)
}

func (s *Store) toggled(ctx context.Context, cache string) error {
	s.tell(Change{Kind: CacheToggle, Cache: cache})
	return s.SweepCache(ctx, cache)
}

// Queue lists the first n requests that wait in a cache, in order.
func (s *Store) Queue(ctx context.Context, cache string, n int) ([]Lease, error) {
	return s.leases(ctx, cache, "queue", n)
}

// Leases lists the n active leases of a cache that end first.
func (s *Store) Leases(ctx context.Context, cache string, n int) ([]Lease, error) {
	return s.leases(ctx, cache, "deadlines", n)
}

func (s *Store) leases(ctx context.Context, cache, index string, n int) ([]Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	base := s.base(cache)
	ids, err := s.rdb.ZRange(ctx, base+":"+index, 0, int64(n-1)).Result()
	if err != nil || len(ids) == 0 {
		return []Lease{}, outage(err)
	}
	cmds := make([]*redis.SliceCmd, len(ids))
	_, err = s.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, id := range ids {
			cmds[i] = pipe.HMGet(ctx, base+":lease:"+id, leaseFields...)
		}
		return nil
	})
	if err != nil {
		return nil, outage(err)
	}
	out := make([]Lease, 0, len(ids))
	for i, cmd := range cmds {
		if l := parseLease([]any{zip(leaseFields, cmd.Val()), strconv.Itoa(i + 1)}, cache); l.ID != "" {
			out = append(out, l)
		}
	}
	return out, nil
}

var leaseFields = strings.Fields("id holder owner phase pools guest incarnation ttl created granted deadline cap wait_until ended how outcome source hit")

func zip(fields []string, values []any) []any {
	out := make([]any, 0, 2*len(fields))
	for i, f := range fields {
		if values[i] != nil {
			out = append(out, f, values[i])
		}
	}
	return out
}

// CacheGuests lists the guests on record in a cache, by name.
func (s *Store) CacheGuests(ctx context.Context, cache string) ([]Guest, error) {
	ctx, cancel := context.WithTimeout(ctx, 4*s.options.Timeout)
	defer cancel()
	base := s.base(cache)
	names, err := s.rdb.SMembers(ctx, base+":guests").Result()
	if err != nil || len(names) == 0 {
		return []Guest{}, outage(err)
	}
	cmds := make([]*redis.MapStringStringCmd, len(names))
	_, err = s.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, name := range names {
			cmds[i] = pipe.HGetAll(ctx, base+":guest:"+name)
		}
		return nil
	})
	if err != nil {
		return nil, outage(err)
	}
	out := make([]Guest, 0, len(names))
	for _, cmd := range cmds {
		if len(cmd.Val()) > 0 {
			out = append(out, parseGuest(cmd.Val()))
		}
	}
	slices.SortFunc(out, func(a, b Guest) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}
