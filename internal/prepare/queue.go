package prepare

import (
	"context"
	"sync"
)

// queue holds names of guests to look at, each at most once. A name that comes while it is being looked at is looked at once more.
type queue struct {
	mu    sync.Mutex
	some  *sync.Cond
	line  []string
	known map[string]*place
}

type place struct{ busy, again bool }

func newQueue() *queue {
	q := &queue{known: map[string]*place{}}
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
	q.known[name] = &place{}
	q.line = append(q.line, name)
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
	for len(q.line) == 0 && ctx.Err() == nil {
		q.some.Wait()
	}
	if ctx.Err() != nil {
		return "", false
	}
	name := q.line[0]
	q.line = q.line[1:]
	q.known[name].busy = true
	return name, true
}

func (q *queue) done(name string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.known[name].again {
		delete(q.known, name)
		return
	}
	q.known[name] = &place{}
	q.line = append(q.line, name)
	q.some.Signal()
}
