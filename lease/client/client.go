// Package client is the Go client of Greenroom's HTTP API, and the one definition of the JSON that both ends speak.
//
// It exists so that a program which needs guests has to know nothing of queues, polling, retries and heartbeats: Acquire
// returns a lease that is active, and KeepAlive keeps it so.
package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"greenroom/lease"
)

// maxAnswer bounds what is read of one answer.
const maxAnswer = 64 << 20

// callTimeout bounds one try of a call, the longest long poll included.
const callTimeout = 75 * time.Second

// Options of a client.
type Options struct {
	// Addr is the server: an http or https URL, or the absolute path of its unix socket.
	Addr string
	// Token is the bearer token; on the socket of one's own server none is needed.
	Token string
	// HTTPClient replaces the default one, for TLS settings and proxies. A unix socket has its own.
	HTTPClient *http.Client
	// Retry is how long a call is tried again while the server or its store is away. Default 30s; negative: not at all.
	Retry time.Duration
	// OnRetry is told of each failed try that is followed by another.
	OnRetry func(err error)
}

// Client calls one server. Its methods may be called concurrently; their errors are *Error when the server has answered.
type Client struct {
	base    string
	options Options
	http    *http.Client
	socket  bool // the server is on this host, behind a socket
}

// New returns a client; it connects to nothing yet.
func New(o Options) (*Client, error) {
	o.Retry = cmp.Or(o.Retry, 30*time.Second)
	if o.OnRetry == nil {
		o.OnRetry = func(error) {}
	}
	c := &Client{base: strings.TrimSuffix(o.Addr, "/"), options: o, http: o.HTTPClient}
	if path, ok := strings.CutPrefix(o.Addr, "unix:"); ok || strings.HasPrefix(o.Addr, "/") {
		c.socket = true
		c.base, c.http = "http://greenroom", &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", path)
			},
		}}
		return c, nil
	}
	u, err := url.Parse(o.Addr)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("the server's address %.80q is neither an http(s) URL, such as http://127.0.0.1:7070, nor the absolute path of a socket", o.Addr)
	}
	if c.http == nil {
		c.http = &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	}
	return c, nil
}

// Close ends the connections that are idle.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Error is a problem that the server answered with. errors.Is finds the fact of package lease behind its code.
type Error struct {
	Problem
	RetryAfter time.Duration
}

// Error is the server's own explanation.
func (e *Error) Error() string { return e.Detail }

var codes = map[string]error{
	"unavailable": lease.ErrUnavailable, "queue_full": lease.ErrQueueFull, "unknown_cache": lease.ErrUnknownCache,
	"unknown_pool": lease.ErrUnknownPool, "unknown_guest": lease.ErrUnknownGuest, "unknown_lease": lease.ErrUnknownLease,
	"not_yours": lease.ErrNotYours, "impossible": lease.ErrImpossible, "none_ready": lease.ErrNoneReady,
	"idempotency_mismatch": lease.ErrReplay, "queued": lease.ErrQueued, "leased": lease.ErrLeased, "conflict": lease.ErrConflict,
	"hold_budget": lease.ErrHoldBudget, "full": lease.ErrFull, "lease_over": lease.ErrOver, "invalid": lease.ErrInvalid,
}

// Is tells whether the problem is that fact.
func (e *Error) Is(target error) bool { return target != nil && codes[e.Code] == target }

// call is one call; a nil body or answer is none.
type call struct {
	method, path string
	query        url.Values
	key          string // Idempotency-Key
	body, answer any
	archive      []byte // a body that is a zip archive
	once         bool   // doing it twice is not doing it once
}

// do carries a call out, and again while the server or its store is away and time is left.
func (c *Client) do(ctx context.Context, k call) error {
	end := time.Now().Add(c.options.Retry)
	pause := 100 * time.Millisecond
	for {
		err := c.try(ctx, k)
		if err == nil || ctx.Err() != nil || k.once || !temporary(err) {
			return err
		}
		wait := pause/2 + rand.N(pause)
		if answered, ok := errors.AsType[*Error](err); ok {
			wait = max(wait, answered.RetryAfter)
		}
		if time.Now().Add(wait).After(end) {
			return err
		}
		c.options.OnRetry(err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
		pause = min(2*pause, 5*time.Second)
	}
}

// unsendable is a call that cannot be put as an HTTP request: no try of it will do.
type unsendable struct{ err error }

func (u *unsendable) Error() string { return "make the request: " + u.err.Error() }

func (u *unsendable) Unwrap() error { return u.err }

// temporary tells what may be otherwise in a moment: no answer at all, or 429, 502, 503 and 504.
func temporary(err error) bool {
	if _, ok := errors.AsType[*unsendable](err); ok {
		return false
	}
	answered, ok := errors.AsType[*Error](err)
	if !ok {
		return true
	}
	switch answered.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

func (c *Client) try(ctx context.Context, k call) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := c.request(ctx, k)
	if err != nil {
		return &unsendable{err}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreached(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the answer of the server at %s: %w", c.options.Addr, err)
	}
	if resp.StatusCode >= 300 {
		return problemOf(resp, body)
	}
	if k.answer == nil || len(body) == 0 {
		return nil
	}
	if err := json.Unmarshal(body, k.answer); err != nil {
		return &Error{Problem: Problem{Status: resp.StatusCode, Code: "unexpected", Detail: fmt.Sprintf("the server at %s answered what is no Greenroom answer: %v", c.options.Addr, err)}}
	}
	return nil
}

// unreached is the error of a call that came to no answer, with the server's address once.
func (c *Client) unreached(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // without the URL, which says nothing of a socket
	}
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" && dial.Net == "unix" {
		err = dial.Err
	}
	return fmt.Errorf("cannot reach the server at %s: %w", c.options.Addr, err)
}

func (c *Client) request(ctx context.Context, k call) (*http.Request, error) {
	body, media := k.archive, "application/zip"
	if k.body != nil {
		var err error
		if body, err = json.Marshal(k.body); err != nil {
			return nil, err
		}
		media = "application/json"
	}
	target := c.base + k.path
	if len(k.query) > 0 {
		target += "?" + k.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, k.method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", media)
	}
	if k.key != "" {
		req.Header.Set("Idempotency-Key", k.key)
	}
	if c.options.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.options.Token)
	}
	return req, nil
}

// problemOf reads a problem, or makes one of an answer that some proxy on the way gave.
func problemOf(resp *http.Response, body []byte) error {
	e := &Error{}
	if json.Unmarshal(body, &e.Problem) != nil || e.Code == "" {
		e.Problem = Problem{Title: resp.Status, Status: resp.StatusCode, Code: "unexpected", Detail: "the server answered " + resp.Status}
	}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
		e.RetryAfter = time.Duration(min(seconds, 60)) * time.Second
	}
	return e
}

// Ordinal writes a place in line: 1st, 2nd, 3rd, 4th.
func Ordinal(n int) string {
	suffix := "th"
	if n%100 < 11 || n%100 > 13 {
		suffix = map[int]string{1: "st", 2: "nd", 3: "rd"}[n%10]
	}
	return strconv.Itoa(n) + cmp.Or(suffix, "th")
}
