package prepare

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// model is what a queue has to look like from outside: every pool's line, and whose turn it is.
type model struct {
	share       int
	line        map[string][]string // by pool
	busy, again []string
	turns       []string // pools that may be taken from, the longest without a turn first
}

func poolOf(name string) string { return name[:1] }

func (m *model) arrange(pool string) {
	busy := 0
	for _, b := range m.busy {
		if poolOf(b) == pool {
			busy++
		}
	}
	if len(m.line[pool]) > 0 && busy < m.share && !slices.Contains(m.turns, pool) {
		m.turns = append(m.turns, pool)
	}
}

func (m *model) put(n string) {
	p := poolOf(n)
	switch {
	case slices.Contains(m.busy, n) && !slices.Contains(m.again, n):
		m.again = append(m.again, n)
	case !slices.Contains(m.busy, n) && !slices.Contains(m.line[p], n):
		m.line[p] = append(m.line[p], n)
	}
	m.arrange(p)
}

func (m *model) take() string {
	p := m.turns[0]
	n := m.line[p][0]
	m.turns, m.line[p], m.busy = m.turns[1:], m.line[p][1:], append(m.busy, n)
	m.arrange(p)
	return n
}

func (m *model) done(n string) {
	m.busy = slices.DeleteFunc(m.busy, func(b string) bool { return b == n })
	if i := slices.Index(m.again, n); i >= 0 {
		m.again = slices.Delete(m.again, i, i+1)
		m.put(n)
	}
	m.arrange(poolOf(n))
}

// TestQueueServesEachNameOnceAndAfterItsLastNotice compares the queue with lists of names that have to be looked at.
func TestQueueServesEachNameOnceAndAfterItsLastNotice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{share: rapid.IntRange(1, 3).Draw(t, "share"), line: map[string][]string{}}
		q := newQueue(m.share)
		name := rapid.SampledFrom([]string{"p-1", "p-2", "p-3", "p-4", "q-1", "q-2", "r-1"})
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				n := name.Draw(t, "name")
				q.put(n)
				m.put(n)
			},
			"take": func(t *rapid.T) {
				if len(m.turns) == 0 {
					return
				}
				want := m.take()
				if n, ok := q.take(context.Background()); !ok || n != want {
					t.Fatalf("took %q, %v instead of %q", n, ok, want)
				}
			},
			"done": func(t *rapid.T) {
				if len(m.busy) == 0 {
					return
				}
				n := rapid.SampledFrom(m.busy).Draw(t, "busy")
				q.done(n)
				m.done(n)
			},
			"": func(t *rapid.T) { m.compare(t, q) },
		})
	})
}

// compare tells whether the queue keeps all that the model does, and nothing of pools that are through.
func (m *model) compare(t *rapid.T, q *queue) {
	pools, waiting := map[string]bool{}, 0
	for p, line := range m.line {
		pools[p] = len(line) > 0
		waiting += len(line)
	}
	for _, b := range m.busy {
		pools[poolOf(b)] = true
	}
	if len(q.known) != waiting+len(m.busy) {
		t.Fatalf("%d names are known, %v wait and %v are busy", len(q.known), m.line, m.busy)
	}
	for p, has := range pools {
		if (q.lines[p] != nil) != has {
			t.Fatalf("pool %s has a line: %v; %v wait and %v are busy", p, !has, m.line, m.busy)
		}
	}
	if len(q.turns) != len(m.turns) {
		t.Fatalf("%d pools have a turn instead of %v", len(q.turns), m.turns)
	}
}

func TestPoolsAreServedInTurn(t *testing.T) {
	q := newQueue(3)
	for _, n := range []string{"a-1", "a-2", "a-3", "b-1", "b-2", "c-d-1"} {
		q.put(n)
	}
	var got []string
	for range 6 {
		n, _ := q.take(t.Context())
		got = append(got, n)
	}
	want := []string{"a-1", "b-1", "c-d-1", "a-2", "b-2", "a-3"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAPoolAloneIsServedByItsShareOfTheWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(2)
		ctx, cancel := context.WithCancel(t.Context())
		taken, finish := make(chan string, 5), make(chan struct{})
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for name, ok := q.take(ctx); ok; name, ok = q.take(ctx) {
					taken <- name
					<-finish
					q.done(name)
				}
			})
		}
		for i := range 5 {
			q.put(fmt.Sprintf("p-%d", i+1))
		}
		defer func() { cancel(); close(finish); all.Wait() }()
		for _, want := range []int{2, 3, 4, 5, 5} {
			synctest.Wait()
			if len(taken) != want {
				t.Fatalf("%d guests were taken instead of %d", len(taken), want)
			}
			finish <- struct{}{}
		}
		synctest.Wait()
		if len(q.known) != 0 {
			t.Errorf("%d guests are not done", len(q.known))
		}
	})
}

func TestQueueLetsEverybodyGoAtTheEnd(t *testing.T) {
	q := newQueue(2)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			if n, ok := q.take(ctx); ok {
				t.Errorf("took %q", n)
			}
		})
	}
	cancel()
	all.Wait()
}
