package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"sync"
	"time"
)

// maxCalls is how many calls one script carries out at most, so that none holds up Redis for long.
const maxCalls = 100

// call is one call on its way to Redis and back.
type call struct {
	name    string
	args    []any
	turning *turning // of which it is the call; nil: no mirror may decide it
	reply   []any    // nil where a mirror has
	err     error
	done    chan struct{}
}

// queues are the calls that wait to be sent, by cache: only the keys of one cache are in one place of a Redis Cluster. While a
// script is under way the calls on its cache gather, and go together next: the busier a cache is, the less a call costs.
type queues struct {
	mu      sync.Mutex
	waiting map[string][]*call // a cache with a script under way is there, and no other: names come from callers
	mirrors map[string]*mirror // by cache
}

// mirror returns the mirror of a cache; nil: there is none.
func (q *queues) mirror(cache string) *mirror {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.mirrors[cache]
}

// reflect keeps the mirror of a cache, or with nil drops it.
func (q *queues) reflect(cache string, m *mirror) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if m == nil {
		delete(q.mirrors, cache)
	} else {
		q.mirrors[cache] = m
	}
}

// forget drops the mirrors that were not used since.
func (q *queues) forget(since time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	maps.DeleteFunc(q.mirrors, func(cache string, m *mirror) bool {
		_, flying := q.waiting[cache]
		return !flying && m.used.Before(since)
	})
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
func (s *Store) send(ctx context.Context, cache string, c *call) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.done = make(chan struct{})
	if s.queues.join(cache, c) {
		s.carryOut(ctx, cache, s.queues.board(cache))
		if others := s.queues.board(cache); others != nil { // this caller has what it came for
			go s.fly(ctx, cache, others)
		}
	}
	<-c.done
	return c.err
}

// fly carries out what has gathered, until there is nothing.
func (s *Store) fly(ctx context.Context, cache string, batch []*call) {
	for ; batch != nil; batch = s.queues.board(cache) {
		s.carryOut(ctx, cache, batch)
		runtime.Gosched() // who is about to join comes along
	}
}

// carryOut carries a batch out and tells those who wait for its calls: as one script, or as two where the mirror was void.
func (s *Store) carryOut(ctx context.Context, cache string, batch []*call) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.options.Timeout) // the others of the batch go on without this caller
	defer cancel()
	m, undone := s.try(ctx, cache, s.queues.mirror(cache), batch)
	if undone != nil {
		m, _ = s.try(ctx, cache, nil, undone)
	}
	s.queues.reflect(cache, m)
}

// try carries calls out as one script: first the turns that the mirror decides, then the others, and last what makes the next mirror, which
// it returns, with the calls that the mirror was wrong about: those are not done.
func (s *Store) try(ctx context.Context, cache string, m *mirror, batch []*call) (next *mirror, undone []*call) {
	turns, decided, rest := m.decide(batch, s.Now())
	calls := make([]*call, 0, len(rest)+2)
	if turns != nil {
		calls = append(calls, turns)
	}
	for _, c := range rest {
		if c.args == nil && c.turning != nil {
			c.args = c.turning.plain()
		}
		calls = append(calls, c)
	}
	ask := m.ask(rest, batch, s.turns)
	if ask != nil {
		calls = append(calls, ask)
	}
	s.script(ctx, cache, calls)
	if turns != nil {
		undone = settle(turns, decided)
	}
	for _, c := range rest {
		m.heed(c, cache)
		close(c.done)
	}
	return m.next(turns, ask, undone, cache), undone
}

// script has the store carry out calls, and notes with each what came of it.
func (s *Store) script(ctx context.Context, cache string, calls []*call) {
	args := make([]any, 0, 1+16*len(calls))
	args = append(args, len(calls))
	for _, c := range calls {
		args = append(append(args, c.name, len(c.args)), c.args...)
	}
	results, err := s.scripts["calls"].Run(ctx, s.rdb, []string{s.base(cache)}, args...).Slice()
	if err == nil && len(results) != len(calls)+1 {
		err = fmt.Errorf("the store answered %d calls with %d results", len(calls), len(results))
	}
	for i, c := range calls {
		if c.err = err; err == nil {
			c.reply, c.err = result(results[i])
		}
	}
	if err != nil {
		return
	}
	if lapsed, _ := results[len(calls)].([]any); len(lapsed) > 0 {
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
