package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"greenroom/internal/server"
	"greenroom/internal/ssh"
	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/lease/leasetest"
	"greenroom/specs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is the real API on a real store, over a network that can be cut.
type house struct {
	store  *lease.Store
	client *client.Client
	cut    atomic.Bool
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{store: lease.New(leasetest.Embedded(t), lease.Options{})}
	fleet := &specs.Fleet{
		Revision: "test-1",
		Pools:    []*specs.Pool{{Name: "local", Module: "local", Max: 1, ShardSize: 25}},
		Caches: []*specs.Cache{{
			Name: "ci", Pools: []string{"local"}, Size: 1, Max: 1, Enabled: true, Lease: specs.Lease{TTL: time.Second, Max: time.Hour},
		}},
	}
	tokens, err := server.OpenTokens(t.TempDir(), time.Now)
	must(t, err)
	made, err := tokens.Create(client.NewToken{Name: "jenkins", Owner: "platform", Role: lease.User})
	must(t, err)
	key, _, err := ssh.NewEphemeral()
	must(t, err)
	must(t, h.store.Sweep(t.Context()))
	must(t, h.store.Open(t.Context()))
	must(t, h.store.Adopt(t.Context(), fleet))
	api := server.Handler(server.Parts{Store: h.store, Tokens: tokens, Log: slog.New(slog.DiscardHandler), Authority: ssh.Authority{Key: key}})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.cut.Load() {
			panic(http.ErrAbortHandler)
		}
		api.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	h.client, err = client.New(client.Options{Addr: web.URL, Token: made.Secret})
	must(t, err)
	t.Cleanup(h.client.Close)
	h.shelve(t)
	return h
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *house) shelve(t *testing.T) {
	t.Helper()
	ctx, fleet := t.Context(), h.store.Fleet()
	g, err := h.store.Plan(ctx, fleet.Pools[0], fleet.Caches[0], "local-a", "digest", false)
	must(t, err)
	g, err = h.store.Claim(ctx, g, lease.Provisioning, "run", "", 0)
	must(t, err)
	g, err = h.store.Publish(ctx, g, "run", 1, lease.Machine{ID: "1", Host: "127.0.0.1", Port: 22, User: "root", HostKey: "ssh-ed25519 AAAA"})
	must(t, err)
	_, err = h.store.Booted(ctx, g)
	must(t, err)
}

// voices collects what a holder is told.
type voices struct {
	mu    sync.Mutex
	lines []string
}

func (v *voices) loud(line string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lines = append(v.lines, line)
}

func (v *voices) String() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return strings.Join(v.lines, "\n")
}

func TestASessionKeepsItsLeaseAndGivesItBack(t *testing.T) {
	h := newHouse(t)
	files, key, err := NewFiles()
	must(t, err)
	renewed := make(chan client.Lease, 100)
	s, err := Open(t.Context(), h.client, Options{Request: client.Request{Cache: "ci"}, Key: key, Renewed: func(l client.Lease) { renewed <- l }})
	must(t, err)
	must(t, files.Write(s.Lease()))
	before, err := os.ReadFile(files.path("key-cert.pub"))
	must(t, err)
	next := <-renewed
	must(t, files.Certify(next))
	after, err := os.ReadFile(files.path("key-cert.pub"))
	must(t, err)
	if !next.Deadline.After(s.Lease().Granted) || bytes.Equal(before, after) || s.Lease().Deadline.Before(next.Deadline) {
		t.Errorf("renewed until %s; the certificate is the same: %v", next.Deadline, bytes.Equal(before, after))
	}
	must(t, s.Close(t.Context(), client.Release{Outcome: "pass"}))
	ended, err := h.client.Lease(t.Context(), next.ID)
	if err != nil || ended.How != lease.Released || ended.Outcome != "pass" {
		t.Errorf("ended: %+v, %v", ended, err)
	}
	must(t, files.Remove())
	if _, err := os.Stat(files.dir); !os.IsNotExist(err) {
		t.Errorf("the files are still there: %v", err)
	}
}

