package http1

import (
	"bytes"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tape is a connection whose other side has said all that it will.
type tape struct {
	mu     sync.Mutex
	in     *bytes.Reader
	step   int // most bytes that come at once
	out    bytes.Buffer
	once   sync.Once
	closed chan struct{}
	halved bool // this side ended first
}

func (c *tape) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.in.Read(p[:min(len(p), c.step)])
}

func (c *tape) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Write(p)
}

func (c *tape) CloseWrite() error                { c.halved = true; return nil }
func (c *tape) Close() error                     { c.once.Do(func() { close(c.closed) }); return nil }
func (c *tape) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *tape) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *tape) SetDeadline(time.Time) error      { return nil }
func (c *tape) SetReadDeadline(time.Time) error  { return nil }
func (c *tape) SetWriteDeadline(time.Time) error { return nil }

// play returns a connection on which a server has answered text, which comes in pieces of at most step bytes.
func play(t *testing.T, text []byte, step int, h http.Handler, in func(net.Listener) net.Listener) *tape {
	t.Helper()
	conn := &tape{in: bytes.NewReader(text), step: step, closed: make(chan struct{})}
	inner := lane{make(chan net.Conn)}
	server := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	ended := make(chan error)
	go func() { ended <- server.Serve(in(inner)) }()
	inner.conn <- conn
	<-conn.closed
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	return conn
}

// cutShort is net/http's answer to a request that is cut short, but to fewer than four bytes of one that is not the first.
const cutShort = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request"

// plain returns the answers on a connection without their dates, and their lines in order.
func plain(conn *tape) string {
	lines := slices.Collect(strings.Lines(strings.TrimSuffix(conn.out.String(), cutShort)))
	lines = slices.DeleteFunc(lines, func(line string) bool { return strings.HasPrefix(line, "Date: ") })
	for i := 0; i < len(lines); i++ {
		if !strings.Contains(lines[i], "HTTP/1.1 ") { // which may stand behind a body
			continue
		}
		end := i + 1
		for end < len(lines) && lines[end] != "\r\n" {
			end++
		}
		slices.Sort(lines[i+1 : end])
	}
	return strings.Join(lines, "")
}

// FuzzConnection holds a connection through a front against the same one without.
func FuzzConnection(f *testing.F) {
	get := "GET /things?a HTTP/1.1\r\nHost: h\r\n\r\n"
	chunked := "POST /things HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
	for _, text := range []string{
		post, post + remove, post + get + post, remove + chunked + remove, post[:len(post)-2], post + post[:9], "\r\n" + post, post + "\r\n" + post,
		"DELETE /things/1 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody" + post, "POST /things HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n" + post,
		"POST /things HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + post,
		"POST /things HTTP/1.1\r\nHost: h\r\nContent-Length: 0x4\r\n\r\nbody", "POST /things HTTP/1.1\r\nHost: h\r\nContent-Length: 004\r\n\r\nbody" + post,
		"POST /things HTTP/1.1\r\nHost: h\r\nContent-Length : 4\r\n\r\nbody", "POST /things HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody",
		"POST /things HTTP/1.1\r\nHost: h\r\ncontent-length: 4\r\nCONTENT-LENGTH: 4\r\n\r\nbody" + post, "POST  /things HTTP/1.1\r\nHost: h\r\n\r\n",
		post + "POST /things HTTP/1.1\r\nHost: h\r\nKey: a\r\nKEY: a\r\n\r\n" + post, remove + post + "POST /things HTTP/1.1\r\nKey: b\r\nHost: i\r\n\r\n" + remove + post,
		"POST /things HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" + post, "POST /things HTTP/1.1\r\nHost: h\r\nKey: a\rb\r\n\r\n", "POST //things HTTP/1.1\r\nHost: h\r\n\r\n",
	} {
		f.Add([]byte(text), uint16(1000))
		f.Add([]byte(text), uint16(1))
	}
	f.Fuzz(func(t *testing.T, text []byte, step uint16) {
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			echo("either")(w, r)
		})
		want := play(t, text, int(step)+1, h, func(l net.Listener) net.Listener { return l })
		front := &Front{Handler: h, Takes: ofThings, ErrorLog: log.New(t.Output(), "", 0), ReadTimeout: time.Minute, IdleTimeout: time.Minute}
		got := play(t, text, int(step)+1, h, front.Listen)
		if diff := cmp.Diff(plain(want), plain(got)); diff != "" {
			t.Errorf("%q (-net/http +front):\n%s", text, diff)
		}
	})
}

func TestNetHTTPCanEndItsSideOfWhatItIsHanded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it waits then, for the other side to see the answer
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(http.MaxBytesReader(w, r.Body, 1))
		})
		front := &Front{Handler: h, Takes: ofThings, ReadTimeout: time.Minute, IdleTimeout: time.Minute}
		text := "POST /things?a HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\ntoo large"
		if !play(t, []byte(text), len(text), h, front.Listen).halved {
			t.Error("it was not told that no more is read")
		}
	})
}
