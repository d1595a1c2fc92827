// Package leasetest gives tests a real store: the embedded one and a real redis-server of their own. There is no mock.
package leasetest

import (
	"context"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"greenroom/internal/embedded"
)

// Each runs a test once on every store that Greenroom supports.
func Each(t *testing.T, test func(t *testing.T, rdb redis.UniversalClient)) {
	t.Run("on the embedded store", func(t *testing.T) { test(t, Embedded(t)) })
	t.Run("on a real Redis", func(t *testing.T) { test(t, Redis(t).Client) })
}

// Embedded opens an embedded store in a directory of the test.
func Embedded(t testing.TB) redis.UniversalClient {
	t.Helper()
	store, err := embedded.Open(embedded.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatalf("open the embedded store: %v", err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Errorf("close the embedded store: %v", err)
		}
	})
	return store.Client()
}

// Server is a redis-server that the test owns.
type Server struct {
	Socket string
	URL    string // as in GREENROOM_REDIS_URL
	Client redis.UniversalClient

	t   testing.TB
	dir string
	cmd *exec.Cmd
}

// Redis starts a redis-server on a socket in a directory of the test; a machine without one fails the test.
func Redis(t testing.TB) *Server {
	t.Helper()
	dir := t.TempDir()
	s := &Server{t: t, dir: dir, Socket: filepath.Join(dir, "r.sock")}
	s.URL = "unix://" + s.Socket
	s.Client = redis.NewClient(&redis.Options{Network: "unix", Addr: s.Socket})
	s.Start()
	t.Cleanup(func() {
		if err := s.Client.Close(); err != nil {
			t.Errorf("close the client: %v", err)
		}
		s.Stop(syscall.SIGTERM)
	})
	return s
}

// Start starts the server, again after a Stop: what it had written to its append-only file is there.
func (s *Server) Start() {
	s.t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		s.t.Fatalf("redis-server is missing (apt-get install redis-server): %v", err)
	}
	s.cmd = exec.Command(path, "--port", "0", "--unixsocket", s.Socket, "--dir", s.dir, "--appendonly", "yes", "--save", "")
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("start redis-server: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
		if s.Client.Ping(ctx).Err() == nil {
			return
		}
		if ctx.Err() != nil {
			s.t.Fatalf("redis-server does not answer on %s", s.Socket)
		}
	}
}

// Stop ends the server with a signal and waits for its end.
func (s *Server) Stop(sig syscall.Signal) {
	if s.cmd == nil {
		return
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Errorf("stop redis-server: %v", err)
	}
	_ = s.cmd.Wait() // its exit status after a signal says nothing
	s.cmd = nil
}