func TestASessionThatIsAttachedLeavesTheLeaseToItsHolder(t *testing.T) {
	h := newHouse(t)
	l, err := h.client.Acquire(t.Context(), client.Request{Cache: "ci"}, nil)
	must(t, err)
	s, err := Attach(t.Context(), h.client, l.ID, Options{})
	must(t, err)
	if s.Lease().Certificate == "" || !s.Attached() {
		t.Errorf("certificate %q, attached %t", s.Lease().Certificate, s.Attached())
	}
	must(t, s.Close(t.Context(), client.Release{}))
	if l, err = h.client.Lease(t.Context(), l.ID); err != nil || l.Phase != lease.Active {
		t.Errorf("afterwards: %+v, %v", l, err)
	}
}

func TestAHeartbeatThatFailsIsLoudAndALostLeaseEndsTheCommand(t *testing.T) {
	h := newHouse(t)
	var told voices
	s, err := Open(t.Context(), h.client, Options{Request: client.Request{Cache: "ci"}, Loud: told.loud})
	must(t, err)
	h.cut.Store(true)
	code, err := Command(exec.Command("sh", "-c", `trap 'exit 9' TERM; while :; do sleep 0.05; done`), s.Lost())
	if code != 9 || err != nil {
		t.Errorf("the command ended with %d, %v", code, err)
	}
	text := told.String()
	if !strings.Contains(text, "; it is tried again; while nobody answers, the lease ends at ") || !strings.Contains(text, "may be somebody else's now") || strings.Count(text, "\n") != 1 {
		t.Errorf("told: %s", text)
	}
	must(t, s.Close(t.Context(), client.Release{}))
}

func TestAHeartbeatThatComesBackIsToldToo(t *testing.T) {
	h := newHouse(t)
	told := make(chan string, 100)
	s, err := Open(t.Context(), h.client, Options{Request: client.Request{Cache: "ci"}, Loud: func(line string) { told <- line }})
	must(t, err)
	h.cut.Store(true)
	if line := <-told; !strings.Contains(line, " failed: ") {
		t.Errorf("told first: %s", line)
	}
	h.cut.Store(false)
	if line, want := <-told, "the heartbeat of lease "+s.Lease().ID+" is back"; line != want {
		t.Errorf("told then: %s, want %s", line, want)
	}
	must(t, s.Close(t.Context(), client.Release{}))
}

func TestAnIllGuestIsToldOnce(t *testing.T) {
	h := newHouse(t)
	var told voices
	renewed := make(chan client.Lease, 100)
	s, err := Open(t.Context(), h.client, Options{Request: client.Request{Cache: "ci"}, Loud: told.loud, Renewed: func(l client.Lease) { renewed <- l }})
	must(t, err)
	g, err := h.store.Guest(t.Context(), s.Lease().Guest.Name)
	must(t, err)
	must(t, h.store.SetHealth(t.Context(), g, "no answer on port 22"))
	for seen := 0; seen < 2; {
		if l := <-renewed; l.Guest.Health != "" {
			seen++
		}
	}
	must(t, s.Close(t.Context(), client.Release{}))
	if text := told.String(); text != "guest local-1 looks ill: no answer on port 22" {
		t.Errorf("told: %s", text)
	}
}

func TestAReleaseThatFailsSaysWhenTheLeaseEnds(t *testing.T) {
	h := newHouse(t)
	s, err := Open(t.Context(), h.client, Options{Request: client.Request{Cache: "ci"}})
	must(t, err)
	h.cut.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // the caller's own end must not stop the release from being tried
	h.client, err = client.New(client.Options{Addr: "http://127.0.0.1:1", Retry: -1})
	must(t, err)
	s.client = h.client
	if err := s.Close(ctx, client.Release{}); err == nil || !strings.Contains(err.Error(), "ends by itself at") {
		t.Errorf("close: %v", err)
	}
}

