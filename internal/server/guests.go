package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"greenroom/lease"
	"greenroom/lease/client"
)

// visible leaves out what only admins and the owner of a guest's cache may see.
func (a *api) visible(who lease.Caller, guests []lease.Guest) []lease.Guest {
	out := make([]lease.Guest, len(guests))
	for i, g := range guests {
		out[i] = g
		if c := a.Store.Fleet().Cache(g.Cache); who.Role == lease.Admin || c != nil && c.Owner != "" && c.Owner == who.Owner {
			continue
		}
		out[i].ID, out[i].Host, out[i].Port, out[i].User, out[i].HostKey = "", "", 0, "", ""
		out[i].Attributes, out[i].Lease, out[i].Evidence, out[i].Health = nil, "", "", "" // the last two tell the address
	}
	return out
}

func (a *api) listGuests(ctx context.Context, who lease.Caller, r request[none]) (answer, error) {
	pools, err := a.Store.Pools(ctx)
	if err != nil {
		return answer{}, err
	}
	if pool := r.query("pool"); pool != "" {
		if err := a.known(pool); err != nil {
			return answer{}, err
		}
		pools = []string{pool}
	}
	out := []lease.Guest{}
	for _, pool := range pools {
		guests, err := a.Store.Guests(ctx, pool)
		if err != nil {
			return answer{}, err
		}
		out = append(out, a.visible(who, guests)...)
	}
	return answer{body: map[string]any{"guests": out}}, nil
}

func (a *api) getGuest(ctx context.Context, who lease.Caller, r request[none]) (answer, error) {
	g, err := a.Store.Guest(ctx, r.path("guest"))
	return answer{body: a.visible(who, []lease.Guest{g})[0]}, err
}

// listEvents also answers for a guest that is gone, as long as its history is kept.
func (a *api) listEvents(ctx context.Context, who lease.Caller, r request[none]) (answer, error) {
	n, err := strconv.Atoi(cmp.Or(r.query("n"), "50"))
	if err != nil || n < 1 || n > 200 {
		return answer{}, malformed("n is %.20q, want 1 to 200", r.query("n"))
	}
	events, err := a.Store.Events(ctx, r.path("guest"), n)
	if err == nil && len(events) == 0 {
		_, err = a.Store.Guest(ctx, r.path("guest"))
	}
	if err == nil && who.Role != lease.Admin {
		err = a.veil(ctx, who, events)
	}
	return answer{body: map[string]any{"events": events}}, err
}

// veil leaves out of a history what only admins may see, and of its leases what is only for their owners: as the feed does.
func (a *api) veil(ctx context.Context, who lease.Caller, events []lease.Event) error {
	leases := map[string]lease.Lease{}
	for i := range events {
		e := &events[i]
		e.Detail = ""
		l, known := leases[e.Lease]
		if e.Lease != "" && !known {
			var err error
			l, err = a.Store.Get(ctx, lease.Caller{Name: "history", Role: lease.System}, e.Lease)
			if err != nil && !errors.Is(err, lease.ErrUnknownLease) {
				return err
			}
			leases[e.Lease] = l // the zero value, nobody's: it is not kept any more
		}
		if mayKnow(who, l.Owner) {
			continue
		}
		e.Lease = ""
		if byHolder(*e) && (l.Holder == "" || e.Actor == l.Holder) {
			e.Actor = ""
		}
	}
	return nil
}

func (a *api) taint(ctx context.Context, who lease.Caller, r request[client.Reason]) (answer, error) {
	if err := brief(r.Body.Reason); err != nil {
		return answer{}, err
	}
	g, err := a.Store.Guest(ctx, r.path("guest"))
	if err != nil {
		return answer{}, err
	}
	evidence := cmp.Or(r.Body.Reason, "no reason given") + ", says " + who.Name
	return a.order(ctx, who, g, lease.Taint{Reason: "manual", Evidence: evidence, Condemn: true})
}

func (a *api) probe(ctx context.Context, _ lease.Caller, r request[none]) (answer, error) {
	if a.Prober == nil {
		return answer{}, fmt.Errorf("%w: the watchdog does not run", errNotReady)
	}
	g, err := a.Store.Guest(ctx, r.path("guest"))
	if err != nil {
		return answer{}, err
	}
	if g.Host == "" {
		return answer{}, fmt.Errorf("%w: guest %s is %s and has no machine to probe", lease.ErrConflict, g.Name, g.State)
	}
	result, err := a.Prober.Probe(ctx, g)
	if err != nil && result == "" {
		result = err.Error()
	}
	return answer{body: client.Probed{Guest: g.Name, Alive: err == nil, Result: result}}, nil
}

// patience is how long the watchdog may take to answer a question; it answers at once while it runs.
const patience = time.Second

// listProbes leaves out what was seen for those who may not see the address, which it tells.
func (a *api) listProbes(ctx context.Context, who lease.Caller, r request[none]) (answer, error) {
	g, err := a.Store.Guest(ctx, r.path("guest"))
	if err != nil {
		return answer{}, err
	}
	if a.Prober == nil {
		return answer{}, fmt.Errorf("%w: the watchdog does not run", errNotReady)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	standings, err := a.Prober.Standings(ctx, g.Name)
	if err != nil {
		return answer{}, fmt.Errorf("%w: the watchdog does not answer", errNotReady)
	}
	told := a.visible(who, []lease.Guest{g})[0].Host != ""
	probes := make([]client.Probe, len(standings))
	for i, s := range standings {
		probes[i] = client.Probe{
			Kind: s.Probe.Kind, Every: client.Duration(s.Probe.Every), Asked: s.Last.At, Outcome: string(s.Last.Outcome),
			Seconds: s.Last.Took.Seconds(), Failures: s.Failures, Allowed: s.Probe.Failures, Next: s.Next,
		}
		if told {
			probes[i].Detail = s.Last.Detail
		}
	}
	return answer{body: map[string]any{"probes": probes}}, nil
}

// hold keeps the guest for no longer than its cache allows.
func (a *api) hold(ctx context.Context, who lease.Caller, r request[client.Hold]) (answer, error) {
	if r.Body.For <= 0 {
		return answer{}, fmt.Errorf("%w: for is missing; say how long, such as \"4h\"", lease.ErrInvalid)
	}
	g, err := a.Store.Guest(ctx, r.path("guest"))
	if err != nil {
		return answer{}, err
	}
	length := time.Duration(r.Body.For)
	if c := a.Store.Fleet().Cache(g.Cache); c != nil {
		length = min(length, c.Hold.For)
	}
	held, err := a.Store.Hold(ctx, who, g, a.Now().Add(length))
	return answer{body: held}, err
}
