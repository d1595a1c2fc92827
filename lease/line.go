package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"
)

const maxCalls = 100 // that one script carries out at most, so that none holds up Redis for long

// call is one call on its way to Redis and back.
type call struct {
	name    string
	args    []any
	turning *turning // of which it is the call; nil: no mirror may decide it
	reply   []any    // nil where a mirror has
	err     error
	stayed  bool // behind in line; see board
	done    sync.WaitGroup
}

// queues are the calls that wait to be sent, by cache: only the keys of one cache are in one place of a Redis Cluster. While
// a script is under way the calls on its cache gather, and go together next: the busier a cache is, the less a call costs.
type queues struct {
	mu      sync.Mutex
	lines   map[string]*line   // of caches with a script under way, and of no other: names come from callers
	mirrors map[string]*mirror // by cache
}

// line is what waits in one cache.
type line struct{ waiting []*call }

// mirror returns the mirror of a cache; nil: there is none.
func (q *queues) mirror(cache string) *mirror {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.mirrors[cache]
}

// reflect gives a cache the mirror for the next batch, or none.
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
	maps.DeleteFunc(q.mirrors, func(cache string, m *mirror) bool { return q.lines[cache] == nil && m.used.Before(since) })
}

// join puts a call in line. It returns the calls that the caller has to carry out; none: others will.
func (q *queues) join(cache string, c *call) []*call {
	q.mu.Lock()
	defer q.mu.Unlock()
	if l := q.lines[cache]; l != nil {
		l.waiting = append(l.waiting, c)
		return nil
	}
	q.lines[cache] = &line{}
	return []*call{c}
}

// next returns the calls that go when a script has come back. None: it was the last.
func (q *queues) next(cache string) []*call {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lines[cache]
	if len(l.waiting) > 0 {
		return l.board(q.mirrors[cache] != nil)
	}
	delete(q.lines, cache)
	return nil
}

// board takes the calls that go together next. A guest that goes from one lease to the next costs the store half of one that is on the shelf in
// between. So where there is a mirror, and leases end and begin, the newest of those without a match stay behind, once.
func (l *line) board(mirrored bool) []*call {
	n := min(len(l.waiting), maxCalls)
	batch, rest := l.waiting[:n:n], l.waiting[n:]
	ends, begins := kinds(batch)
	odd := max(ends, begins) - min(ends, begins)
	if !mirrored || ends == 0 || begins == 0 || odd == 0 {
		l.waiting = rest
		return batch
	}
	together, behind := make([]*call, 0, n), make([]*call, 0, odd+len(rest))
	for _, c := range slices.Backward(batch) {
		if odd > 0 && c.turning != nil && c.turning.ends == (ends > begins) && !c.stayed {
			c.stayed = true
			behind = append(behind, c)
			odd--
		} else {
			together = append(together, c)
		}
	}
	slices.Reverse(together)
	slices.Reverse(behind)
	l.waiting = append(behind, rest...)
	return together
}

// kinds counts the leases that are to end, and to begin.
func kinds(batch []*call) (ends, begins int) {
	for _, c := range batch {
		switch {
		case c.turning == nil:
		case c.turning.ends:
			ends++
		default:
			begins++
		}
	}
	return ends, begins
}

// send has one call carried out. Once it is in line it is waited for, whatever becomes of ctx, because what was done must be
// known; the scripts' timeouts bound that.
func (s *Store) send(ctx context.Context, cache string, c *call) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.done.Add(1)
	if batch := s.queues.join(cache, c); batch != nil {
		s.carryOut(ctx, cache, batch)
		if others := s.queues.next(cache); others != nil { // this caller has what it came for
			go s.fly(ctx, cache, others)
		}
	}
	c.done.Wait()
	return c.err
}

// fly carries out what has gathered, until there is nothing.
func (s *Store) fly(ctx context.Context, cache string, batch []*call) {
	for ; batch != nil; batch = s.queues.next(cache) {
		s.carryOut(ctx, cache, batch)
		runtime.Gosched() // who is about to join comes along
	}
}

// carryOut carries a batch out and tells those who wait for its calls: as one script, and one more where the mirror did not know a lease, and
// one where it was void. Then it decides nothing any more.
func (s *Store) carryOut(ctx context.Context, cache string, batch []*call) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.options.Timeout) // the others of the batch go on without this caller
	defer cancel()
	for undone := s.try(ctx, cache, batch, true); undone != nil; {
		undone = s.try(ctx, cache, undone, false)
	}
}

// try carries calls out as one script: first the turns that the mirror decides, then the others, and last what makes the next mirror. It
// returns the calls that are not done: the mirror was void, or has learned of their leases now, where it may learn.
func (s *Store) try(ctx context.Context, cache string, batch []*call, learn bool) (undone []*call) {
	m := s.queues.mirror(cache)
	turns, rest := m.decide(batch, s.Now())
	var look, ask *call
	if learn {
		look, undone, rest = m.look(rest)
	}
	if ends, begins := kinds(batch); len(rest) > 0 && ends+begins >= s.turns {
		ask = m.ask(len(batch))
	}
	calls := make([]*call, 0, len(rest)+3)
	if turns != nil {
		calls = append(calls, &turns.call)
	}
	if look != nil {
		calls = append(calls, look)
	}
	for _, c := range rest {
		if c.args == nil && c.turning != nil {
			c.args = c.turning.plain()
		}
		calls = append(calls, c)
	}
	if ask != nil {
		calls = append(calls, ask)
	}
	s.script(ctx, cache, calls)
	done, void := m.settle(turns)
	m.learn(look, cache)
	s.queues.reflect(cache, m.next(ask, rest))
	if changes := turns.changes(); len(changes) > 0 {
		s.tell(changes...)
	}
	for _, c := range append(done, rest...) {
		c.done.Done()
	}
	return append(undone, void...)
}

// script has the store carry out calls, and notes with each what came of it.
func (s *Store) script(ctx context.Context, cache string, calls []*call) {
	script, args := s.scripts["turns"], calls[0].args
	if len(calls) > 1 || calls[0].name != "turns" {
		script, args = s.scripts["calls"], []any{len(calls)}
		for _, c := range calls {
			args = append(append(args, c.name, len(c.args)), c.args...)
		}
	}
	results, err := script.Run(ctx, s.rdb, []string{s.base(cache)}, args...).Slice()
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
