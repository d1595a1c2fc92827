package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

// connections is how many clients lease at the same time.
const connections = 64

// median of what was measured in the rounds.
func median[T ~int64 | ~float64](values []T) T {
	slices.Sort(values)
	return values[len(values)/2]
}

// contestant is one of several servers that are driven in turn, so that noise hits all of them alike.
type contestant struct {
	name string
	target
	process *process
	redis   *redisServer
	rounds  []round
}

// alternate drives each contestant in each round, in turns: what disturbs a machine lasts for longer than a turn and hits all alike, and what
// a server does every other second is in each of its rounds.
func (l *lab) alternate(ctx context.Context, all ...*contestant) error {
	for _, c := range all {
		c.process.freeze()
		defer c.process.thaw()
	}
	for n := range l.sizes.rounds {
		rounds := make([]round, len(all))
		for range l.sizes.turns {
			for i, c := range all {
				r, err := c.turn(ctx, l.sizes.turn)
				if err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
				rounds[i] = rounds[i].with(r)
			}
		}
		for i, c := range all {
			r := rounds[i]
			c.rounds = append(c.rounds, r)
			l.sayf("  round %d: %-16s %7.0f pairs/s, p99 of a call %v; %s", n+1, c.name, r.perSecond(), r.p99().Round(time.Microsecond), r.used.per(r.pairs))
		}
	}
	return nil
}

// turn drives a contestant for a time. The others stand still meanwhile: what a server does in the background
// is its own burden and nobody else's. Before its clock starts, it is driven for a moment, to be awake.
func (c *contestant) turn(ctx context.Context, d time.Duration) (round, error) {
	c.process.thaw()
	defer c.process.freeze()
	err := until(ctx, patience, func() error { // a call that it was at when it froze may have timed out meanwhile
		_, err := c.drive(ctx, connections, d/10)
		return err
	})
	if err != nil {
		return round{}, err
	}
	before := c.used()
	r, err := c.drive(ctx, connections, d)
	r.used = c.used().since(before)
	return r, err
}

// used is the processor time that the parts of a contest have taken.
type used struct{ server, redis, clients time.Duration }

func (c *contestant) used() (u used) {
	u.server, _ = c.process.cpu()
	u.redis, _ = c.redis.cpu()
	var own syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &own)
	u.clients = time.Duration(own.Utime.Nano() + own.Stime.Nano())
	return u
}

func (u used) since(b used) used {
	return used{u.server - b.server, u.redis - b.redis, u.clients - b.clients}
}

func (u used) plus(b used) used {
	return used{u.server + b.server, u.redis + b.redis, u.clients + b.clients}
}

func (u used) per(pairs int) string {
	n := time.Duration(max(pairs, 1))
	return fmt.Sprintf("processor time of a pair: server %v, redis %v, clients %v", u.server/n, u.redis/n, u.clients/n)
}

// over is the median of the rounds' ratios of a to b. Two rounds that followed each other saw the same noise.
func over(a, b *contestant, of func(round) float64) float64 {
	var ratios []float64
	for n := range a.rounds {
		ratios = append(ratios, of(a.rounds[n])/of(b.rounds[n]))
	}
	return median(ratios)
}

func (c *contestant) median(of func(round) float64) float64 {
	var values []float64
	for _, r := range c.rounds {
		values = append(values, of(r))
	}
	return median(values)
}

func throughput(r round) float64 { return r.perSecond() }

func slowest(r round) float64 { return float64(r.p99().Microseconds()) / 1000 }

// stocked starts a Redis and a server with so many shelved guests.
func (l *lab) stocked(ctx context.Context, s shelf) (c *contestant, parts *estate, err error) {
	parts = &estate{}
	defer func() {
		if err != nil {
			parts.close()
		}
	}()
	if parts.redis, err = l.redis(ctx); err != nil {
		return nil, parts, err
	}
	parts.closers = append(parts.closers, parts.redis.close)
	dir, err := l.fill(ctx, parts.redis, s)
	if err != nil {
		return nil, parts, err
	}
	if parts.server, err = l.serve(ctx, dir, parts.redis.addr); err != nil {
		return nil, parts, err
	}
	parts.closers = append(parts.closers, parts.server.stop)
	if err := parts.server.stands(ctx, s.guests); err != nil {
		return nil, parts, err
	}
	return &contestant{name: fmt.Sprintf("%d guests", s.guests), target: parts.server.target, process: parts.server.process, redis: parts.redis}, parts, nil
}

