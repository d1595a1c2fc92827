package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"greenroom/lease"
	"greenroom/reconcile/condition"
)

func get(path string, query url.Values) call {
	return call{method: http.MethodGet, path: path, query: query}
}

func post(path string, body any) call {
	return call{method: http.MethodPost, path: path, body: body}
}

// fetch carries a call out and returns its answer.
func fetch[Out any](ctx context.Context, c *Client, k call) (Out, error) {
	var out Out
	k.answer = &out
	err := c.do(ctx, k)
	return out, err
}

// Caches lists every cache, the invisible ones of the pools included.
func (c *Client) Caches(ctx context.Context) ([]Cache, error) {
	out, err := fetch[struct{ Caches []Cache }](ctx, c, get("/v1/caches", nil))
	return out.Caches, err
}

// Cache returns one cache.
func (c *Client) Cache(ctx context.Context, name string) (Cache, error) {
	return fetch[Cache](ctx, c, get(cachePath(name), nil))
}

func cachePath(name string) string { return "/v1/caches/" + url.PathEscape(name) }

// CacheGuests lists the guests of a cache, by name.
func (c *Client) CacheGuests(ctx context.Context, cache string) ([]lease.Guest, error) {
	out, err := fetch[struct{ Guests []lease.Guest }](ctx, c, get(cachePath(cache)+"/guests", nil))
	return out.Guests, err
}

// Queue lists the caller's requests that wait in a cache, in order; an admin sees everybody's.
func (c *Client) Queue(ctx context.Context, cache string) ([]Lease, error) {
	out, err := fetch[struct{ Leases []Lease }](ctx, c, get(cachePath(cache)+"/queue", nil))
	return out.Leases, err
}

// SetEnabled makes a cache grant leases, or none, whatever the spec says.
func (c *Client) SetEnabled(ctx context.Context, cache string, enabled bool, t Toggle) (Cache, error) {
	verb := map[bool]string{true: "/enable", false: "/disable"}[enabled]
	return fetch[Cache](ctx, c, post(cachePath(cache)+verb, t))
}

// DropOverride takes SetEnabled back: the spec is in force again.
func (c *Client) DropOverride(ctx context.Context, cache string) (Cache, error) {
	return fetch[Cache](ctx, c, call{method: http.MethodDelete, path: cachePath(cache) + "/override"})
}

// RemoveGuest takes a guest away for good, now or when its lease ends.
func (c *Client) RemoveGuest(ctx context.Context, cache, guest string) (Ordered, error) {
	return fetch[Ordered](ctx, c, call{method: http.MethodDelete, path: cachePath(cache) + "/guests/" + url.PathEscape(guest)})
}

// Guests lists the guests of a pool or, with "", of all.
func (c *Client) Guests(ctx context.Context, pool string) ([]lease.Guest, error) {
	query := url.Values{}
	if pool != "" {
		query.Set("pool", pool)
	}
	out, err := fetch[struct{ Guests []lease.Guest }](ctx, c, get("/v1/guests", query))
	return out.Guests, err
}

func guestPath(name string) string { return "/v1/guests/" + url.PathEscape(name) }

// Guest returns one guest.
func (c *Client) Guest(ctx context.Context, name string) (lease.Guest, error) {
	return fetch[lease.Guest](ctx, c, get(guestPath(name), nil))
}

// Events returns the newest n (1 to 200) entries of a guest's history, newest first.
func (c *Client) Events(ctx context.Context, guest string, n int) ([]lease.Event, error) {
	out, err := fetch[struct{ Events []lease.Event }](ctx, c, get(guestPath(guest)+"/events", url.Values{"n": {strconv.Itoa(n)}}))
	return out.Events, err
}

// Probes says how the probes of a guest stand.
func (c *Client) Probes(ctx context.Context, guest string) ([]Probe, error) {
	out, err := fetch[struct{ Probes []Probe }](ctx, c, get(guestPath(guest)+"/probes", nil))
	return out.Probes, err
}

// Taint orders a guest to be replaced, now or when its lease ends.
func (c *Client) Taint(ctx context.Context, guest, reason string) (Ordered, error) {
	return fetch[Ordered](ctx, c, post(guestPath(guest)+"/taint", Reason{reason}))
}

// Probe asks a guest whether it is alive.
func (c *Client) Probe(ctx context.Context, guest string) (Probed, error) {
	return fetch[Probed](ctx, c, post(guestPath(guest)+"/probe", nil))
}

// Hold keeps an idle guest aside for diagnosis.
func (c *Client) Hold(ctx context.Context, guest string, length Duration) (lease.Guest, error) {
	return fetch[lease.Guest](ctx, c, post(guestPath(guest)+"/hold", Hold{length}))
}

// Pools lists the pools with their conditions and shards.
func (c *Client) Pools(ctx context.Context) ([]Pool, error) {
	out, err := fetch[struct{ Pools []Pool }](ctx, c, get("/v1/pools", nil))
	return out.Pools, err
}

func poolPath(name string) string { return "/v1/pools/" + url.PathEscape(name) }

// Pool returns one pool.
func (c *Client) Pool(ctx context.Context, name string) (Pool, error) {
	return fetch[Pool](ctx, c, get(poolPath(name), nil))
}

// Pause starts no more runs for a pool.
func (c *Client) Pause(ctx context.Context, pool, reason string) (lease.Pause, error) {
	return fetch[lease.Pause](ctx, c, post(poolPath(pool)+"/pause", Reason{reason}))
}

// Resume ends a pause.
func (c *Client) Resume(ctx context.Context, pool string) error {
	return c.do(ctx, post(poolPath(pool)+"/resume", nil))
}

// Shards lists the shards of all pools.
func (c *Client) Shards(ctx context.Context) ([]condition.ShardStatus, error) {
	out, err := fetch[struct{ Shards []condition.ShardStatus }](ctx, c, get("/v1/shards", nil))
	return out.Shards, err
}

// Status returns the whole house.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return fetch[Status](ctx, c, get("/v1/status", nil))
}

// Reconcile asks for a look at some pools now or, with none, at all; it returns those that were woken.
func (c *Client) Reconcile(ctx context.Context, pools ...string) ([]string, error) {
	out, err := fetch[Reconcile](ctx, c, post("/v1/reconcile", Reconcile{pools}))
	return out.Pools, err
}

// Ready returns nil when leases can be granted, and else what is missing.
func (c *Client) Ready(ctx context.Context) error {
	return c.do(ctx, call{method: http.MethodGet, path: "/readyz", once: true})
}

// Tokens lists the API tokens without their secrets.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	out, err := fetch[struct{ Tokens []Token }](ctx, c, get("/v1/tokens", nil))
	return out.Tokens, err
}

// CreateToken makes an API token; nobody can see its secret again.
func (c *Client) CreateToken(ctx context.Context, n NewToken) (Token, error) {
	return fetch[Token](ctx, c, call{method: http.MethodPost, path: "/v1/tokens", body: n, once: true})
}

// RevokeToken ends an API token by its id.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: "/v1/tokens/" + url.PathEscape(id)})
}
