// Package http1 answers plain HTTP/1.1 requests (RFC 9112) at little cost, in front of net/http.
//
// On a short call net/http spends more than the call itself does: it watches each connection in a goroutine of its own while the
// call is under way, and takes whatever may come. A Front reads the requests of a connection as long as they are of the
// plainest kind. At the first that is not, it hands the connection to net/http, with all that was read, for good. So nothing is
// refused here, and what is unusual, large, slow or malformed finds the same judge as ever.
package http1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// bufferSize bounds a plain request, its body included, in bytes.
const bufferSize = 8 << 10

// Front answers what is plain. Its fields must be set before the first Listen.
type Front struct {
	// Handler answers the requests that Takes picks. It must answer soon, because it is not told when a caller goes away; it keeps
	// nothing of a request, sets its own Content-Type, and can neither flush nor hijack.
	Handler http.Handler
	Takes   func(method, path string) bool
	// ConnContext makes the context of a connection's requests, as that of http.Server does; nil: it is the background's.
	ConnContext func(ctx context.Context, conn net.Conn) context.Context
	ErrorLog    *log.Logger   // of panics
	ReadTimeout time.Duration // of the first request, and of one that has begun: then it goes to net/http
	IdleTimeout time.Duration // between requests, at least; and of writing an answer

	ending atomic.Bool
	mu     sync.Mutex // of what follows
	conns  map[net.Conn]struct{}
	all    sync.WaitGroup // of conns
}

// Listen returns a listener of what is left for net/http. Closing it closes inner.
func (f *Front) Listen(inner net.Listener) net.Listener {
	l := &listener{Listener: inner, front: f, rest: make(chan net.Conn), failed: make(chan error), closed: make(chan struct{})}
	go l.run()
	return l
}

// Shutdown ends the connections that wait for a request, and waits for the others until their calls are answered or ctx
// ends. Those that net/http has are its own.
func (f *Front) Shutdown(ctx context.Context) error {
	f.mu.Lock()
	f.ending.Store(true)
	for conn := range f.conns {
		_ = conn.SetReadDeadline(time.Now()) // who reads wakes up and sees the end
	}
	f.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		f.all.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for conn := range f.conns {
		_ = conn.Close()
	}
	return context.Cause(ctx)
}

// begin takes a connection in; false: it is too late.
func (f *Front) begin(conn net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ending.Load() {
		return false
	}
	if f.conns == nil {
		f.conns = map[net.Conn]struct{}{}
	}
	f.conns[conn] = struct{}{}
	f.all.Add(1)
	return true
}

func (f *Front) end(conn net.Conn) {
	f.mu.Lock()
	delete(f.conns, conn)
	f.mu.Unlock()
	f.all.Done()
}

// listener is what net/http listens to.
type listener struct {
	net.Listener
	front  *Front
	rest   chan net.Conn
	failed chan error
	once   sync.Once
	closed chan struct{}
}

func (l *listener) run() {
	for {
		conn, err := l.Listener.Accept()
		if err == nil {
			go l.serve(conn)
			continue
		}
		select {
		case l.failed <- err: // net/http knows what to do, and waits before it asks again
		case <-l.closed:
			return
		}
	}
}

// Accept waits for a connection with a request that is not plain.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.rest:
		return conn, nil
	case err := <-l.failed:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	err := l.Listener.Close()
	l.once.Do(func() { close(l.closed) })
	return err
}

// serve answers the plain requests of a connection and hands it on when there is another.
func (l *listener) serve(conn net.Conn) {
	if !l.front.begin(conn) {
		conn.Close()
		return
	}
	rest, handOn := l.front.answer(conn)
	l.front.end(conn)
	if !handOn {
		conn.Close()
		return
	}
	select {
	case l.rest <- rest:
	case <-l.closed:
		conn.Close()
	}
}

