package prepare

import (
	"context"
	"sync"

	"greenroom/lease"
)

// queue holds names of guests to look at, each at most once. A name that comes while it is being looked at is looked at once more.
//
// There is a line for each pool, served in turn, and at most share guests of one pool are looked at at once: a pool whose
// guests can't be reached, or whose scripts hang, must not keep the others waiting.
type queue struct {
	share int

	mu    sync.Mutex
	some  *sync.Cond
	known map[string]*place
	lines map[string]*line // by pool; those with guests that wait or are looked at
	turns []*line          // those that may be taken from: a guest waits, and the share is not used up
}

type place struct {
	line        *line
	busy, again bool
}

// line is what a pool has in the queue.
type line struct {
	pool  string
	names []string // that wait
	busy  int      // that are looked at
	turn  bool     // it is among the turns
}

func newQueue(share int) *queue {
	q := &queue{share: share, known: map[string]*place{}, lines: map[string]*line{}}
	q.some = sync.NewCond(&q.mu)
	return q
}

func (q *queue) put(name string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if at := q.known[name]; at != nil {
		at.again = at.busy
		return
	}
	q.join(name)
}

// join puts a name at the end of its pool's line.
func (q *queue) join(name string) {
	pool, _, _ := lease.ParseGuestName(name) // what is no guest's name has a line too: the store will say so
	l := q.lines[pool]
	if l == nil {
		l = &line{pool: pool}
		q.lines[pool] = l
	}
	l.names = append(l.names, name)
	q.known[name] = &place{line: l}
	q.arrange(l)
}

// arrange gives a line the last turn if it may have one and has none. Each turn wakes a worker.
func (q *queue) arrange(l *line) {
	if l.turn || len(l.names) == 0 || l.busy >= q.share {
		return
	}
	l.turn = true
	q.turns = append(q.turns, l)
	q.some.Signal()
}

// take waits for a name; it is the caller's until done.
func (q *queue) take(ctx context.Context) (string, bool) {
	defer context.AfterFunc(ctx, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.some.Broadcast()
	})()
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.turns) == 0 && ctx.Err() == nil {
		q.some.Wait()
	}
	if ctx.Err() != nil {
		return "", false
	}
	l := q.turns[0]
	q.turns = q.turns[1:]
	name := l.names[0]
	l.names = l.names[1:]
	l.turn = false
	l.busy++
	q.known[name].busy = true
	q.arrange(l)
	return name, true
}

func (q *queue) done(name string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	at := q.known[name]
	delete(q.known, name)
	at.line.busy--
	if at.again {
		q.join(name)
	}
	q.arrange(at.line)
	if len(at.line.names) == 0 && at.line.busy == 0 {
		delete(q.lines, at.line.pool)
	}
}
