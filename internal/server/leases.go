package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	cryptossh "golang.org/x/crypto/ssh"

	"greenroom/internal/ssh"
	"greenroom/lease"
	"greenroom/lease/client"
)

// maxListed is the most leases or requests of one cache that a list shows.
const maxListed = 1000

// slack is how far a certificate goes beyond its lease at either end, for clocks that differ.
const slack = time.Minute

// acquired is the status of the answer to an acquire; that of a lease which is over is 200.
var acquired = map[lease.Phase]int{lease.Active: http.StatusCreated, lease.Queued: http.StatusAccepted}

func (a *api) acquire(ctx context.Context, who lease.Caller, r request[client.Request]) (answer, error) {
	if _, err := parseKey(r.Body.PublicKey); err != nil {
		return answer{}, err
	}
	for name, n := range r.Body.AtLeast {
		if !(n >= 0) || math.IsInf(n, 0) {
			return answer{}, fmt.Errorf("%w: at_least.%.40s is %v, want a number from 0 on", lease.ErrInvalid, name, n)
		}
	}
	if a.Store.Fleet().Revision == "" {
		return answer{}, fmt.Errorf("%w: no spec is in force yet", errNotReady)
	}
	if r.Body.Cache == "" { // each pool is asked for its spares
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	l, err := a.Store.Acquire(ctx, who, wish(r.Body, r.http.Header.Get("Idempotency-Key")))
	if errors.Is(err, lease.ErrNoneReady) && a.Reconciler != nil && r.Body.Cache != "" {
		err = fmt.Errorf("%w: %s", err, a.why(ctx, r.Body.Cache))
	}
	if err != nil {
		return answer{}, err
	}
	view, err := a.lease(ctx, who, l, "")
	return answer{status: acquired[l.Phase], location: "/v1/leases/" + l.ID, body: view}, err
}

func wish(b client.Request, key string) lease.Request {
	wait := lease.Forever
	if b.Wait != nil {
		wait = time.Duration(*b.Wait)
	}
	return lease.Request{
		Cache: b.Cache, Labels: b.Labels, AtLeast: b.AtLeast, TTL: time.Duration(b.TTL), Wait: wait, Key: key, PublicKey: b.PublicKey,
	}
}

func (a *api) getLease(ctx context.Context, who lease.Caller, r request[none]) (answer, error) {
	wait, err := r.wait()
	if err != nil {
		return answer{}, err
	}
	poll, cancel := a.untilClosing(ctx)
	defer cancel()
	poll, end := context.WithTimeout(poll, wait)
	defer end()
	l, err := a.Store.Wait(poll, who, r.lease())
	if err != nil {
		return answer{}, err
	}
	view, err := a.lease(ctx, who, l, "")
	return answer{body: view}, err
}

func (a *api) renew(ctx context.Context, who lease.Caller, r request[client.Renewal]) (answer, error) {
	if _, err := parseKey(r.Body.PublicKey); err != nil {
		return answer{}, err
	}
	id := r.lease()
	l, err := a.Store.Renew(ctx, who, id)
	if errors.Is(err, lease.ErrUnknownLease) && r.Body.Token != "" && a.Signer != nil {
		l, err = a.Store.Restore(ctx, who, a.Signer, id, r.Body.Token)
	}
	if err != nil {
		return answer{}, err
	}
	view, err := a.lease(ctx, who, l, r.Body.PublicKey)
	return answer{body: view}, err
}

func (a *api) release(ctx context.Context, who lease.Caller, r request[client.Release]) (answer, error) {
	how := lease.Release{Outcome: r.Body.Outcome, Hold: time.Duration(r.Body.Hold), Discard: r.Body.Shelve != nil && !*r.Body.Shelve}
	l, err := a.Store.Release(ctx, who, r.lease(), how)
	out := outline(l)
	if err == nil && r.Body.Hold > 0 && !l.Replayed {
		out.Reason = a.unheld(ctx, l, how.Hold)
	}
	return answer{body: out}, err
}

// unheld says why the guest is not held for as long as was asked for when its lease ended, or not at all: an order to replace it
// goes first.
func (a *api) unheld(ctx context.Context, l lease.Lease, asked time.Duration) string {
	if l.Guest == "" {
		return "there is no guest to hold: the lease was not granted yet"
	}
	g, err := a.Store.Guest(ctx, l.Guest)
	if err != nil {
		return "" // the lease has ended: that its guest can't be looked at fails nothing
	}
	if c := a.Store.Fleet().Cache(l.Cache); g.Incarnation == l.Incarnation && g.State == lease.Held {
		if c == nil || asked <= c.Hold.For {
			return ""
		}
		return fmt.Sprintf("guest %s is held until %s: cache %s holds a guest for at most %v", g.Name, g.Until.Format(time.RFC3339), c.Name, c.Hold.For)
	}
	return fmt.Sprintf("the hold was not kept: guest %s was ordered to be replaced and is %s", g.Name, g.State)
}

func (a *api) listLeases(ctx context.Context, who lease.Caller, r request[none]) (answer, error) {
	caches, err := a.Store.Caches(ctx) // those included that the specs have no more: leases there go on
	if name := r.query("cache"); name != "" {
		_, err = a.cache(name)
		caches = []string{name}
	}
	if err != nil {
		return answer{}, err
	}
	out := []client.Lease{}
	for _, name := range caches {
		active, err := a.Store.Leases(ctx, name, maxListed)
		if err != nil {
			return answer{}, err
		}
		queued, err := a.Store.Queue(ctx, name, maxListed)
		if err != nil {
			return answer{}, err
		}
		out = append(append(out, outlines(who, active)...), outlines(who, queued)...)
	}
	return answer{body: map[string]any{"leases": out}}, nil
}

func (a *api) listQueue(ctx context.Context, who lease.Caller, r request[none]) (answer, error) {
	c, err := a.cache(r.path("cache"))
	if err != nil {
		return answer{}, err
	}
	queued, err := a.Store.Queue(ctx, c.Name, maxListed)
	out := outlines(who, queued)
	if len(out) > 0 {
		why := a.why(ctx, c.Name)
		for i := range out {
			out[i].Reason = why
		}
	}
	return answer{body: map[string]any{"leases": out}}, err
}

// outlines leaves out what belongs to others.
func outlines(who lease.Caller, leases []lease.Lease) []client.Lease {
	out := []client.Lease{}
	for _, l := range leases {
		if who.May(l.Owner) {
			out = append(out, outline(l))
		}
	}
	return out
}

// outline is a lease without what only its holder needs.
func outline(l lease.Lease) client.Lease {
	out := client.Lease{
		ID: l.ID, Cache: l.Cache, Holder: l.Holder, Owner: l.Owner, Phase: l.Phase, Position: l.Position, TTL: client.Duration(l.TTL),
		Created: l.Created, Granted: l.Granted, Deadline: l.Deadline, Cap: l.Cap, WaitUntil: l.WaitUntil, Ended: l.EndedAt,
		How: l.How, Outcome: l.Outcome, Source: l.Source, Hit: l.Hit,
	}
	if l.Guest != "" {
		out.Guest = &client.Guest{Name: l.Guest, Incarnation: l.Incarnation}
	}
	return out
}

// lease is the whole of a lease for somebody who may see it: an active one with its guest, token and certificate, a queued
// one with why it waits. key, when there is one, is certified instead of the request's.
func (a *api) lease(ctx context.Context, who lease.Caller, l lease.Lease, key string) (out client.Lease, err error) {
	out = outline(l)
	if l.Phase == lease.Queued {
		out.Reason = a.reason(ctx, l)
	}
	g := l.Leased
	if g == nil {
		return out, nil // no more than the outline: it is not granted yet, or over
	}
	if !l.Deadline.Before(l.Cap) {
		out.Left = client.Duration(max(l.Deadline.Sub(a.Store.Now()), time.Millisecond))
	}
	out.Guest = &client.Guest{
		Name: g.Name, Incarnation: g.Incarnation, Host: g.Host, Port: g.Port, User: g.User, HostKey: g.HostKey, Health: g.Health,
	}
	if l.Owner == who.Owner && a.Signer != nil {
		out.Token = a.Signer.Sign(l)
	}
	out.Certificate, err = a.certificate(l, *g, cmp.Or(key, l.PublicKey))
	return out, err
}

func (a *api) reason(ctx context.Context, l lease.Lease) string {
	return fmt.Sprintf("you are %s: %s", client.Ordinal(l.Position), a.why(ctx, l.Cache))
}

// why says what the requests in a cache's queue wait for.
func (a *api) why(ctx context.Context, cache string) string {
	if a.Reconciler == nil {
		return "no guest is ready"
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return a.Reconciler.Explain(ctx, cache)
}

// certificate lets the holder of key into the guest until the lease is over.
func (a *api) certificate(l lease.Lease, g lease.Guest, key string) (string, error) {
	if key == "" || a.Authority.Key == nil {
		return "", nil
	}
	pub, err := parseKey(key)
	if err != nil {
		return "", err
	}
	cert, err := a.Authority.Sign(pub, l.ID, g.Principal(), a.Now().Add(-slack), l.Deadline.Add(slack))
	if err != nil {
		return "", fmt.Errorf("certify the key of lease %s: %w", l.ID, err)
	}
	return ssh.Line(cert), nil
}

// parseKey reads a plain public key; none is nil.
func parseKey(line string) (ssh.PublicKey, error) {
	if line == "" {
		return nil, nil
	}
	key, _, options, rest, err := cryptossh.ParseAuthorizedKey([]byte(line))
	if err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("%w: public_key is no single line of authorized_keys format, such as \"ssh-ed25519 AAAA…\"", lease.ErrInvalid)
	}
	if len(options) > 0 {
		return nil, fmt.Errorf("%w: public_key has options, which a certificate would not keep; send the key without them", lease.ErrInvalid)
	}
	if _, certificate := key.(*ssh.Certificate); certificate {
		return nil, fmt.Errorf("%w: public_key is a certificate; send the plain key", lease.ErrInvalid)
	}
	return key, nil
}
