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

// flights is how many scripts are under way on one cache at most: while Redis is at one, the next is on its way to it.
const flights = 2

// queues are the calls that wait to be sent, by cache: only the keys of one cache are in one place of a Redis Cluster. While
// scripts are under way the calls on their cache gather, and go together next: the busier a cache is, the less a call costs.
type queues struct {
	mu    sync.Mutex
	lines map[string]*line // a cache with a script under way is there, and no other: names come from callers
}

type line struct {
	calls  []*call
	flying int
}

// join puts a call in line. Where true is returned, another script may be under way: the caller has to board and fly.
func (q *queues) join(cache string, c *call) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lines[cache]
	if l == nil {
		l = &line{}
		q.lines[cache] = l
	}
	l.calls = append(l.calls, c)
	if l.flying == flights {
		return false
	}
	l.flying++
	return true
}

// board returns the calls that go next, at most so many as may go together. None: that was the last flight for now.
func (q *queues) board(cache string) []*call {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lines[cache]
	if len(l.calls) == 0 {
		if l.flying--; l.flying == 0 {
			delete(q.lines, cache)
		}
		return nil
	}
	n := min(len(l.calls), maxCalls)
	batch := l.calls[:n:n]
	l.calls = l.calls[n:]
	return batch
}

// send has one call carried out. Once it is in line it is waited for, whatever becomes of ctx, because what was done must be
// known; the scripts' timeouts bound that.
func (s *Store) send(ctx context.Context, name, cache string, args []any) ([]any, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := &call{name: name, args: args, done: make(chan struct{})}
	if s.queues.join(cache, c) {
		if batch := s.queues.board(cache); batch != nil { // this call, if no other flight took it along
			s.carryOut(ctx, cache, batch)
			go s.fly(ctx, cache) // this caller has what it came for
		}
	}
	<-c.done
	return c.reply, c.err
}

// fly carries out what has gathered, until there is nothing.
func (s *Store) fly(ctx context.Context, cache string) {
	for batch := s.queues.board(cache); batch != nil; batch = s.queues.board(cache) {
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
	if err == nil && len(results) != len(batch) {
		err = fmt.Errorf("the store answered %d calls with %d results", len(batch), len(results))
	}
	for i, c := range batch {
		if c.err = err; err == nil {
			c.reply, c.err = result(results[i])
		}
		close(c.done)
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