func TestTheFilesAreForTheirOwnerOnly(t *testing.T) {
	files, _, err := NewFiles()
	must(t, err)
	l := client.Lease{ID: "ci.X", Certificate: "cert", Guest: &client.Guest{Name: "local-1", Host: "127.0.0.1", Port: 2222, User: "root", HostKey: "ssh-ed25519 AAAA"}}
	must(t, files.Write(l))
	entries, err := os.ReadDir(files.dir)
	must(t, err)
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", e.Name(), info.Mode(), err)
		}
	}
	if got := strings.Join(names, " "); got != "config key key-cert.pub known_hosts" {
		t.Errorf("files: %s", got)
	}
	if info, err := os.Stat(files.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	known, err := os.ReadFile(files.path("known_hosts"))
	must(t, err)
	if string(known) != "local-1 ssh-ed25519 AAAA\n" {
		t.Errorf("known hosts: %s", known)
	}
	environ := strings.Join(files.Environ(l), " ")
	for _, want := range []string{"GREENROOM_HOST=127.0.0.1", "GREENROOM_PORT=2222", "GREENROOM_USER=root", "GREENROOM_GUEST=local-1", "GREENROOM_LEASE=ci.X"} {
		if !strings.Contains(environ, want) {
			t.Errorf("the environment lacks %s: %s", want, environ)
		}
	}
	must(t, files.Remove())
}

func TestACommandPassesItsCodeOn(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 3": 3, "kill -KILL $$": 128 + int(syscall.SIGKILL), "kill -TERM $$": 128 + int(syscall.SIGTERM)} {
		if code, err := Command(exec.Command("sh", "-c", script), nil); code != want || err != nil {
			t.Errorf("%s: %d, %v, want %d", script, code, err, want)
		}
	}
	if _, err := Command(exec.Command(filepath.Join(t.TempDir(), "missing")), nil); err == nil {
		t.Error("a command that is missing was run")
	}
}

func TestACommandThatOutlivesALostLeaseIsKilledWithItsGroup(t *testing.T) {
	lost := make(chan struct{})
	close(lost)
	read, write, err := os.Pipe()
	must(t, err)
	defer read.Close()
	cmd := exec.Command("sh", "-c", `trap '' TERM; sleep 600 & wait`)
	cmd.Stdout, cmd.SysProcAttr = write, &syscall.SysProcAttr{Setpgid: true}
	if code, err := command(cmd, lost, 10*time.Millisecond); code == 0 || err != nil {
		t.Errorf("the command ended with %d, %v", code, err)
	}
	must(t, write.Close())
	must(t, read.SetReadDeadline(time.Now().Add(30*time.Second)))
	if _, err := read.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a child of the command still has the pipe: %v", err)
	}
}

func TestASignalThatWouldEndThisProcessReachesTheCommand(t *testing.T) {
	heard := make(chan os.Signal, 2) // also where the tests were started by nohup
	signal.Notify(heard, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(heard)
	for name, sig := range map[string]syscall.Signal{"HUP": syscall.SIGHUP, "QUIT": syscall.SIGQUIT} {
		if sig == syscall.SIGQUIT && foreground() {
			continue // a terminal, and not Command, would send it to the command
		}
		read, write, err := os.Pipe()
		must(t, err)
		defer read.Close()
		cmd := exec.Command("sh", "-c", `trap 'exit 7' `+name+`; echo; while :; do sleep 0.05; done`)
		cmd.Stdout = write
		go func() {
			_, _ = read.Read(make([]byte, 1))
			_ = syscall.Kill(os.Getpid(), sig)
		}()
		if code, err := Command(cmd, nil); code != 7 || err != nil {
			t.Errorf("the command ended with %d, %v", code, err)
		}
		must(t, write.Close())
	}
}
