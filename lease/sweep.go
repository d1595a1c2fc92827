package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// sweepBatch is how much one script call ends of each kind, so that no call blocks Redis for long.
const sweepBatch = 100

// keepEnded is how many ended leases a cache keeps on record at most.
const keepEnded = 10000

// SweepCache does what time brings about in one cache: expiry, lapsed requests, the ends of holds and quarantines.
func (s *Store) SweepCache(ctx context.Context, cache string) error {
	for {
		reply, err := s.run(ctx, "sweep", cache, sweepBatch, s.options.Gap.Milliseconds(), s.options.Grace.Milliseconds(),
			s.options.Keep.Milliseconds(), keepEnded)
		if err != nil {
			return err
		}
		s.announceAll(ctx, cache, reply[2])
		if text(reply[1]) != "1" {
			return nil
		}
	}
}

// Sweep sweeps every cache that has something to sweep. It must have run once before the first call after a start: time in which
// nobody could renew is given back then.
func (s *Store) Sweep(ctx context.Context) error {
	s.queues.forget(time.Now().Add(-mirrorStays))
	due, err := s.beat(ctx)
	errs := []error{err}
	for _, c := range due {
		errs = append(errs, s.SweepCache(ctx, c))
	}
	return errors.Join(errs...)
}

// rounds are the caches that a sweep looks at, with the bases of their keys.
type rounds struct {
	caches, bases []string
	read          time.Time
}

// anew is how long the rounds are kept at most.
const anew = time.Minute

// beat notes that the store is there, and returns the caches that have something to sweep. It reads the names of all caches, of
// which there may be thousands, only where there are more than last time: none is ever taken away.
func (s *Store) beat(ctx context.Context) ([]string, error) {
	s.swept.Lock()
	defer s.swept.Unlock()
	due, count, err := s.look(ctx, s.last)
	if err == nil && count < len(s.last.caches) {
		s.tell(Change{Kind: StoreLost})
	}
	if err != nil || count == len(s.last.caches) && time.Since(s.last.read) < anew {
		return due, err
	}
	caches, err := s.Caches(ctx)
	if err != nil {
		return due, err
	}
	s.last = rounds{caches, s.bases(caches), time.Now()}
	due, _, err = s.look(ctx, s.last)
	return due, err
}

// look has a beat of some caches, and counts all that there are. In a Redis Cluster it goes from one to the next and stops where a
// node is away: time in which not all can be served must not pass for time in which leases could be renewed.
func (s *Store) look(ctx context.Context, r rounds) (due []string, count int, err error) {
	most := s.most(250)
	step := len(r.bases)
	if most == 1 {
		step = 1
	}
	for first := 0; first == 0 || first < len(r.bases); first += max(step, 1) {
		some := r.bases[first:min(first+step, len(r.bases))]
		places, all, err := s.lookAt(ctx, some, most)
		if err != nil {
			return nil, 0, fmt.Errorf("looking for caches to sweep: %w", outage(err))
		}
		for _, place := range places {
			due = append(due, r.caches[first+place])
		}
		count = all
	}
	return due, count, nil
}

// lookAt returns the places of the caches that are due, in one round trip, and how many caches there are in all.
func (s *Store) lookAt(ctx context.Context, bases []string, most int) (due []int, count int, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	cmds, err := s.together(ctx, false, func(pipe redis.Pipeliner, evaluate evaluation) {
		pipe.SCard(ctx, s.global("caches"))
		pipe.MGet(ctx, s.global("server"))
		pipe.Time(ctx)
		for some := range slices.Chunk(bases, most) {
			evaluate(s.scripts["beat"], ctx, pipe, some, s.options.Gap.Milliseconds(), s.options.Keep.Milliseconds(), keepEnded)
		}
	})
	if err != nil {
		return nil, 0, err
	}
	owner, _ := cmds[1].(*redis.SliceCmd).Result()
	if err := s.ours(text(owner[0])); err != nil {
		return nil, 0, err
	}
	if clock, ok := cmds[2].(*redis.TimeCmd); ok {
		s.ahead.Store(int64(time.Until(clock.Val())))
	}
	for i, cmd := range cmds[3:] {
		places, _ := cmd.(*redis.Cmd).Int64Slice()
		for _, place := range places {
			due = append(due, i*most+int(place)-1)
		}
	}
	return due, int(cmds[0].(*redis.IntCmd).Val()), nil
}

// Lock makes writer the only one on a shard for ttl, or renews that. The token grows with every new writer.
// Errors: ErrLocked, ErrUnavailable.
func (s *Store) Lock(ctx context.Context, pool, shard, writer string, ttl time.Duration) (token int64, err error) {
	reply, err := s.run(ctx, "lock", pool, shard, writer, ttl.Milliseconds())
	if err != nil {
		return 0, err
	}
	token, _ = reply[1].(int64)
	return token, nil
}

// Unlock lets a shard go.
func (s *Store) Unlock(ctx context.Context, pool, shard, writer string) error {
	_, err := s.run(ctx, "lock", pool, shard, writer, 0)
	return err
}

// Pause is an admin's order to leave a pool alone.
type Pause struct {
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
}

// SetPause pauses or, with nil, resumes a pool.
func (s *Store) SetPause(ctx context.Context, pool string, p *Pause) error {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	key := s.base(pool) + ":pause"
	if p == nil {
		return outage(s.rdb.Del(ctx, key).Err())
	}
	return outage(s.rdb.HSet(ctx, key, "by", p.By, "reason", clip(p.Reason, 200), "since", p.Since.UnixMilli()).Err())
}

// Paused returns the pause of a pool, or nil.
func (s *Store) Paused(ctx context.Context, pool string) (*Pause, error) {
	all, err := s.Survey(ctx, pool)
	if err != nil {
		return nil, err
	}
	return all[0].Pause, nil
}

// Survey is what is to be known of a pool before its guests are read: most pools of a large fleet may have none.
type Survey struct {
	Pool  string
	Taken int    // slots
	Pause *Pause // nil: it is not paused
}

// Survey looks at some pools in few round trips.
func (s *Store) Survey(ctx context.Context, pools ...string) ([]Survey, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	out := make([]Survey, 0, len(pools))
	for some := range slices.Chunk(pools, readBatch) {
		taken, pauses := make([]*redis.IntCmd, len(some)), make([]*redis.MapStringStringCmd, len(some))
		_, err := s.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for i, pool := range some {
				taken[i] = pipe.HLen(ctx, s.base(pool)+":slots")
				pauses[i] = pipe.HGetAll(ctx, s.base(pool)+":pause")
			}
			return nil
		})
		if err != nil {
			return nil, outage(err)
		}
		for i, pool := range some {
			of := Survey{Pool: pool, Taken: int(taken[i].Val())}
			if f := pauses[i].Val(); len(f) > 0 {
				of.Pause = &Pause{By: f["by"], Reason: f["reason"], Since: ms(f["since"])}
			}
			out = append(out, of)
		}
	}
	return out, nil
}
