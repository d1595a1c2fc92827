package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// target is a server that takes pairs of calls: acquire and release.
type target struct {
	addr, token string
}

// round is what came of driving a target for a time.
type round struct {
	pairs int
	took  time.Duration
	calls []time.Duration // how long each took, the shortest first
	used  used
}

// with is both as one.
func (r round) with(o round) round {
	calls := append(r.calls, o.calls...)
	slices.Sort(calls)
	return round{r.pairs + o.pairs, r.took + o.took, calls, r.used.plus(o.used)}
}

func (r round) perSecond() float64 { return float64(r.pairs) / r.took.Seconds() }

// p99 is the time within which 99 of 100 calls were answered.
func (r round) p99() time.Duration {
	if len(r.calls) == 0 {
		return 0
	}
	return r.calls[len(r.calls)*99/100]
}

// drive sends pairs over so many connections for a time. Each connection sends its next call when the one before is answered.
func (t target) drive(ctx context.Context, connections int, d time.Duration) (round, error) {
	ctx, cancel := context.WithTimeout(ctx, d+callLimit)
	defer cancel()
	callers := make([]*caller, connections)
	for i := range callers {
		c, err := t.dial(ctx)
		if err != nil {
			return round{}, err
		}
		defer c.conn.Close()
		callers[i] = c
	}
	var all sync.WaitGroup
	errs := make([]error, connections)
	start := time.Now()
	end := start.Add(d)
	for i, c := range callers {
		all.Go(func() {
			for errs[i] == nil && time.Now().Before(end) {
				errs[i] = c.pair()
			}
		})
	}
	all.Wait()
	out := round{took: time.Since(start)}
	for _, c := range callers {
		out.calls = append(out.calls, c.calls...)
	}
	out.pairs = len(out.calls) / 2
	slices.Sort(out.calls)
	i := slices.IndexFunc(errs, func(err error) bool { return err != nil })
	if i < 0 {
		return out, nil
	}
	return out, errs[i] // the others say the same
}

// callLimit bounds what one call may take before the benchmark gives up.
const callLimit = 30 * time.Second

// caller is one connection. It speaks HTTP by itself, because a client of the standard library would take more of the
// processor than the servers that are compared, and hide their difference.
type caller struct {
	target
	conn  net.Conn
	in    *bufio.Reader
	out   []byte
	calls []time.Duration
}

func (t target) dial(ctx context.Context) (*caller, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", t.addr)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	return &caller{target: t, conn: conn, in: bufio.NewReader(conn), calls: make([]time.Duration, 0, 1<<16)}, nil
}

// pair leases a guest and gives it back, as the Go client would: with an idempotency key and an outcome.
func (c *caller) pair() error {
	id, err := c.call(201, "POST", "/v1/leases", rand.Text(), `{"cache":"bench"}`)
	if err == nil {
		_, err = c.call(200, "DELETE", "/v1/leases/"+id, "", `{"outcome":"pass"}`)
	}
	return err
}

// call sends one call and returns the id in its answer.
func (c *caller) call(want int, method, path, key, body string) (id string, err error) {
	b := append(c.out[:0], method...)
	b = append(b, ' ')
	b = append(b, path...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, c.addr...)
	b = append(b, "\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\nAuthorization: Bearer "...)
	b = append(b, c.token...)
	b = append(b, "\r\nContent-Type: application/json\r\n"...)
	if key != "" {
		b = append(b, "Idempotency-Key: "...)
		b = append(b, key...)
		b = append(b, "\r\n"...)
	}
	b = append(b, "Accept-Encoding: gzip\r\n\r\n"...)
	c.out = append(b, body...)
	start := time.Now()
	if _, err := c.conn.Write(c.out); err != nil {
		return "", err
	}
	status, answer, err := c.answer()
	c.calls = append(c.calls, time.Since(start))
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", method, path, err)
	}
	if status != want {
		return "", fmt.Errorf("%s %s: status %d, want %d: %s", method, path, status, want, answer)
	}
	_, rest, _ := bytes.Cut(answer, []byte(`"id":"`))
	found, _, ok := bytes.Cut(rest, []byte(`"`))
	if !ok {
		return "", fmt.Errorf("%s %s: there is no id in %s", method, path, answer)
	}
	return string(found), nil
}

var contentLength = []byte("Content-Length: ")

// answer reads one answer; the body is good until the next.
func (c *caller) answer() (status int, body []byte, err error) {
	length := -1
	for first := true; ; first = false {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, nil, err
		}
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case first && len(line) > 12:
			status, err = strconv.Atoi(string(line[9:12]))
		case bytes.HasPrefix(line, contentLength):
			length, err = strconv.Atoi(string(line[len(contentLength):]))
		}
		if err != nil {
			return 0, nil, err
		}
		if len(line) == 0 {
			break
		}
	}
	if length < 0 {
		return 0, nil, errors.New("the answer does not say how long it is")
	}
	c.out = slices.Grow(c.out[:0], length)[:length]
	_, err = io.ReadFull(c.in, c.out)
	return status, c.out, err
}
