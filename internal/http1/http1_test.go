package http1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ofThings(method, path string) bool {
	return (method == http.MethodPost || method == http.MethodDelete) && strings.HasPrefix(path, "/things")
}

// echo tells who answered and what it was asked.
func echo(who string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("X-Who", who)
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "%s %s %s %s %s", r.Method, r.URL, r.Host, r.Header.Get("Key"), body)
	}
}

// house serves with a front on a real address until the test ends.
func house(t *testing.T, plain http.Handler) (address string, front *Front) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front = &Front{Handler: plain, Takes: ofThings, ErrorLog: log.New(t.Output(), "", 0), ReadTimeout: time.Minute, IdleTimeout: time.Minute}
	server := &http.Server{Handler: echo("net/http"), ReadHeaderTimeout: time.Minute}
	ended := make(chan error)
	go func() { ended <- server.Serve(front.Listen(inner)) }()
	t.Cleanup(func() {
		if err := errors.Join(front.Shutdown(t.Context()), server.Close()); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return inner.Addr().String(), front
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return conn
}

// answers reads so many answers and tells of each who gave it, its status and its body.
func answers(t *testing.T, in *bufio.Reader, count int) (all []string) {
	t.Helper()
	for range count {
		a, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("after %q: %v", all, err)
		}
		body, err := io.ReadAll(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		all = append(all, fmt.Sprintf("%s %d %s", a.Header.Get("X-Who"), a.StatusCode, body))
	}
	return all
}

const (
	post   = "POST /things HTTP/1.1\r\nHost: h\r\nKey: a\r\nContent-Length: 4\r\n\r\nbody"
	remove = "DELETE /things/1.2 HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\n\r\n"
)

func TestOnlyThePlainestRequestsAreAnsweredInFront(t *testing.T) {
	address, _ := house(t, echo("front"))
	many := strings.Repeat("A", 300)
	for name, test := range map[string]struct {
		send string
		want []string
	}{
		"a post":             {post, []string{"front 201 POST /things h a body"}},
		"one after another":  {post + remove + post, []string{"front 201 POST /things h a body", "front 201 DELETE /things/1.2 h  ", "front 201 POST /things h a body"}},
		"an empty post":      {"POST /things HTTP/1.1\r\nhost:h\r\n\r\n", []string{"front 201 POST /things h  "}},
		"another path":       {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", []string{"net/http 201 GET / h  "}},
		"then another path":  {post + "GET / HTTP/1.1\r\nHost: h\r\n\r\n" + post, []string{"front 201 POST /things h a body", "net/http 201 GET / h  ", "net/http 201 POST /things h a body"}},
		"a query":            {"POST /things?a=b HTTP/1.1\r\nHost: h\r\n\r\n", []string{"net/http 201 POST /things?a=b h  "}},
		"an escape":          {"DELETE /things/%31 HTTP/1.1\r\nHost: h\r\n\r\n", []string{"net/http 201 DELETE /things/%31 h  "}},
		"chunks":             {"POST /things HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", []string{"net/http 201 POST /things h  ab"}},
		"two lengths":        {"POST /things HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", []string{"net/http 201 POST /things h  a"}},
		"lengths in dispute": {"POST /things HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", []string{" 400 400 Bad Request"}},
		"a signed length":    {"POST /things HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\na", []string{" 400 400 Bad Request"}},
		"no host":            {"POST /things HTTP/1.1\r\n\r\n", []string{" 400 400 Bad Request: missing required Host header"}},
		"a space in a name":  {"POST /things HTTP/1.1\r\nHost: h\r\nKey : a\r\n\r\n", []string{" 400 400 Bad Request: invalid header name"}},
		"a folded line":      {"POST /things HTTP/1.1\r\nHost: h\r\nKey: a\r\n b\r\n\r\n", []string{"net/http 201 POST /things h a b "}},
		"bare line feeds":    {"POST /things HTTP/1.1\nHost: h\n\n", []string{"net/http 201 POST /things h  "}},
		"an older protocol":  {"POST /things HTTP/1.0\r\nHost: h\r\n\r\n", []string{"net/http 201 POST /things h  "}},
		"the last of a line": {"POST /things HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", []string{"net/http 201 POST /things h  "}},
		"a large one": {
			"POST /things HTTP/1.1\r\nHost: h\r\nContent-Length: 8400\r\n\r\n" + strings.Repeat(many, 28),
			[]string{"net/http 201 POST /things h  " + strings.Repeat(many, 28)},
		},
		"a large head": {
			"POST /things HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat(many, 30) + "\r\n\r\n" + post,
			[]string{"net/http 201 POST /things h  ", "net/http 201 POST /things h a body"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := dial(t, address)
			if _, err := io.WriteString(conn, test.send); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, answers(t, bufio.NewReader(conn), len(test.want))); diff != "" {
				t.Errorf("answers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestARequestMayComeInPieces(t *testing.T) {
	address, _ := house(t, echo("front"))
	text := post + remove + "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
	want := []string{"front 201 POST /things h a body", "front 201 DELETE /things/1.2 h  ", "net/http 201 GET / h  "}
	for cut := 1; cut < len(text); cut++ {
		conn := dial(t, address)
		for _, piece := range []string{text[:cut], text[cut:]} {
			if _, err := io.WriteString(conn, piece); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(want, answers(t, bufio.NewReader(conn), len(want))); diff != "" {
			t.Errorf("cut at %d (-want +got):\n%s", cut, diff)
		}
		conn.Close()
	}
}

func TestAPanicEndsOneConnectionAndNoOther(t *testing.T) {
	address, _ := house(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			panic("at the disco")
		}
		echo("front")(w, r)
	}))
	one, other := dial(t, address), dial(t, address)
	if _, err := io.WriteString(one, remove); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(one); err != nil || len(text) > 0 {
		t.Errorf("got %q, %v, want the end of the connection", text, err)
	}
	if _, err := io.WriteString(other, post); err != nil {
		t.Fatal(err)
	}
	answers(t, bufio.NewReader(other), 1)
}

func TestShutdownWaitsForCallsUnderWayAndForNothingElse(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	address, front := house(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-goOn
		echo("front")(w, r)
	}))
	idle, busy := dial(t, address), dial(t, address)
	if _, err := io.WriteString(busy, post+post); err != nil {
		t.Fatal(err)
	}
	<-begun
	down := make(chan error)
	go func() { down <- front.Shutdown(t.Context()) }()
	if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection: %v, want its end", err)
	}
	close(goOn)
	in := bufio.NewReader(busy)
	answers(t, in, 1)
	if err := <-down; err != nil {
		t.Error(err)
	}
	if _, err := in.ReadByte(); err == nil {
		t.Error("a call was answered that came after the end")
	}
}

func TestShutdownCutsOffWhatTakesTooLong(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	address, front := house(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(begun)
		<-goOn
	}))
	conn := dial(t, address)
	if _, err := io.WriteString(conn, post); err != nil {
		t.Fatal(err)
	}
	<-begun
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if err := front.Shutdown(impatient); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cut off", err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection lives on")
	}
	close(goOn)
}

