package lease

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
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

// Stock reads one cache: its pools are those of the settings in force and those that it ever had a guest of.
func (s *Store) Stock(ctx context.Context, cache string) (Stock, error) {
	all, err := s.Stocks(ctx, cache)
	if err != nil {
		return Stock{}, err
	}
	return all[0], nil
}

// Stocks reads some caches, all or none, in one round trip however many they are.
func (s *Store) Stocks(ctx context.Context, caches ...string) ([]Stock, error) {
	if len(caches) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	args := make([]any, len(States))
	for i, state := range States {
		args[i] = string(state)
	}
	cmds, err := s.together(ctx, true, func(pipe redis.Pipeliner, evaluate evaluation) {
		for some := range slices.Chunk(caches, s.most(16)) {
			evaluate(s.scripts["stock"], ctx, pipe, s.bases(some), args...)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("reading what the caches have: %w", outage(err))
	}
	var replies []any
	for _, cmd := range cmds {
		some, _ := cmd.(*redis.Cmd).Slice()
		replies = append(replies, some...)
	}
	if len(replies) != len(caches) {
		return nil, fmt.Errorf("the store told of %d caches, and was asked for %d", len(replies), len(caches))
	}
	out := make([]Stock, len(caches))
	for i, cache := range caches {
		reply, _ := replies[i].([]any)
		out[i] = parseStock(cache, reply)
	}
	return out, nil
}

type evaluation = func(*redis.Script, context.Context, redis.Scripter, []string, ...any) *redis.Cmd

// together carries out in one round trip what fill puts into a pipeline; readOnly: none of it writes. It may be filled twice, for
// a pipeline can't send the text of a script only where it is wanted.
func (s *Store) together(ctx context.Context, readOnly bool, fill func(redis.Pipeliner, evaluation)) ([]redis.Cmder, error) {
	byName, byText := (*redis.Script).EvalSha, (*redis.Script).Eval
	if readOnly {
		byName, byText = (*redis.Script).EvalShaRO, (*redis.Script).EvalRO
	}
	send := func(evaluate evaluation) ([]redis.Cmder, error) {
		return s.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			fill(pipe, evaluate)
			return nil
		})
	}
	cmds, err := send(byName)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		cmds, err = send(byText)
	}
	return cmds, err
}

// most is how many caches one script may look at, of n: more cost less, and too many would block Redis for long. In a Redis Cluster
// no two caches may be in one script.
func (s *Store) most(n int) int {
	if _, cluster := s.rdb.(*redis.ClusterClient); cluster {
		return 1
	}
	return n
}

func (s *Store) bases(caches []string) []string {
	bases := make([]string, len(caches))
	for i, cache := range caches {
		bases[i] = s.base(cache)
	}
	return bases
}

func parseStock(cache string, reply []any) Stock {
	number := func(i int) int { n, _ := strconv.Atoi(text(reply[i])); return n }
	st := Stock{
		Cache: cache, Counts: map[string]map[State]int{}, Queue: number(0), Oldest: ms(text(reply[1])),
		Override: parseOverride(table(reply[2])), Stats: map[string]int64{},
	}
	for name, v := range table(reply[3]) {
		st.Stats[name], _ = strconv.ParseInt(v, 10, 64)
	}
	rows, _ := reply[4].([]any)
	for _, row := range rows {
		cells, _ := row.([]any)
		counts := map[State]int{}
		for i, state := range States {
			counts[state], _ = strconv.Atoi(text(cells[i+1]))
		}
		st.Counts[text(cells[0])] = counts
	}
	st.Leases = st.In(Leased)
	return st
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
	_, err := s.rdb.TxPipelined(tctx, func(pipe redis.Pipeliner) error {
		pipe.HSet(tctx, s.base(cache)+":override", "enabled", flag(o.Enabled), "until", millis(o.Until), "by", by.Name, "reason", clip(o.Reason, 200))
		pipe.Del(tctx, s.base(cache)+":mirror") // what is decided by it is decided anew
		return nil
	})
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
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	ids, err := s.rdb.ZRange(ctx, s.base(cache)+":queue", 0, int64(n-1)).Result()
	if err != nil {
		return nil, outage(err)
	}
	return s.leases(ctx, cache, ids)
}

// Leases lists n active leases of a cache in the order of their deadlines, which are about the ones that end first.
func (s *Store) Leases(ctx context.Context, cache string, n int) ([]Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	pools, err := s.rdb.SMembers(ctx, s.base(cache)+":pools").Result()
	if err != nil {
		return nil, outage(err)
	}
	var names []string
	for _, pool := range pools {
		some, err := s.rdb.ZRange(ctx, s.base(cache)+":in:"+pool+":"+string(Leased), 0, int64(n-1)).Result()
		if err != nil {
			return nil, outage(err)
		}
		names = append(names, some...)
	}
	ids, err := s.leasesOn(ctx, cache, names)
	if err != nil {
		return nil, err
	}
	out, err := s.leases(ctx, cache, ids)
	out = slices.DeleteFunc(out, func(l Lease) bool { return l.Phase != Active })
	slices.SortFunc(out, func(a, b Lease) int { return cmp.Or(a.Deadline.Compare(b.Deadline), strings.Compare(a.ID, b.ID)) })
	return out[:min(n, len(out))], err
}

// leasesOn returns the ids of the leases that some guests are under.
func (s *Store) leasesOn(ctx context.Context, cache string, guests []string) (ids []string, err error) {
	for some := range slices.Chunk(guests, readBatch) {
		read, err := s.readGuests(ctx, s.guestKeys(cache, some), words{}, []string{"state"})
		if err != nil {
			return nil, err
		}
		for _, g := range read {
			if g.Lease != "" { // else it is gone, or came back
				ids = append(ids, g.Lease)
			}
		}
	}
	return ids, nil
}

// leases reads some leases of a cache, but for those that are not on record any more.
func (s *Store) leases(ctx context.Context, cache string, ids []string) ([]Lease, error) {
	if len(ids) == 0 {
		return []Lease{}, nil
	}
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = s.base(cache) + ":lease:" + id
	}
	records, err := s.rdb.MGet(ctx, keys...).Result()
	if err != nil {
		return nil, outage(err)
	}
	out := make([]Lease, 0, len(ids))
	for i, record := range records {
		if l := parseLease([]any{record, int64(i + 1)}, cache); l.ID != "" {
			out = append(out, l)
		}
	}
	return out, nil
}

// CacheGuests lists the guests on record in a cache, by name.
func (s *Store) CacheGuests(ctx context.Context, cache string) ([]Guest, error) {
	ctx, cancel := context.WithTimeout(ctx, 4*s.options.Timeout)
	defer cancel()
	names, err := s.rdb.SMembers(ctx, s.base(cache)+":guests").Result()
	if err != nil || len(names) == 0 {
		return []Guest{}, outage(err)
	}
	slices.Sort(names)
	out := make([]Guest, 0, len(names))
	known := words{}
	for some := range slices.Chunk(names, readBatch) {
		guests, err := s.readGuests(ctx, s.guestKeys(cache, some), known, guestFields)
		if err != nil {
			return nil, err
		}
		out = append(out, slices.DeleteFunc(guests, func(g Guest) bool { return g.Name == "" })...)
	}
	return out, nil
}
