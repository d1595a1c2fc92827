package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/lease/leasetest"
)

// started is a whole server on a free port, without specs and without Terraform: leases are served all the same.
type started struct {
	*Server
	dir  string
	stop func() error
}

func startServer(t *testing.T, o Options) started {
	t.Helper()
	o.Listen, o.Log, o.Terraform.Binary = "127.0.0.1:0", slog.New(slog.DiscardHandler), filepath.Join(t.TempDir(), "no-terraform")
	if o.StateDir == "" {
		o.StateDir = t.TempDir()
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop := func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return started{s, o.StateDir, stop}
}

func (s started) client(t *testing.T, o client.Options) *client.Client {
	t.Helper()
	c, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func (s started) socket() string { return filepath.Join(s.dir, "greenroom.sock") }

func TestTheSocketKnowsItsUserAndTCPAsksForAToken(t *testing.T) {
	s := startServer(t, Options{})
	if info, err := os.Stat(s.socket()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info, err)
	}
	if _, err := s.client(t, client.Options{Addr: s.socket()}).Tokens(t.Context()); err != nil {
		t.Errorf("on the socket: %v", err)
	}
	if _, err := s.client(t, client.Options{Addr: s.socket(), Token: "gr_FOREIGN"}).Tokens(t.Context()); code(err) != "unauthorized" {
		t.Errorf("on the socket with a foreign token: %v", err)
	}
	address := "http://" + s.Addr().String()
	if _, err := s.client(t, client.Options{Addr: address}).Tokens(t.Context()); code(err) != "unauthorized" {
		t.Errorf("over TCP without a token: %v", err)
	}
	secret, err := os.ReadFile(filepath.Join(s.dir, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	if list, err := s.client(t, client.Options{Addr: address, Token: strings.TrimSpace(string(secret))}).Tokens(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("over TCP with the admin's token: %v, %v", list, err)
	}
}

func code(err error) string {
	if e, ok := errors.AsType[*client.Error](err); ok {
		return e.Code
	}
	return fmt.Sprint(err)
}

func TestASecondServerOnAStateDirectoryRefusesAndNamesTheFirst(t *testing.T) {
	s := startServer(t, Options{})
	_, err := New(Options{StateDir: s.dir, Listen: "127.0.0.1:0"})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) || !strings.Contains(err.Error(), "another directory") {
		t.Fatalf("the second server: %v", err)
	}
	if _, err := s.client(t, client.Options{Addr: s.socket()}).Tokens(t.Context()); err != nil {
		t.Errorf("the first server afterwards: %v", err)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	startServer(t, Options{StateDir: s.dir})
}

func TestAnEndAnswersLongPollsAndFreesTheAddress(t *testing.T) {
	s := startServer(t, Options{})
	await(t, func() bool { return s.parts.Outage() == nil })
	if err := errors.Join(s.parts.Store.Open(t.Context()), s.parts.Store.Adopt(t.Context(), testFleet())); err != nil {
		t.Fatal(err)
	}
	c := s.client(t, client.Options{Addr: s.socket(), Retry: -1})
	l, err := c.Request(t.Context(), client.Request{Cache: "ci"})
	if err != nil || l.Phase != lease.Queued {
		t.Fatalf("%+v, %v", l, err)
	}
	polled := s.poll(t, "/v1/leases/"+l.ID+"?wait=1m")
	if err := s.stop(); err != nil {
		t.Errorf("the end: %v", err)
	}
	if status := <-polled; status != "200 OK" {
		t.Errorf("the long poll: %s", status)
	}
	if conn, err := net.Dial("tcp", s.Addr().String()); err == nil {
		conn.Close()
		t.Error("the address still answers")
	}
}

// poll makes a call and returns once the server is at it: the server asks for the body then (RFC 9110 section 10.1.1).
func (s started) poll(t *testing.T, path string) <-chan string {
	t.Helper()
	begun, done := make(chan struct{}), make(chan string, 1)
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { close(begun) }})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://greenroom"+path, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Expect": {"100-continue"}, "Content-Type": {"application/json"}}
	transport := &http.Transport{ExpectContinueTimeout: time.Minute, DisableKeepAlives: true}
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", s.socket())
	}
	go func() {
		resp, err := transport.RoundTrip(req)
		if err != nil {
			done <- err.Error()
			return
		}
		resp.Body.Close()
		done <- resp.Status
	}()
	<-begun
	return done
}

func TestARedisThatIsAwayAtTheStartComesIntoUseByItself(t *testing.T) {
	redis := leasetest.Redis(t)
	redis.Stop(syscall.SIGTERM)
	s := startServer(t, Options{RedisURL: redis.URL})
	c := s.client(t, client.Options{Addr: s.socket(), Retry: -1})
	_, err := c.Leases(t.Context(), "")
	var e *client.Error
	if !errors.Is(err, lease.ErrUnavailable) || !errors.As(err, &e) || e.RetryAfter <= 0 {
		t.Fatalf("while Redis is away: %v", err)
	}
	redis.Start()
	await(t, func() bool {
		_, err := c.Leases(t.Context(), "")
		return err == nil
	})
	redis.Stop(syscall.SIGKILL)
	await(t, func() bool {
		_, err := c.Leases(t.Context(), "")
		return errors.Is(err, lease.ErrUnavailable)
	})
	redis.Start()
	await(t, func() bool {
		_, err := c.Leases(t.Context(), "")
		return err == nil
	})
}

func TestAStateDirectoryThatIsTooDeepForASocketIsRefused(t *testing.T) {
	_, err := New(Options{StateDir: filepath.Join(t.TempDir(), strings.Repeat("x", 100)), Listen: "127.0.0.1:0"})
	if err == nil || !strings.Contains(err.Error(), "shorter state directory") {
		t.Errorf("New: %v", err)
	}
}

func TestASecretOfWebhooksThatCanBeGuessedStopsTheStart(t *testing.T) {
	_, err := New(Options{StateDir: t.TempDir(), Listen: "127.0.0.1:0", Specs: t.TempDir(), HookSecret: []byte("hunter2")})
	if err == nil || !strings.Contains(err.Error(), "the secret of the webhooks has 7 bytes") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("New: %v", err)
	}
}

func TestARedisURLIsNotShownWhenItIsWrong(t *testing.T) {
	for _, text := range []string{"redis://user:hunter2@[", "http://user:hunter2@host", "redis://user:hunter2@host/x"} {
		_, err := New(Options{StateDir: t.TempDir(), RedisURL: text})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestDamagedSecretsStopTheStartAndAreLeftAlone(t *testing.T) {
	for name, text := range map[string]string{"tokens.json": "{", "lease.key": "short", "authority": "no key"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Options{StateDir: dir, Listen: "127.0.0.1:0"}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if body, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(body) != text {
			t.Errorf("%s is now %q, %v", name, body, err)
		}
	}
}

// await asks until it is so; a test whose wish never comes true fails.
func await(t *testing.T, so func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(30 * time.Second); !so(); {
		select {
		case <-end:
			t.Fatal("it did not come true in 30s")
		case <-tick.C:
		}
	}
}
