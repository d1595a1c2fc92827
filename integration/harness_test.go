// Package integration tests Greenroom from end to end as its users meet it: the built binary, real Terraform, real guests, a
// real Redis. Nothing here reaches into the server; what a test wants to know it asks the API, the command line or the kernel.
package integration

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/gitops"
)

// patience is how long a test waits for anything; a machine that is slow gets the time it needs.
const patience = 2 * time.Minute

// The binary under test, and the same built with the race detector; TestMain builds them.
var plain, raced string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "gr-bin-")
	if err != nil {
		log.Fatal(err)
	}
	plain, raced = filepath.Join(dir, "greenroom"), filepath.Join(dir, "greenroom-race")
	build(plain, "CGO_ENABLED=0", "-trimpath") // as the Makefile does, so that both share what is compiled
	build(raced, "CGO_ENABLED=1", "-race")
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

func build(path, env, flag string) {
	cmd := exec.Command("go", "build", flag, "-o", path, "greenroom/cmd/greenroom")
	cmd.Env = append(os.Environ(), env)
	if out, err := cmd.CombinedOutput(); err != nil {
		log.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
}

// options of a house; the zero value is the embedded default.
type options struct {
	raced  bool     // run the server with the race detector
	redis  string   // URL; empty: the embedded store
	source string   // of the specs, instead of the house's own directory
	args   []string // more flags of serve
	env    []string // more of the server's environment
	dir    string   // instead of a temporary one
}

// house is one server with its directories and what lives in them.
type house struct {
	*testing.T
	options
	api      *client.Client // over the socket; tries again while the server is away
	revision string         // that the specs have now
	pools    int            // in it
	server   *server
}

// newHouse makes an empty house. At the end of the test every guest in it is retired, and nothing of it may be left.
func newHouse(t *testing.T, o options) *house {
	t.Helper()
	h := &house{T: t, options: o}
	if h.dir == "" {
		h.dir = must(os.MkdirTemp("", "gr-"))(t) //nolint:usetesting // a test's name would make the socket's path too long
	}
	h.dir = must(filepath.EvalSymlinks(h.dir))(t)
	noError(t, os.MkdirAll(h.path("specs"), 0o700))
	h.api = must(client.New(client.Options{Addr: h.path("state/greenroom.sock"), Retry: patience}))(t)
	t.Cleanup(h.close)
	return h
}

func (h *house) path(name string) string { return filepath.Join(h.dir, name) }

// must unwraps a result that a test cannot go on without.
func must[V any](v V, err error) func(testing.TB) V {
	return func(t testing.TB) V {
		t.Helper()
		noError(t, err)
		return v
	}
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// part runs a part of the test as a test of its own, in which the house speaks.
func (h *house) part(name string, do func(t *testing.T)) {
	h.Helper()
	whole := h.T
	ok := whole.Run(name, func(t *testing.T) {
		h.T = t
		defer func() { h.T = whole }()
		do(t)
	})
	if !ok {
		whole.FailNow() // the next part begins where this one should have ended
	}
}

// until waits until ok returns nil.
func (h *house) until(what string, ok func() error) {
	h.Helper()
	if err := eventually(patience, ok); err != nil {
		h.Fatalf("waited %v until %s: %v", patience, what, err)
	}
}

func eventually(limit time.Duration, ok func() error) error {
	deadline := time.After(limit)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-deadline:
			return err
		case <-tick.C:
		}
	}
}

// server is one process of greenroom serve.
type server struct {
	cmd   *exec.Cmd
	log   logbook
	ended chan struct{}
	err   error // after ended
}

