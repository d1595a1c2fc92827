package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// maxCalls is how many calls one script carries out at most, so that none holds up Redis for long.
const maxCalls = 100

// call is one call on its way to Redis and back.
type call struct {
	name  string
	args  []any
	reply []any
	err   error
	done  chan struct{}
}

// queues are the calls that wait to be sent, by cache: only the keys of one cache are in one place of a Redis Cluster. While a
// script is under way the calls on its cache gather, and go together next: the busier a cache is, the less a call costs.
type queues struct {
	mu      sync.Mutex
	waiting map[string][]*call // a cache with a script under way is there, and no other: names come from callers
}

// join puts a call in line. Where true is returned, no script is under way: the caller has to board and fly.
func (q *queues) join(cache string, c *call) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	line, flying := q.waiting[cache]
	q.waiting[cache] = append(line, c)
	return !flying
}

// board returns the calls that go next, at most so many as may go together. None: nothing is under way any more.
func (q *queues) board(cache string) []*call {
	q.mu.Lock()
	defer q.mu.Unlock()
	line := q.waiting[cache]
	if len(line) == 0 {
		delete(q.waiting, cache)
		return nil
	}
	n := min(len(line), maxCalls)
	q.waiting[cache] = line[n:]
	return line[:n:n]
}

// send has one call carried out. Once it is in line it is waited for, whatever becomes of ctx, because what was done must be
// known; the scripts' timeouts bound that.
func (s *Store) send(ctx context.Context, name, cache string, args []any) ([]any, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := &call{name: name, args: args, done: make(chan struct{})}
	if s.queues.join(cache, c) {
		s.carryOut(ctx, cache, s.queues.board(cache))
		if others := s.queues.board(cache); others != nil { // this caller has what it came for
			go s.fly(ctx, cache, others)
		}
	}
	<-c.done
	return c.reply, c.err
}

// fly carries out what has gathered, until there is nothing.
func (s *Store) fly(ctx context.Context, cache string, batch []*call) {
	for ; batch != nil; batch = s.queues.board(cache) {
		s.carryOut(ctx, cache, batch)
	}
}

// carryOut carries a batch out as one script and hands the results to those who wait for them.
func (s *Store) carryOut(ctx context.Context, cache string, batch []*call) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.options.Timeout) // the others of the batch go on without this caller
	defer cancel()
	args := make([]any, 0, 1+16*len(batch))
	args = append(args, len(batch))
	for _, c := range batch {
		args = append(append(args, c.name, len(c.args)), c.args...)
	}
	results, err := s.scripts["calls"].Run(ctx, s.rdb, []string{s.base(cache)}, args...).Slice()
	if err == nil && len(results) != len(batch)+1 {
		err = fmt.Errorf("the store answered %d calls with %d results", len(batch), len(results))
	}
	for i, c := range batch {
		if c.err = err; err == nil {
			c.reply, c.err = result(results[i])
		}
		close(c.done)
	}
	if err != nil {
		return
	}
	if lapsed, _ := results[len(batch)].([]any); len(lapsed) > 0 {
		go s.announceAll(context.WithoutCancel(ctx), cache, lapsed) // that takes calls, which wait for this one to be over
	}
}

func result(v any) ([]any, error) {
	reply, _ := v.([]any)
	switch {
	case len(reply) == 0:
		return nil, fmt.Errorf("the store answered %v, which is no result", v)
	case text(reply[0]) == "error":
		return nil, errors.New(text(reply[1]))
	}
	return reply, nil
}
