package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"syscall"
	"time"

	"greenroom/lease"
)

// Heartbeat says how a lease is kept alive.
type Heartbeat struct {
	PublicKey string      // certified at each renewal instead of the request's
	Renewed   func(Lease) // told of each renewal, with its fresh certificate; may be nil
	Failed    func(error) // told of each renewal that failed; the next is tried soon; may be nil
	Capped    func(Lease) // told once when the lease can't be renewed beyond its end, which comes within a ttl; may be nil
}

// KeepAlive renews an active lease each third of its ttl until ctx ends, which closes the channel. When the lease is lost, its
// error is sent first: lease.ErrOver where its time is up, also where no renewal was answered in time. A server that says that its store
// is away, and the socket of one that is not there, end no lease: nobody else is given a guest meanwhile, and who comes back has a while
// for that. All else may be a line that is cut, behind which the guest is lent to somebody else.
func (c *Client) KeepAlive(ctx context.Context, l Lease, h Heartbeat) <-chan error {
	lost := make(chan error, 1)
	if h.Renewed == nil {
		h.Renewed = func(Lease) {}
	}
	if h.Failed == nil {
		h.Failed = func(error) {}
	}
	if h.Capped == nil {
		h.Capped = func(Lease) {}
	}
	b := &beating{Client: c, Heartbeat: h, lease: l, every: max(time.Duration(l.TTL)/3, 10*time.Millisecond)}
	go func() {
		defer close(lost)
		if err := b.until(ctx); err != nil {
			lost <- err
		}
	}()
	return lost
}

// beating is a lease while it is kept alive.
type beating struct {
	*Client
	Heartbeat
	lease   Lease
	every   time.Duration
	expires time.Time // by this end's clock
	capped  bool      // it can't be renewed beyond expires
}

func (b *beating) until(ctx context.Context) error {
	b.note(b.lease)
	for pause := b.every; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(pause, max(time.Until(b.expires), 0))):
		}
		if b.capped && !time.Now().Before(b.expires) {
			return fmt.Errorf("the lease is lost: it has lasted as long as a lease of cache %s may: %w", b.lease.Cache, lease.ErrOver)
		}
		next, err := b.once(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the holder has ended it; what came of the last try is nobody's business
		case err == nil:
			pause = b.every
			b.note(next)
			b.Renewed(next)
		case !temporary(err):
			return fmt.Errorf("the lease is lost: %w", err)
		default:
			b.Failed(err)
			if pause = min(b.every/4+time.Millisecond, 5*time.Second); b.vouched(err) && !b.capped {
				b.expires = latest(b.expires, time.Now().Add(b.every))
			}
			if !time.Now().Before(b.expires) {
				return fmt.Errorf("the lease is lost: it could not be renewed before its end: %w; %w", lease.ErrOver, err)
			}
		}
	}
}

// note takes in how long the lease lasts.
func (b *beating) note(l Lease) {
	b.lease, b.expires = l, time.Now().Add(time.Duration(l.TTL))
	if l.Left == 0 {
		return
	}
	b.expires = time.Now().Add(time.Duration(l.Left))
	if !b.capped {
		b.capped = true
		b.Capped(l)
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// vouched tells that somebody has said that no server can lend guests just now: the server itself, or this host, of the server's own
// socket. What refuses a connection over a network may be a proxy or a tunnel, behind which the server is well.
func (b *beating) vouched(err error) bool {
	if answered, ok := errors.AsType[*Error](err); ok {
		return answered.Status == http.StatusServiceUnavailable && (answered.Code == "unavailable" || answered.Code == "not_ready")
	}
	return b.socket && (errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist))
}

// once makes one try: the loop above decides on the next.
func (b *beating) once(ctx context.Context) (Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, max(b.every, time.Second))
	defer cancel()
	k := post(leasePath(b.lease.ID)+"/renew", Renewal{Token: b.lease.Token, PublicKey: b.PublicKey})
	k.once = true
	return fetch[Lease](ctx, b.Client, k)
}
