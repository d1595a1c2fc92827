package server

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"greenroom/internal/http1"
	"greenroom/lease/leasetest"
)

// BenchmarkPair leases and returns guests over 64 connections at once, which are in memory, and reports the processor time of this
// process for a pair of calls: what is left is the API's, the store's and the Redis client's.
func BenchmarkPair(b *testing.B) {
	const sides = 64
	redis := leasetest.Redis(b)
	if err := redis.Client.ConfigSet(b.Context(), "appendonly", "no").Err(); err != nil {
		b.Fatal(err)
	}
	h := newHouse(b, redis.Client)
	h.wide()
	for range sides + sides/2 {
		h.shelve("ci")
	}
	h.parts.Registry = prometheus.NewRegistry()
	inner := &lanes{conns: make(chan net.Conn), closed: make(chan struct{})}
	front := &http1.Front{Handler: Handler(h.parts), Takes: ofLeases, ConnContext: withPeer, ReadTimeout: time.Minute, IdleTimeout: time.Minute}
	rest := front.Listen(inner)
	defer rest.Close()
	callers := make([]*caller, sides)
	for i := range callers {
		here, there := net.Pipe()
		defer here.Close()
		inner.conns <- there
		callers[i] = &caller{Conn: here, head: "HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + h.user + "\r\nContent-Type: application/json\r\n"}
	}
	pair := func(side, n int) {
		for ; n > 0; n-- {
			if err := callers[side].pair(); err != nil {
				b.Error(err)
				return
			}
		}
	}
	pair(0, 1) // the first brings the script
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu(b)
	var all sync.WaitGroup
	for side := range sides {
		all.Go(func() { pair(side, (b.N+side)/sides) })
	}
	all.Wait()
	b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/1000/float64(b.N), "cpu-µs/pair")
}

// lanes is a listener of connections in memory.
type lanes struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *lanes) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *lanes) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *lanes) Addr() net.Addr { return &net.TCPAddr{} }

// caller makes calls at as little cost as it can.
type caller struct {
	net.Conn
	head    string
	out, in []byte
}

func (c *caller) pair() error {
	said, err := c.ask("POST", "/v1/leases", `{"cache":"ci","ttl":"1m"}`, http.StatusCreated)
	if err != nil {
		return err
	}
	_, id, _ := bytes.Cut(said, []byte(`{"id":"`))
	id, _, _ = bytes.Cut(id, []byte(`"`))
	_, err = c.ask("DELETE", "/v1/leases/"+string(id), `{"outcome":"pass"}`, http.StatusOK)
	return err
}

// ask makes a call and returns its answer, which is good until the next one.
func (c *caller) ask(method, path, body string, status int) ([]byte, error) {
	c.out = append(append(append(append(append(c.out[:0], method...), ' '), path...), ' '), c.head...)
	c.out = append(strconv.AppendInt(append(c.out, "Content-Length: "...), int64(len(body)), 10), "\r\n\r\n"...)
	if _, err := c.Write(append(c.out, body...)); err != nil {
		return nil, err
	}
	if c.in == nil {
		c.in = make([]byte, 8<<10)
	}
	n, err := c.Read(c.in) // a pipe hands over what was written at once
	if said := string(c.in[9:12]); err == nil && said != strconv.Itoa(status) {
		err = fmt.Errorf("%s %s: %s", method, path, c.in[:n])
	}
	if err != nil && err != io.EOF {
		return nil, err
	}
	return c.in[:n], nil
}