// estate is what a benchmark has started and must end.
type estate struct {
	redis   *redisServer
	server  *server
	closers []func()
}

func (e *estate) close() {
	for _, end := range slices.Backward(e.closers) {
		end()
	}
}

// stands waits until the server has the specs in force and counts the guests on the shelf.
func (s *server) stands(ctx context.Context, guests int) error {
	return until(ctx, 2*time.Minute, func() error {
		c, err := s.api.Cache(ctx, "bench")
		if err == nil && c.Guests["shelved"] != guests {
			err = fmt.Errorf("the guests are %v, want %d shelved", c.Guests, guests)
		}
		return err
	})
}

// rests waits until the server has read what it reads at its start: who freezes it in the middle has it begin again.
func (s *server) rests(ctx context.Context) error {
	const moment = 500 * time.Millisecond
	return until(ctx, patience, func() error {
		before, err := s.cpu()
		if err != nil {
			return err
		}
		if err := pause(ctx, moment); err != nil {
			return err
		}
		now, err := s.cpu()
		if err == nil && now-before > moment/10 {
			err = fmt.Errorf("the server was busy for %v of %v", now-before, moment)
		}
		return err
	})
}

// bare starts the baseline of the lease calls.
func (l *lab) bare(ctx context.Context, r *redisServer) (*contestant, *process, error) {
	dir, err := l.place()
	if err != nil {
		return nil, nil, err
	}
	p, err := start(dir, "bare", exec.Command(l.self, "-serve-bare", r.addr))
	if err != nil {
		return nil, nil, err
	}
	addr, err := p.says(ctx, "bare addr=")
	if err != nil {
		p.stop()
		return nil, nil, err
	}
	return &contestant{name: "bare net/http", target: target{addr: addr, token: "none"}, process: p, redis: r}, p, nil
}

// leasePairs is benchmark 1.
func leasePairs(ctx context.Context, l *lab) ([]result, error) {
	port, stop, err := respond()
	if err != nil {
		return nil, err
	}
	defer stop()
	greenroom, parts, err := l.stocked(ctx, shelf{guests: 100, port: port, every: 10 * time.Second})
	if err != nil {
		return nil, err
	}
	defer parts.close()
	if err := parts.server.rests(ctx); err != nil {
		return nil, err
	}
	greenroom.name = "greenroom"
	bare, p, err := l.bare(ctx, parts.redis)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	if err := l.alternate(ctx, greenroom, bare); err != nil {
		return nil, err
	}
	return []result{
		{
			Name: fmt.Sprintf("lease pairs, %d connections", connections), Unit: "pairs/s",
			Measured: greenroom.median(throughput), Baseline: bare.median(throughput), Against: "bare net/http with one trivial EVALSHA a call",
			Ratio: over(greenroom, bare, throughput), Goal: atLeast(1.0),
		},
		{
			Name: "p99 of a lease call", Unit: "ms",
			Measured: greenroom.median(slowest), Baseline: bare.median(slowest), Against: "the same",
			Ratio: over(greenroom, bare, slowest), Goal: atMost(2.0),
		},
	}, nil
}

// shelfSizes is benchmark 2.
func shelfSizes(ctx context.Context, l *lab) ([]result, error) {
	var all []*contestant
	for _, guests := range l.sizes.shelves {
		l.sayf("  putting %d guests on the shelf", guests)
		c, parts, err := l.stocked(ctx, shelf{guests: guests, port: 1, every: 24 * time.Hour})
		if err != nil {
			return nil, err
		}
		defer parts.close()
		if err := parts.server.rests(ctx); err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	if err := l.alternate(ctx, all...); err != nil {
		return nil, err
	}
	var out []result
	for i, c := range all[1:] {
		r := result{
			Name: fmt.Sprintf("lease pairs with %d guests", l.sizes.shelves[i+1]), Unit: "pairs/s",
			Measured: c.median(throughput), Baseline: all[0].median(throughput), Against: fmt.Sprintf("the same with %d guests", l.sizes.shelves[0]),
			Ratio: over(c, all[0], throughput),
		}
		if i+2 == len(all) {
			r.Goal = atLeast(0.9)
		}
		out = append(out, r)
	}
	return out, nil
}