// answer returns the connection as net/http is to see it, or false when it is over.
func (f *Front) answer(raw net.Conn) (rest net.Conn, handOn bool) {
	defer func() {
		if v := recover(); v != nil {
			handOn = false
			if err, ok := v.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				f.ErrorLog.Printf("http1: panic serving %v: %v\n%s", raw.RemoteAddr(), v, debug.Stack())
			}
		}
	}()
	c := &conn{Conn: raw, front: f, in: bufio.NewReaderSize(raw, bufferSize), template: f.template(raw)}
	c.response.header = http.Header{}
	for {
		err := c.next()
		switch {
		case errors.Is(err, errOther):
			read, _ := c.in.Peek(c.in.Buffered())
			return handed{raw, bytes.NewReader(bytes.Clone(read))}, raw.SetDeadline(time.Time{}) == nil
		case err != nil:
			return nil, false
		}
		if err := c.reply(); err != nil {
			return nil, false
		}
	}
}

// template is what all requests of a connection have in common.
func (f *Front) template(conn net.Conn) *http.Request {
	r := &http.Request{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: conn.RemoteAddr().String()}
	if f.ConnContext == nil {
		return r
	}
	return r.WithContext(f.ConnContext(context.Background(), conn))
}

// conn is a connection whose requests were plain so far.
type conn struct {
	net.Conn
	front    *Front
	in       *bufio.Reader
	template *http.Request
	request  request
	response response
	until    time.Time // deadline of reading and writing
	size     int       // of the request at hand, whose bytes are still in the buffer
}

// errOther says that the next request is not plain.
var errOther = errors.New("not plain")

// next waits for a request, all of it.
func (c *conn) next() error {
	if err := c.await(); err != nil {
		return err
	}
	if err := c.skipBreaks(); err != nil {
		return err
	}
	for begun := false; ; begun = true {
		text, _ := c.in.Peek(c.in.Buffered())
		size, err := c.request.parse(text, c.template, c.front.Takes)
		if !errors.Is(err, errMore) {
			c.size = size
			return err
		}
		if !begun {
			c.until = time.Time{}
			if err := c.SetReadDeadline(time.Now().Add(c.front.ReadTimeout)); err != nil {
				return err
			}
		}
		if _, err := c.in.Peek(len(text) + 1); err != nil && c.front.ending.Load() {
			return net.ErrClosed
		} else if err != nil { // it is slow, the buffer is full, or the connection ended
			return errOther
		}
	}
}

// await makes ready to wait for a request.
func (c *conn) await() error {
	_, _ = c.in.Discard(c.size)
	var err error
	if c.size > 0 {
		err = c.extend(time.Now())
	} else { // the first
		err = c.SetReadDeadline(time.Now().Add(c.front.ReadTimeout))
	}
	if err == nil && c.front.ending.Load() { // whose own deadline may have been overwritten
		err = net.ErrClosed
	}
	return err
}

// skipBreaks waits for the first byte of a request. It takes away the line breaks that old clients send behind the body of a
// POST (RFC 9112 section 2.2): those that net/http would, which will not know of the POST.
func (c *conn) skipBreaks() error {
	for range 4 {
		first, err := c.in.Peek(1)
		if err != nil || c.size == 0 || c.request.Method != http.MethodPost || first[0] != '\r' && first[0] != '\n' {
			return err
		}
		_, _ = c.in.Discard(1)
	}
	_, err := c.in.Peek(1)
	return err
}

// extend moves the deadline. To set one costs more than to look at the clock, so that it always has between one and two idle
// times to go.
func (c *conn) extend(now time.Time) error {
	idle := c.front.IdleTimeout
	if c.until.Sub(now) > idle {
		return nil
	}
	c.until = now.Add(2 * idle)
	return c.SetDeadline(c.until)
}

func (c *conn) reply() error {
	c.response.reset()
	c.response.last = c.front.ending.Load()
	c.front.Handler.ServeHTTP(&c.response, &c.request.Request)
	now := time.Now()
	if err := c.extend(now); err != nil {
		return err
	}
	_, err := c.Write(c.response.text(now))
	return err
}

// handed is a connection of which some was read already.
type handed struct {
	net.Conn
	read *bytes.Reader
}

func (h handed) Read(p []byte) (int, error) {
	if h.read.Len() > 0 {
		return h.read.Read(p)
	}
	return h.Conn.Read(p)
}

// CloseWrite ends this side alone, as that of a net.TCPConn does: net/http says so when it gives up on a body.
func (h handed) CloseWrite() error {
	if c, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

// NetConn returns the connection below, as that of tls.Conn does.
func (h handed) NetConn() net.Conn { return h.Conn }
