package watchdog

import (
	"context"
	"time"

	"greenroom/specs"
)

// Standing is how one probe of one guest stands.
type Standing struct {
	Probe    specs.Probe // its settings in force
	Last     Result      // of this machine; the zero value: it has not been asked yet
	Failures int         // in a row that count
	Next     time.Time   // when it is asked again; zero: under way, or not asked in the state that the guest is in
}

// Standings says how the probes of a guest stand; there are none where it is not watched. It waits for Run to answer, or for ctx.
func (w *Watchdog) Standings(ctx context.Context, guest string) ([]Standing, error) {
	answer := make(chan []Standing, 1)
	select {
	case w.questions <- func(p *patrol) { answer <- p.standings(guest) }:
		return <-answer, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *patrol) standings(guest string) (out []Standing) {
	for _, pl := range p.pools {
		g := pl.guests[guest]
		if g == nil {
			continue
		}
		for _, c := range g.checks {
			s := Standing{Probe: *c.spec, Last: c.last, Failures: c.history.Failures}
			if c.place > 0 {
				s.Next = c.due
			}
			out = append(out, s)
		}
	}
	return out
}
