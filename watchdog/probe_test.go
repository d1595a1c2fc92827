package watchdog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"greenroom/internal/ssh"
	"greenroom/lease"
	"greenroom/specs"
)

const otherHostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ"

// see checks one result against an outcome and a part of its detail.
func see(t *testing.T, what string, r Result, want Outcome, detail string) {
	t.Helper()
	if r.Outcome != want || !strings.Contains(r.Detail, detail) {
		t.Errorf("%s: %s, want %s and %q", what, r, want, detail)
	}
}

func TestProbesOfARealGuest(t *testing.T) {
	g, key, pid := spawn(t)
	p := newProber(key)
	ask := func(g lease.Guest, s specs.Probe) Result {
		if s.Timeout == 0 {
			s.Timeout = 10 * time.Second
		}
		return p.probe(t.Context(), g, s)
	}
	stranger, unpinned := g, g
	stranger.HostKey, unpinned.HostKey = otherHostKey, ""
	shell := func(script string) specs.Probe {
		return specs.Probe{Kind: "exec", Command: []string{"sh", "-c", script}}
	}
	see(t, "tcp", ask(g, specs.Probe{Kind: "tcp"}), OK, fmt.Sprintf("connected to 127.0.0.1:%d", g.Port))
	see(t, "tcp elsewhere", ask(g, specs.Probe{Kind: "tcp", Port: 1}), Failed, "refused")
	see(t, "ssh", ask(g, specs.Probe{Kind: "ssh"}), OK, "pinned host key")
	see(t, "another host key", ask(stranger, specs.Probe{Kind: "ssh"}), Failed, "host key differs")
	see(t, "no host key known", ask(unpinned, specs.Probe{Kind: "ssh"}), OK, "SSH-2.0")
	see(t, "exec", ask(g, shell(`test "it's" = it\'s`)), OK, "exit status 0")
	see(t, "exec that fails", ask(g, shell("echo disk full >&2; exit 4")), Failed, "exit status 4: disk full")
	hang := shell("exec sleep 600")
	hang.Timeout = 500 * time.Millisecond
	see(t, "exec that hangs", ask(g, hang), Failed, "sh did not end within 500ms")
	see(t, "exec with an endless output", ask(g, shell("yes | head -c 1000000; exit 1")), Failed, "exit status 1: y\ny")
	see(t, "unknown kind", ask(g, specs.Probe{Kind: "icmp"}), Unknown, "icmp")
	see(t, "exec without a key", newProber(nil).probe(t.Context(), g, specs.Probe{Kind: "exec", Timeout: time.Second}), Unknown, "no SSH key")

	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is dead", func() bool { return ask(g, specs.Probe{Kind: "tcp"}).Outcome == Failed })
	see(t, "ssh of a dead guest", ask(g, specs.Probe{Kind: "ssh"}), Failed, "refused")
	see(t, "exec on a dead guest", ask(g, shell("true")), Failed, "refused")
}

func TestAGuestThatAcceptsButSaysNothingFailsInTime(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	g := lease.Guest{Host: "127.0.0.1", Port: port(listener), HostKey: otherHostKey}
	r := newProber(nil).probe(t.Context(), g, specs.Probe{Kind: "ssh", Timeout: 100 * time.Millisecond})
	see(t, "ssh", r, Failed, ssh.ErrTimeout.Error())
}

func TestHTTPProbes(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.RawQuery) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/broken", http.StatusFound) })
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no database", http.StatusInternalServerError)
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat("x", 1<<16)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/silent", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	server := httptest.NewServer(mux)
	defer server.Close()
	probe := func(path string) Result {
		s := specs.Probe{Kind: "http", Port: port(server.Listener), Path: path, Timeout: 2 * time.Second}
		return newProber(nil).probe(t.Context(), lease.Guest{Host: "127.0.0.1", Port: 1}, s)
	}
	see(t, "2xx", probe("/ok?deep=1"), OK, "GET /ok: 200 OK")
	see(t, "3xx, which is not followed", probe("/moved"), OK, "302 Found")
	see(t, "5xx", probe("/broken"), Failed, `500 Internal Server Error (want 2xx or 3xx): "no database\n"`)
	see(t, "4xx", probe("/none"), Failed, "404 Not Found")
	see(t, "an endless body", probe("/endless"), OK, "200 OK")
	see(t, "no answer", probe("/silent"), Failed, "deadline exceeded")
}

