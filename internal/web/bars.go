package web

import (
	"fmt"
	"strings"

	"greenroom/lease"
	"greenroom/lease/client"
)

// whole is the width of a bar in its own units; edge what a line keeps from its ends.
const (
	whole = 1000
	edge  = 4
)

// bar is guests by state side by side. What it shows stands beside it in words, too.
type bar struct {
	Parts []part
	Marks []mark
	Of    int // what the whole width stands for
}

// part is the guests in one state.
type part struct {
	State    lease.State
	Guests   int
	X, Width int
}

// mark is a line across a bar.
type mark struct {
	Name string
	X    int
}

// stacked is a bar of the guests in some states, on a scale of at least so many.
func stacked(guests map[lease.State]int, states []lease.State, least int) bar {
	b, so := bar{Of: max(sum(guests, states...), least, 1)}, 0
	for _, state := range states {
		if n := guests[state]; n > 0 {
			b.Parts = append(b.Parts, part{state, n, b.at(so), b.at(so+n) - b.at(so)})
			so += n
		}
	}
	return b
}

func (b bar) at(n int) int { return n * whole / b.Of }

// mark is at, but so far within the bar that a line can be seen.
func (b bar) mark(n int) int { return min(max(b.at(n), edge), whole-edge) }

func sum(guests map[lease.State]int, states ...lease.State) (n int) {
	for _, state := range states {
		n += guests[state]
	}
	return n
}

// coming are the states of guests that will be on the shelf; aside of those that are neither there nor somebody's.
var (
	coming = []lease.State{lease.Planned, lease.Provisioning, lease.Booting, lease.Preparing, lease.Resetting, lease.Replacing}
	aside  = []lease.State{lease.Held, lease.Quarantined, lease.Tainted, lease.Retiring, lease.Failed}
)

// shelf is a cache as it is drawn: what is shelved and what is coming, against the marks of its settings.
type shelf struct {
	client.Cache
	Bar    bar
	Ready  int // shelved
	Taken  int // leased
	Coming int
	Aside  []part
	All    int   // guests
	Asked  int64 // leases that were granted so far
	Ratio  int64 // of them that were granted at once, in percent
}

func shelved(c client.Cache) shelf {
	s := shelf{
		Cache: c, Ready: c.Guests[lease.Shelved], Taken: c.Guests[lease.Leased], Coming: sum(c.Guests, coming...),
		All: sum(c.Guests, lease.States...), Asked: c.Hits + c.Misses,
	}
	s.Aside = stacked(c.Guests, aside, 0).Parts
	s.Bar = stacked(c.Guests, append([]lease.State{lease.Shelved}, coming...), max(c.Size, c.Warm))
	s.Bar.Marks = []mark{{"warm", s.Bar.mark(c.Warm)}, {"size", s.Bar.mark(c.Size)}}
	if s.Asked > 0 {
		s.Ratio = 100 * c.Hits / s.Asked
	}
	return s
}

// Says is the cache in a sentence.
func (s shelf) Says() string {
	parts := []string{fmt.Sprintf("%d of at most %d shelved", s.Ready, s.Size), fmt.Sprintf("%d leased", s.Taken)}
	if s.Coming > 0 {
		parts = append(parts, fmt.Sprintf("%d on the way", s.Coming))
	}
	for _, p := range s.Aside {
		parts = append(parts, fmt.Sprintf("%d %s", p.Guests, p.State))
	}
	return strings.Join(parts, ", ") + "; " + waiting(s.Queue) + "."
}

func waiting(n int) string {
	switch n {
	case 0:
		return "nobody waits"
	case 1:
		return "1 request waits"
	}
	return fmt.Sprintf("%d requests wait", n)
}