// lane is a listener of one connection.
type lane struct {
	conn chan net.Conn
}

func (l lane) Accept() (net.Conn, error) {
	conn, ok := <-l.conn
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (l lane) Close() error   { close(l.conn); return nil }
func (l lane) Addr() net.Addr { return &net.TCPAddr{} }

func TestWhoIsSilentIsLeft(t *testing.T) {
	for name, test := range map[string]struct {
		send        string
		least, most time.Duration
	}{
		"from the start":            {"", 10 * time.Second, 10 * time.Second},
		"in the middle of a head":   {"POST /thi", 20 * time.Second, 20 * time.Second},
		"in the middle of a body":   {strings.TrimSuffix(post, "dy"), 40 * time.Second, 41 * time.Second},
		"in the middle of a second": {post + "POST", 20 * time.Second, 20 * time.Second},
		"after an answer":           {post, 2 * time.Minute, 4 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				front := &Front{Handler: echo("front"), Takes: ofThings, ReadTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
				inner := lane{make(chan net.Conn)}
				server := &http.Server{Handler: echo("net/http"), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second}
				go func() { _ = server.Serve(front.Listen(inner)) }()
				defer server.Close()
				here, there := net.Pipe()
				inner.conn <- there
				go func() { _, _ = io.WriteString(here, test.send) }()
				start := time.Now()
				if _, err := io.Copy(io.Discard, here); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); took < test.least || took > test.most {
					t.Errorf("the connection ended after %v, want %v to %v", took, test.least, test.most)
				}
			})
		})
	}
}