// logbook is what a process has written, and how to wait for more.
type logbook struct {
	mu    sync.Mutex
	text  bytes.Buffer
	lines int
	grown chan struct{} // closed at the next line
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines += bytes.Count(p, []byte("\n"))
	if l.grown != nil {
		close(l.grown)
		l.grown = nil
	}
	return l.text.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// more waits for n more lines, or for a time.
func (l *logbook) more(n int, limit time.Duration) {
	deadline := time.After(limit)
	for start := -1; ; {
		l.mu.Lock()
		if start < 0 {
			start = l.lines
		}
		if l.grown == nil {
			l.grown = make(chan struct{})
		}
		enough, grown := l.lines-start >= n, l.grown
		l.mu.Unlock()
		if enough {
			return
		}
		select {
		case <-grown:
		case <-deadline:
			return
		}
	}
}

// launch starts a server without waiting for it to serve.
func (h *house) launch() *server {
	h.Helper()
	specs := cmp.Or(h.source, h.path("specs"))
	args := append([]string{"serve", "--state-dir", h.path("state"), "--specs", specs, "--listen", "127.0.0.1:0"}, h.args...)
	s := &server{cmd: exec.Command(h.binary(), args...), ended: make(chan struct{})}
	s.cmd.Env = append(h.environ(), h.env...)
	s.cmd.Stderr = &s.log
	noError(h, s.cmd.Start())
	go func() {
		s.err = s.cmd.Wait()
		close(s.ended)
	}()
	return s
}

// environ is a user's, with no trace of another Greenroom.
func (h *house) environ() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "GREENROOM_") || strings.HasPrefix(v, "TF_")
	})
	env = append(env, "GREENROOM_STATE_DIR="+h.path("state"), "GORACE=atexit_sleep_ms=0", "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull)
	if h.redis != "" {
		env = append(env, "GREENROOM_REDIS_URL="+h.redis)
	}
	return env
}

// binary is what the server is started from. Only the server is to run with the race detector, which would slow down the many
// short processes that it starts: they come from the file that takes the binary's place in start.
func (h *house) binary() string {
	if !h.raced {
		return plain
	}
	noError(h, relink(raced, h.path("greenroom")))
	return h.path("greenroom")
}

func relink(from, to string) error {
	return errors.Join(os.Link(from, to+".new"), os.Rename(to+".new", to))
}

// start starts the server and waits until it answers.
func (h *house) start() {
	h.Helper()
	h.server = h.launch()
	h.until("the server answers", func() error {
		select {
		case <-h.server.ended:
			h.Fatalf("the server ended: %v\n%s", h.server.err, &h.server.log)
		default:
		}
		status, _, err := h.get("/healthz")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("status %d", status)
		}
		return err
	})
	if h.raced {
		noError(h, relink(plain, h.path("greenroom")))
	}
}

// signal sends a signal to the server and waits for its end.
func (h *house) signal(sig syscall.Signal) *server {
	h.Helper()
	s := h.server
	noError(h, s.cmd.Process.Signal(sig))
	select {
	case <-s.ended:
	case <-time.After(patience):
		h.Fatalf("the server does not end after %v\n%s", sig, &s.log)
	}
	h.server = nil
	h.examine(s)
	return s
}

// kill ends the server as a crash would.
func (h *house) kill() { h.Helper(); h.signal(syscall.SIGKILL) }

// stop ends the server as an operator would.
func (h *house) stop() {
	h.Helper()
	if s := h.signal(syscall.SIGTERM); s.err != nil {
		h.Errorf("the server ended with %v\n%s", s.err, &s.log)
	}
}

// examine looks through a server's log for what must never be there.
func (h *house) examine(s *server) {
	h.Helper()
	text := s.log.String()
	for _, bad := range []string{"DATA RACE", "panic:", "goroutine 1 ["} {
		if i := strings.Index(text, bad); i >= 0 {
			h.Errorf("the server's log: %s", text[i:min(len(text), i+6000)])
		}
	}
}

// addr is where the server listens.
func (h *house) addr() string {
	h.Helper()
	_, rest, _ := strings.Cut(h.server.log.String(), " addr=")
	addr, _, found := strings.Cut(rest, " ")
	if !found {
		h.Fatalf("the server does not say where it listens:\n%s", &h.server.log)
	}
	return addr
}

// overSocket is an HTTP client of the server's socket.
func (h *house) overSocket() *http.Client {
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", h.path("state/greenroom.sock"))
		},
	}}
}

func (h *house) get(path string) (status int, body string, err error) {
	resp, err := h.overSocket().Get("http://greenroom" + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// metric sums the series that begin with a name and some labels, as in `greenroom_guests{pool="local"`.
func (h *house) metric(series string) (sum float64) {
	h.Helper()
	_, text, err := h.get("/metrics")
	noError(h, err)
	found := false
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, series); ok && (strings.ContainsAny(series, "{") || rest[0] == ' ') {
			found = true
			sum += must(strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' '):]), 64))(h)
		}
	}
	if !found {
		h.Fatalf("/metrics has no %s", series)
	}
	return sum
}

// command runs the binary as its user would.
func (h *house) command(args ...string) *exec.Cmd {
	cmd := exec.Command(plain, args...)
	cmd.Env = h.environ()
	cmd.Dir = h.dir
	return cmd
}

