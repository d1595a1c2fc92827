package prepare

import (
	"context"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// TestQueueServesEachNameOnceAndAfterItsLastNotice compares the queue with a set of names that have to be looked at.
func TestQueueServesEachNameOnceAndAfterItsLastNotice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := newQueue()
		var line, busy, again []string
		name := rapid.SampledFrom([]string{"p-1", "p-2", "p-3", "q-1"})
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				n := name.Draw(t, "name")
				q.put(n)
				switch {
				case slices.Contains(busy, n) && !slices.Contains(again, n):
					again = append(again, n)
				case !slices.Contains(busy, n) && !slices.Contains(line, n):
					line = append(line, n)
				}
			},
			"take": func(t *rapid.T) {
				if len(line) == 0 {
					return
				}
				n, ok := q.take(context.Background())
				if !ok || n != line[0] {
					t.Fatalf("took %q, %v of %v", n, ok, line)
				}
				line, busy = line[1:], append(busy, n)
			},
			"done": func(t *rapid.T) {
				if len(busy) == 0 {
					return
				}
				n := rapid.SampledFrom(busy).Draw(t, "busy")
				q.done(n)
				busy = slices.DeleteFunc(busy, func(b string) bool { return b == n })
				if i := slices.Index(again, n); i >= 0 {
					again, line = slices.Delete(again, i, i+1), append(line, n)
				}
			},
			"": func(t *rapid.T) {
				if len(q.known) != len(line)+len(busy) {
					t.Fatalf("%d names are known, %v wait and %v are busy", len(q.known), line, busy)
				}
			},
		})
	})
}

func TestQueueLetsEverybodyGoAtTheEnd(t *testing.T) {
	q := newQueue()
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