func TestAnAnswerIsThatOfNetHTTP(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"nothing":    func(http.ResponseWriter, *http.Request) {},
		"no content": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"a body":     func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "a", strings.Repeat("b", 1000)) },
		"a header in lines": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/a\r\nSet-Cookie: b")
			w.WriteHeader(http.StatusAccepted)
		},
		"strange headers": func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["no name"], w.Header()["Many"], w.Header()["Empty"] = []string{"a"}, []string{"a", " b\t", "\u00e9"}, []string{""}
		},
		"our own length": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1")
			fmt.Fprint(w, "a")
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/plain")
				h(w, r)
			})
			address, _ := house(t, h)
			theirs := httptest.NewServer(h)
			defer theirs.Close()
			got, want := ask(t, "http://"+address+"/things"), ask(t, theirs.URL+"/things")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the answer (-net/http +front):\n%s", diff)
			}
		})
	}
}

func TestTheDateFollowsTheClock(t *testing.T) {
	var r response
	start := time.Date(2026, 1, 31, 23, 59, 58, 999_999_999, time.FixedZone("", 3600))
	for _, passed := range []time.Duration{0, 1, 500 * time.Millisecond, time.Second, time.Hour, -time.Hour} {
		now := start.Add(passed)
		if text, want := string(r.text(now)), "\r\nDate: "+now.UTC().Format(http.TimeFormat)+"\r\n"; !strings.Contains(text, want) {
			t.Errorf("%v later: %q, want %q", passed, text, want)
		}
		r.reset()
	}
}

// ask returns what an answer says, less its date.
func ask(t *testing.T, url string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: false}}
	defer client.CloseIdleConnections()
	a, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	if _, err := http.ParseTime(a.Header.Get("Date")); err != nil {
		t.Error(err)
	}
	a.Header.Del("Date")
	var text bytes.Buffer
	if err := a.Write(&text); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// FuzzParse holds what is taken for plain against what net/http reads there.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		post, remove, post + remove, "POST /things HTTP/1.1\r\nHost: h\r\nKey:\r\n\r\n", "DELETE /things//. HTTP/1.1\r\nHost: [::1]:80\r\nkEy: \ta \r\n\r\n",
		"POST /things HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
		"POST /things HTTP/1.1\r\nHost: h\r\nKey: a\r\nKey: b\r\n\r\n", "POST /things HTTP/1.1\r\nKey: b\r\nHost: h\r\nContent-Length: 2\r\n\r\nab", "POST /things HTTP/1.1\r\nHost: h\r\n\r\n",
		"POST /things HTTP/1.1\r\nHost: h\r\nkey: a\r\nContent-Length: 4\r\nOther: c\r\n\r\nbody", "POST /things HTTP/1.1\r\nKey: a\r\nKey: a\r\nHost: h\r\n\r\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		text = text[:min(len(text), bufferSize)]
		var got request
		template := &http.Request{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
		if _, err := got.parse([]byte(post), template, ofThings); err != nil { // whose parts are used again
			t.Fatal(err)
		}
		size, err := got.parse(text, template, ofThings)
		if err != nil {
			if !errors.Is(err, errMore) && !errors.Is(err, errOther) {
				t.Fatalf("got %v", err)
			}
			return
		}
		in := bytes.NewReader(text)
		buffered := bufio.NewReader(in)
		want, err := http.ReadRequest(buffered)
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", text, err)
		}
		if diff := cmp.Diff(summary(t, want), summary(t, &got.Request)); diff != "" {
			t.Errorf("%q (-net/http +front):\n%s", text, diff)
		}
		if read := len(text) - in.Len() - buffered.Buffered(); read != size {
			t.Errorf("%q is %d bytes to net/http and %d to us", text, read, size)
		}
	})
}

func summary(t *testing.T, r *http.Request) map[string]any {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]any{
		"method": r.Method, "url": r.URL.String(), "uri": r.RequestURI, "host": r.Host, "header": r.Header, "length": r.ContentLength,
		"body": string(body), "close": r.Close, "proto": r.Proto,
	}
}
