package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"greenroom/lease"
	"greenroom/lease/client"
)

// crowdSpec wants a whole fleet of guests from nothing, as soon as its cache is enabled.
func crowdSpec(guests, port int) string {
	return fmt.Sprintf(`
pool "crowd" {
  module    = "./null"
  max       = %[1]d
  variables = { port = %[2]d }
  probe "tcp" { every = "1h" }
}

cache "bench" {
  owner   = "platform"
  pools   = [pool.crowd]
  warm    = %[1]d
  size    = %[1]d
  enabled = false
}
`, guests, port)
}

// shardful is how many guests the default of shard_size puts into one state.
const shardful = 25

// converging is benchmark 4.
func converging(ctx context.Context, l *lab) ([]result, error) {
	port, stop, err := respond()
	if err != nil {
		return nil, err
	}
	defer stop()
	var ours, made, theirs []float64
	var replacing []result
	for n := range l.sizes.crowds {
		e, err := l.fleetOf(ctx, crowdSpec(l.sizes.crowd, port), 1)
		if err != nil {
			return nil, err
		}
		defer e.close()
		exist, shelved, err := e.server.gather(ctx, l.sizes.crowd)
		if err != nil {
			return nil, err
		}
		l.sayf("  round %d: greenroom has %d guests after %v, shelved after %v; %s", n+1, l.sizes.crowd, exist, shelved, e.used())
		if n == l.sizes.crowds-1 {
			if replacing, err = l.replacing(ctx, e.server, port); err != nil {
				return nil, err
			}
		}
		e.server.stop()
		took, err := l.bareCrowd(ctx, port)
		if err != nil {
			return nil, err
		}
		l.sayf("  round %d: bare terraform has %d guests after %v", n+1, l.sizes.crowd, took)
		ours, made, theirs = append(ours, shelved.Seconds()), append(made, exist.Seconds()), append(theirs, took.Seconds())
	}
	against := "terraform apply of one state"
	return append([]result{
		{
			Name: fmt.Sprintf("speed of making %d guests, until they are shelved", l.sizes.crowd), Unit: "guests/s",
			Measured: rate(l.sizes.crowd, ours), Baseline: rate(l.sizes.crowd, theirs), Against: against,
			Ratio: median(ratios(theirs, ours)), Goal: atLeast(3),
		},
		{
			Name: "the same, until they exist", Unit: "guests/s",
			Measured: rate(l.sizes.crowd, made), Baseline: rate(l.sizes.crowd, theirs), Against: against, Ratio: median(ratios(theirs, made)),
		},
	}, replacing...), nil
}

func rate(guests int, seconds []float64) float64 {
	return float64(guests) / percentile(seconds, 50)
}

// used tells the processor time of a server and its Redis.
func (e *estate) used() string {
	server, _ := e.server.cpu()
	redis, _ := e.redis.cpu()
	return fmt.Sprintf("processor time: server %v, redis %v", server, redis)
}

// gather enables the cache and waits until it is full.
func (s *server) gather(ctx context.Context, guests int) (exist, shelved time.Duration, err error) {
	began := time.Now()
	if _, err := s.api.SetEnabled(ctx, "bench", true, client.Toggle{}); err != nil {
		return 0, 0, err
	}
	err = until(ctx, 10*time.Minute, func() error {
		if err := pause(ctx, 20*time.Millisecond); err != nil { // being asked costs the server something
			return err
		}
		c, err := s.api.Cache(ctx, "bench")
		if err != nil {
			return err
		}
		if exist == 0 && c.Guests[lease.Booting]+c.Guests[lease.Preparing]+c.Guests[lease.Shelved] == guests {
			exist = time.Since(began)
		}
		if c.Guests[lease.Shelved] < guests {
			return fmt.Errorf("the guests are %v", c.Guests)
		}
		return nil
	})
	return exist, time.Since(began), err
}

// bareNull is a root of the module of no machines.
func (l *lab) bareNull(ctx context.Context, port int) (*root, error) {
	dir, err := l.writeSpecs("")
	if err != nil {
		return nil, err
	}
	return l.bareRoot(ctx, dir+"/null", "crowd", map[string]any{"port": port})
}

func (l *lab) bareCrowd(ctx context.Context, port int) (time.Duration, error) {
	r, err := l.bareNull(ctx, port)
	if err != nil {
		return 0, err
	}
	if err := r.want(l.sizes.crowd); err != nil {
		return 0, err
	}
	return r.apply(ctx)
}

// replacing replaces one guest of the crowd, in turn with one of a small state by hand.
func (l *lab) replacing(ctx context.Context, s *server, port int) ([]result, error) {
	bare, err := l.bareNull(ctx, port)
	if err != nil {
		return nil, err
	}
	if err := bare.want(shardful); err != nil {
		return nil, err
	}
	if _, err := bare.apply(ctx); err != nil {
		return nil, err
	}
	if err := pause(ctx, 2*time.Second); err != nil { // after so many changes events tell no incarnations for a while
		return nil, err
	}
	var ours, whole, theirs []float64
	for n := range l.sizes.replaced {
		if err := s.calm(ctx); err != nil {
			return nil, err
		}
		took, err := bare.apply(ctx, fmt.Sprintf(`-replace=module.guests.terraform_data.guest["crowd-%d"]`, 1+n%shardful))
		if err != nil {
			return nil, err
		}
		exists, shelved, err := s.replace(ctx, fmt.Sprintf("crowd-%d", 1+n*7%l.sizes.crowd))
		if err != nil {
			return nil, err
		}
		ours, whole, theirs = append(ours, millis(exists)), append(whole, millis(shelved)), append(theirs, millis(took))
	}
	baseline := percentile(theirs, 50)
	against := fmt.Sprintf("terraform apply -replace, one of %d", shardful)
	return []result{
		{
			Name: fmt.Sprintf("replacing one guest of %d, from the taint until it exists", l.sizes.crowd), Unit: "ms",
			Measured: percentile(ours, 50), Baseline: baseline, Against: against,
			Ratio: median(ratios(ours, theirs)), Goal: atMost(1.3),
		},
		{
			Name: "the same, until it is shelved", Unit: "ms",
			Measured: percentile(whole, 50), Baseline: baseline, Against: against,
			Ratio: median(ratios(whole, theirs)),
		},
	}, nil
}

// replace has one guest replaced, and tells after which time the next one exists and is shelved. It follows the events, as
// who waits for that would: asking again and again takes the processor from what is measured.
func (s *server) replace(ctx context.Context, guest string) (exists, shelved time.Duration, err error) {
	old, err := s.api.Guest(ctx, guest)
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	open, ended := make(chan struct{}), make(chan error, 1)
	var existed, done time.Time
	go func() {
		ended <- s.api.Follow(ctx, client.EventFilter{Guest: guest}, client.Follower{
			Open: sync.OnceFunc(func() { close(open) }),
			Event: func(e client.Event) error {
				if e.Incarnation <= old.Incarnation {
					return nil
				}
				if existed.IsZero() {
					existed = time.Now()
				}
				if e.To != lease.Shelved {
					return nil
				}
				done = time.Now()
				return errShelved
			},
		})
	}()
	select {
	case err := <-ended:
		return 0, 0, err
	case <-open:
	}
	began := time.Now()
	if _, err := s.api.Taint(ctx, guest, "bench"); err != nil {
		return 0, 0, err
	}
	if err := <-ended; !errors.Is(err, errShelved) {
		return 0, 0, fmt.Errorf("guest %s is not replaced: %w", guest, err)
	}
	return existed.Sub(began), done.Sub(began), nil
}

var errShelved = errors.New("the guest is shelved")
