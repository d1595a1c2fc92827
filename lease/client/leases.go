package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"greenroom/lease"
)

// pollTime is how long one long poll waits at the server.
const pollTime = 30 * time.Second

// undoTime is what giving back an unwanted lease may take.
const undoTime = 5 * time.Second

// Request asks for a guest once: the lease comes back active or queued. The same key gives the same lease again.
func (c *Client) Request(ctx context.Context, r Request) (Lease, error) {
	r.Key = cmp.Or(r.Key, rand.Text())
	return fetch[Lease](ctx, c, call{method: http.MethodPost, path: "/v1/leases", key: r.Key, body: r})
}

// Acquire asks for a guest and waits in line until the lease is active. queued, when it is not nil, is told of each new place
// in line. A server that is away is tried again for no longer than the request wants to wait. When ctx ends first, the request
// is cancelled, or the error is ErrUncancelled too. An error that is lease.ErrOver says that the request ended while it waited.
func (c *Client) Acquire(ctx context.Context, r Request, queued func(Lease)) (Lease, error) {
	r.Key = cmp.Or(r.Key, rand.Text())
	hurried := c.within(r.Wait)
	l, err := hurried.Request(ctx, r)
	for place := 0; err == nil && l.Phase == lease.Queued; {
		if l.Position != place && queued != nil {
			place = l.Position
			queued(l)
		}
		if l, err = hurried.Wait(ctx, l.ID, pollTime); errors.Is(err, lease.ErrUnknownLease) { // the store was lost, with its queues
			l, err = hurried.Request(ctx, r)
		}
	}
	if ctx.Err() != nil {
		if err := c.undo(context.WithoutCancel(ctx), r); err != nil {
			return Lease{}, fmt.Errorf("%w; %w", context.Cause(ctx), err)
		}
		return Lease{}, context.Cause(ctx)
	}
	if err == nil && l.Phase == lease.Ended && l.How == lease.TimedOut {
		err = &WaitedError{Cache: l.Cache}
	} else if err == nil && l.Phase == lease.Ended {
		err = fmt.Errorf("%w: the request in cache %s was %s", lease.ErrOver, l.Cache, endings[l.How])
	}
	return l, err
}

// WaitedError says that no guest was to be had within the time that a request wanted to wait. It is lease.ErrOver, and does not say
// so: there never was a lease.
type WaitedError struct{ Cache string }

func (e *WaitedError) Error() string {
	return fmt.Sprintf("no guest of cache %s was to be had within the time that the request wanted to wait", e.Cache)
}

// Is tells that it is lease.ErrOver.
func (e *WaitedError) Is(target error) bool { return target == lease.ErrOver }

// within is the client with no more patience than a request has: who wants a guest now or not at all is not kept waiting by a
// server that is away.
func (c *Client) within(wait *Duration) *Client {
	hurried := *c
	if wait != nil {
		hurried.options.Retry = min(hurried.options.Retry, time.Duration(*wait))
	}
	return &hurried
}

var endings = map[string]string{
	lease.Released: "released", lease.Expired: "granted and has expired", lease.Cancelled: "cancelled",
	lease.Abandoned: "dropped, because nobody asked for it", lease.Removed: "dropped, because the specs have the cache no more",
}

// ErrUncancelled says that the server was away when a request was to be cancelled: it ends there because nobody asks for it.
var ErrUncancelled = errors.New("the request could not be cancelled; it lapses by itself")

// undo gives back whatever came of a request; its key finds it even when the answer was lost.
func (c *Client) undo(ctx context.Context, r Request) error {
	ctx, cancel := context.WithTimeout(ctx, undoTime)
	defer cancel()
	l, err := c.Request(ctx, r)
	if err == nil {
		_, err = c.Release(ctx, l.ID, Release{})
	}
	if err != nil && temporary(err) {
		return ErrUncancelled
	}
	return nil // cancelled, or refused in the first place
}

func leasePath(id string) string { return "/v1/leases/" + url.PathEscape(id) }

// Lease returns one lease as it stands. Asking for a queued one keeps its place in line.
func (c *Client) Lease(ctx context.Context, id string) (Lease, error) { return c.Wait(ctx, id, 0) }

// Wait returns a lease when it is queued no more, or as it stands after a time of at most 60s.
func (c *Client) Wait(ctx context.Context, id string, at time.Duration) (Lease, error) {
	return fetch[Lease](ctx, c, get(leasePath(id), url.Values{"wait": {at.String()}}))
}

// Leases lists the caller's leases and requests, of one cache or, with "", of all; an admin sees everybody's.
func (c *Client) Leases(ctx context.Context, cache string) ([]Lease, error) {
	query := url.Values{}
	if cache != "" {
		query.Set("cache", cache)
	}
	out, err := fetch[struct{ Leases []Lease }](ctx, c, get("/v1/leases", query))
	return out.Leases, err
}

// Renew is the heartbeat of an active lease. Errors: lease.ErrOver, lease.ErrQueued, lease.ErrUnknownLease, lease.ErrNotYours.
func (c *Client) Renew(ctx context.Context, id string, r Renewal) (Lease, error) {
	return fetch[Lease](ctx, c, post(leasePath(id)+"/renew", r))
}

// Release ends a lease or cancels a request; doing it twice is doing it once.
func (c *Client) Release(ctx context.Context, id string, r Release) (Lease, error) {
	return fetch[Lease](ctx, c, call{method: http.MethodDelete, path: leasePath(id), body: r})
}

// GiveBack releases a lease that is held. One that the store has lost since it was renewed last is restored by its token first: its
// guest would stay aside until nobody can hold it any more.
func (c *Client) GiveBack(ctx context.Context, l Lease, r Release) (Lease, error) {
	ended, err := c.Release(ctx, l.ID, r)
	if l.Token == "" || !errors.Is(err, lease.ErrUnknownLease) {
		return ended, err
	}
	if _, err := c.Renew(ctx, l.ID, Renewal{Token: l.Token}); err != nil {
		return Lease{}, err
	}
	return c.Release(ctx, l.ID, r)
}