func TestTroubleOfThisHostIsNotTheGuests(t *testing.T) {
	dial := func(err error) error {
		return fmt.Errorf("ssh: %w", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", err)})
	}
	for _, c := range []struct {
		err  error
		took time.Duration
		want Outcome
	}{
		{nil, 0, OK},
		{dial(syscall.ECONNREFUSED), 0, Failed},
		{dial(syscall.EHOSTUNREACH), 0, Failed},
		{dial(syscall.ECONNRESET), 0, Failed},
		{context.DeadlineExceeded, time.Second, Failed},
		{errors.New("garbage"), 0, Failed},
		{&net.DNSError{Err: "no such host", IsNotFound: true}, 0, Failed},
		{&net.DNSError{Err: "server misbehaving", IsTemporary: true}, 0, Unknown},
		{dial(syscall.EMFILE), 0, Unknown},
		{dial(syscall.ENFILE), 0, Unknown},
		{dial(syscall.ENETUNREACH), 0, Unknown},
		{dial(syscall.EADDRNOTAVAIL), 0, Unknown},
		{context.Canceled, 0, Unknown},
		{context.DeadlineExceeded, time.Minute, Unknown}, // this host stood still
		{nil, time.Minute, OK},
	} {
		if got := outcome(c.err, c.took, time.Second); got != c.want {
			t.Errorf("%v after %v is %s, want %s", c.err, c.took, got, c.want)
		}
	}
}

func TestProbeByHandSaysWhatEachProbeSaw(t *testing.T) {
	g, key, _ := spawn(t)
	p := poolOf(1)
	p.Probes = append(p.Probes, specs.Probe{Kind: "tcp", Port: 1, Every: time.Second, Timeout: time.Second, Failures: 1})
	p.Probes[0].Timeout = 10 * time.Second
	y := newYard(t, p)
	w, err := New(Options{Store: y.Store, Signer: key})
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.Probe(t.Context(), g)
	lines := strings.Split(got, "\n")
	if !errors.Is(err, errNotAlive) || len(lines) != 2 || !strings.HasPrefix(lines[0], "ssh probe ok after ") || !strings.HasPrefix(lines[1], "tcp probe failed after ") {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := w.Probe(t.Context(), lease.Guest{Name: "p-2", State: lease.Provisioning}); err == nil ||
		err.Error() != "guest p-2 has no address yet: it is provisioning" {
		t.Errorf("got %v", err)
	}
}

func TestTheWatchdogReplacesARealGuestThatWasKilled(t *testing.T) {
	g, key, pid := spawn(t)
	p := poolOf(3)
	p.Probes[0] = specs.Probe{Kind: "exec", Command: []string{"true"}, Every: 50 * time.Millisecond, Timeout: 10 * time.Second, Failures: 2}
	y := newYard(t, p)
	run(t, y, Options{Signer: key}, nil)
	y.boot("p", lease.Machine{Host: g.Host, Port: g.Port, User: g.User, HostKey: g.HostKey})
	eventually(t, "it is shelved", func() bool { return y.guest("p-1").State == lease.Shelved })
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is tainted", func() bool { return y.guest("p-1").State == lease.Tainted })
	if got := y.guest("p-1"); got.Reason != "dead" || !strings.Contains(got.Evidence, "exec probe failed") {
		t.Errorf("tainted for %q with evidence %q", got.Reason, got.Evidence)
	}
}
