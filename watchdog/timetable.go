package watchdog

import (
	"container/heap"
	"time"
)

// timetable says which check is due next: one heap instead of a timer for each guest.
type timetable []*check

func (t timetable) Len() int           { return len(t) }
func (t timetable) Less(i, j int) bool { return t[i].due.Before(t[j].due) }
func (t timetable) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].place, t[j].place = i+1, j+1
}

// Push and Pop are heap.Interface's.
func (t *timetable) Push(x any) {
	c := x.(*check)
	*t = append(*t, c)
	c.place = len(*t)
}

func (t *timetable) Pop() any {
	last := len(*t) - 1
	c := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	c.place = 0
	return c
}

// set makes c due at a time. A check whose probe is under way is left alone: its result sets its next time.
func (t *timetable) set(c *check, at time.Time) {
	if c.flying {
		return
	}
	c.due = at
	if c.place == 0 {
		heap.Push(t, c)
		return
	}
	heap.Fix(t, c.place-1)
}

func (t *timetable) remove(c *check) {
	if c.place > 0 {
		heap.Remove(t, c.place-1)
	}
}

// take removes and returns the next check that is due, or nil.
func (t *timetable) take(now time.Time) *check {
	if len(*t) == 0 || (*t)[0].due.After(now) {
		return nil
	}
	return heap.Pop(t).(*check)
}

// next is when the next check is due; zero when there is none.
func (t timetable) next() time.Time {
	if len(t) == 0 {
		return time.Time{}
	}
	return t[0].due
}

// queue holds the checks that wait for a worker, a line for each pool, served in turn: a pool whose guests all time out must
// not keep the others waiting.
type queue struct {
	lines map[*pool][]*check
	turns []*pool // those with a line
}

func (q *queue) push(c *check) {
	p := c.guest.pool
	if len(q.lines[p]) == 0 {
		q.turns = append(q.turns, p)
	}
	q.lines[p] = append(q.lines[p], c)
}

func (q *queue) empty() bool { return len(q.turns) == 0 }

func (q *queue) peek() *check { return q.lines[q.turns[0]][0] }

func (q *queue) pop() {
	p := q.turns[0]
	q.turns = q.turns[1:]
	q.lines[p] = q.lines[p][1:]
	if len(q.lines[p]) == 0 {
		delete(q.lines, p)
		return
	}
	q.turns = append(q.turns, p)
}