// cli runs a command to its end.
func (h *house) cli(args ...string) (stdout, stderr string, code int) {
	h.Helper()
	var out, errs bytes.Buffer
	cmd := h.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	noError(h, cmd.Start())
	late := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer late.Stop()
	code = exitCode(h, cmd.Wait())
	return out.String(), errs.String(), code
}

func exitCode(t testing.TB, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	t.Fatal(err)
	return -1
}

// fleet is a spec of one local pool and one cache of it.
type fleet struct {
	max, warm, size int
	pool, cache     string // more lines of the blocks
}

func (f fleet) String() string {
	return fmt.Sprintf(`
pool "local" {
  module = "local"
  max    = %d
%s
}

cache "ci" {
  owner = "platform"
  pools = [pool.local]
  warm  = %d
  size  = %d
%s
}
`, f.max, f.pool, f.warm, f.size, f.cache)
}

// write puts specs in place, as a commit would.
func (h *house) write(spec fmt.Stringer) {
	h.Helper()
	h.writeText(spec.String())
	h.reread()
}

// reread learns which revision the specs have now, their modules included.
func (h *house) reread() {
	h.Helper()
	r := gitops.Load(h.path("specs"))
	if r.Fault != nil {
		h.Fatal(r.Fault)
	}
	h.revision, h.pools = r.Fleet.Revision, len(r.Fleet.Pools)
}

func (h *house) writeText(spec string) {
	h.Helper()
	noError(h, os.WriteFile(h.path("fleet.new"), []byte(spec), 0o600))
	noError(h, os.Rename(h.path("fleet.new"), h.path("specs/fleet.hcl")))
}

// converged waits until everything that the specs want is there.
func (h *house) converged() client.Status {
	h.Helper()
	var st client.Status
	h.until("the fleet has converged", func() (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if st, err = h.api.Status(ctx); err != nil {
			return err
		}
		return h.settled(st)
	})
	return st
}

func (h *house) settled(st client.Status) error {
	if st.Revision != h.revision {
		return fmt.Errorf("revision %q is in force, want %q; %+v", st.Revision, h.revision, st.Conditions)
	}
	if len(st.Pools) != h.pools { // none is known before the first pass
		return fmt.Errorf("%d pools, want %d", len(st.Pools), h.pools)
	}
	for _, p := range st.Pools {
		if c := condition.Of(p.Conditions, condition.Ready); !c.Status || c.Revision != h.revision {
			return fmt.Errorf("pool %s: %+v, guests %v", p.Pool, p.Conditions, p.Guests)
		}
		for state, n := range p.Guests { // newer than the conditions, which the last pass has left
			if n > 0 && state != lease.Shelved && state != lease.Leased && state != lease.Held {
				return fmt.Errorf("pool %s: %d guests are %s", p.Pool, n, state)
			}
		}
		for _, s := range p.Shards {
			if s.Run != "" {
				return fmt.Errorf("shard %s: run %s", s.Shard, s.Run)
			}
		}
	}
	return nil
}

// guests are those on record, by name.
func (h *house) guests() map[string]lease.Guest {
	h.Helper()
	out := map[string]lease.Guest{}
	for _, g := range must(h.api.Guests(h.Context(), ""))(h) {
		out[g.Name] = g
	}
	return out
}

// in waits until a guest is in a state, of an incarnation.
func (h *house) in(name string, incarnation int, state lease.State) lease.Guest {
	h.Helper()
	var g lease.Guest
	h.until(fmt.Sprintf("%s.%d is %s", name, incarnation, state), func() (err error) {
		g, err = h.api.Guest(h.Context(), name)
		if err == nil && (g.State != state || g.Incarnation != incarnation) {
			err = fmt.Errorf("it is %s.%d, %s", g.Name, g.Incarnation, g.State)
		}
		return err
	})
	return g
}

// shelved waits until n guests are on the shelf of cache ci. What was done a moment ago the conditions do not show yet.
func (h *house) shelved(n int) {
	h.Helper()
	h.until(fmt.Sprintf("%d guests are shelved", n), func() error {
		c, err := h.api.Cache(h.Context(), "ci")
		if err == nil && c.Guests[lease.Shelved] != n {
			err = fmt.Errorf("the guests are %v", c.Guests)
		}
		return err
	})
}

// acquire leases a guest of cache ci.
func (h *house) acquire() client.Lease {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), patience)
	defer cancel()
	return must(h.api.Acquire(ctx, client.Request{Cache: "ci"}, nil))(h)
}

func (h *house) release(id string) {
	h.Helper()
	must(h.api.Release(h.Context(), id, client.Release{}))(h)
}
