package server

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/specs"
)

// cache finds a cache of the spec in force.
func (a *api) cache(name string) (*specs.Cache, error) {
	fleet := a.Store.Fleet()
	if c := fleet.Cache(name); c != nil {
		return c, nil
	}
	if fleet.Revision == "" {
		return nil, fmt.Errorf("%w: no spec is in force yet", errNotReady)
	}
	return nil, fmt.Errorf("%w: %.80q is not in revision %s", lease.ErrUnknownCache, name, fleet.Revision)
}

func (a *api) listCaches(ctx context.Context, _ lease.Caller, _ request[none]) (answer, error) {
	caches, err := a.caches(ctx)
	return answer{body: map[string]any{"caches": caches}}, err
}

// caches are those of the spec in force, read in one round trip.
func (a *api) caches(ctx context.Context) ([]client.Cache, error) {
	declared := a.Store.Fleet().AllCaches()
	names := make([]string, len(declared))
	for i, c := range declared {
		names[i] = c.Name
	}
	stocks, err := a.Store.Stocks(ctx, names...)
	out := make([]client.Cache, len(stocks))
	for i, st := range stocks {
		out[i] = stocked(declared[i], st)
	}
	return out, err
}

func (a *api) getCache(ctx context.Context, _ lease.Caller, r request[none]) (answer, error) {
	c, err := a.cache(r.path("cache"))
	if err != nil {
		return answer{}, err
	}
	return a.cacheNow(ctx, c)
}

// cacheNow answers what a cache is like.
func (a *api) cacheNow(ctx context.Context, c *specs.Cache) (answer, error) {
	st, err := a.Store.Stock(ctx, c.Name)
	return answer{body: stocked(c, st)}, err
}

func stocked(c *specs.Cache, st lease.Stock) client.Cache {
	out := client.Cache{
		Name: c.Name, Owner: c.Owner, Pools: c.Pools, Warm: c.Warm, Size: c.Size, Max: c.Max, Enabled: effective(c, st),
		Invisible: c.Invisible, TTL: client.Duration(c.Lease.TTL), MaxLease: client.Duration(c.Lease.Max), Override: st.Override,
		Guests: map[lease.State]int{}, Leases: st.Leases, Queue: st.Queue, Oldest: st.Oldest,
		Hits: st.Stats["hits"], Misses: st.Stats["misses"],
	}
	for _, state := range lease.States {
		out.Guests[state] = st.In(state)
	}
	return out
}

// effective says whether a cache grants leases: the override first, then the spec.
func effective(c *specs.Cache, st lease.Stock) bool {
	if st.Override != nil {
		return st.Override.Enabled
	}
	return c.Enabled
}

func (a *api) listCacheGuests(ctx context.Context, who lease.Caller, r request[none]) (answer, error) {
	c, err := a.cache(r.path("cache"))
	if err != nil {
		return answer{}, err
	}
	guests, err := a.Store.CacheGuests(ctx, c.Name)
	return answer{body: map[string]any{"guests": a.visible(who, guests)}}, err
}

func (a *api) toggle(enabled bool) handler[client.Toggle] {
	return func(ctx context.Context, who lease.Caller, r request[client.Toggle]) (answer, error) {
		if err := brief(r.Body.Reason); err != nil {
			return answer{}, err
		}
		until, err := a.until(r.Body)
		if err != nil {
			return answer{}, err
		}
		return a.override(ctx, r.path("cache"), func(cache string) error {
			return a.Store.Toggle(ctx, who, cache, lease.Override{Enabled: enabled, Until: until, By: who.Name, Reason: r.Body.Reason})
		})
	}
}

func (a *api) dropOverride(ctx context.Context, who lease.Caller, r request[none]) (answer, error) {
	return a.override(ctx, r.path("cache"), func(cache string) error { return a.Store.Untoggle(ctx, who, cache) })
}

// override changes the knob of a cache and answers what the cache is like then.
func (a *api) override(ctx context.Context, cache string, change func(cache string) error) (answer, error) {
	c, err := a.cache(cache)
	if err != nil {
		return answer{}, err
	}
	if err := change(c.Name); err != nil {
		return answer{}, err
	}
	return a.cacheNow(ctx, c)
}

// until is the end of an override; the zero time is none.
func (a *api) until(t client.Toggle) (time.Time, error) {
	switch {
	case t.For > 0 && !t.Until.IsZero():
		return time.Time{}, fmt.Errorf("%w: give for or until, not both", lease.ErrInvalid)
	case t.For > 0:
		return a.Now().Add(time.Duration(t.For)), nil
	case !t.Until.IsZero() && !t.Until.After(a.Now()):
		return time.Time{}, fmt.Errorf("%w: until %s is in the past", lease.ErrInvalid, t.Until.Format(time.RFC3339))
	}
	return t.Until, nil
}

func (a *api) removeGuest(ctx context.Context, who lease.Caller, r request[none]) (answer, error) {
	g, err := a.Store.Guest(ctx, r.path("guest"))
	if err == nil && g.Cache != r.path("cache") {
		err = fmt.Errorf("%w: guest %s is in cache %s, not in %.80s", lease.ErrUnknownGuest, g.Name, g.Cache, r.path("cache"))
	}
	if err != nil {
		return answer{}, err
	}
	return a.order(ctx, who, g, lease.Taint{Reason: "forced", Evidence: "removed by " + who.Name, Condemn: true})
}

// order taints a guest and says when that takes place.
func (a *api) order(ctx context.Context, who lease.Caller, g lease.Guest, t lease.Taint) (answer, error) {
	after, err := a.Store.Taint(ctx, who, g, t)
	if err != nil {
		return answer{}, err
	}
	when := "now"
	if after.State == lease.Leased {
		when = "when its lease ends"
	}
	out := client.Ordered{Guest: after.Name, Incarnation: after.Incarnation, State: after.State, When: when}
	return answer{status: http.StatusAccepted, body: out}, nil
}
