package prepare

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"greenroom/internal/guestd"
	"greenroom/internal/ssh"
	"greenroom/lease"
	"greenroom/specs"
)

var caller = lease.Caller{Name: "job", Role: lease.User}

func TestAPreparedGuestIsShelvedAndKnowsWhoItIs(t *testing.T) {
	y := newYard(t, specs.Cache{Prepare: shell(`echo "$GREENROOM_GUEST $GREENROOM_CACHE $GREENROOM_POOL" > who`)})
	y.spawn()
	y.run(Options{})
	y.boot("ci", y.machine())
	y.awaits(lease.Shelved)
	if got := y.read("who"); got != "p-1 ci p\n" {
		t.Errorf("the script saw %q", got)
	}
}

func TestGuestsThatWaitedBeforeTheStartAreServed(t *testing.T) {
	y := newYard(t, specs.Cache{Prepare: shell("exit 0")})
	y.spawn()
	y.boot("ci", y.machine())
	y.run(Options{})
	y.awaits(lease.Shelved)
}

func TestAFailedScriptTaintsWithTheEndOfItsOutput(t *testing.T) {
	y := newYard(t, specs.Cache{Prepare: shell("seq 5000; echo 'no space left' >&2; exit 3")})
	y.spawn()
	y.run(Options{})
	y.boot("ci", y.machine())
	g := y.awaits(lease.Tainted)
	if g.Reason != "prepare_failed" || !strings.Contains(g.Evidence, "scripts/x.sh ended with exit status 3") ||
		!strings.HasSuffix(g.Evidence, "5000\nno space left\n") {
		t.Errorf("tainted for %q with evidence %q", g.Reason, g.Evidence)
	}
}

func TestAScriptPastItsDeadlineTaints(t *testing.T) {
	y := newYard(t, specs.Cache{Prepare: shell("echo begun; exec sleep 600")})
	y.spawn()
	y.run(Options{Prepare: 500 * time.Millisecond})
	y.boot("ci", y.machine())
	g := y.awaits(lease.Tainted)
	if g.Reason != "prepare_failed" || !strings.Contains(g.Evidence, "did not end within 500ms") || !strings.Contains(g.Evidence, "begun") {
		t.Errorf("tainted for %q with evidence %q", g.Reason, g.Evidence)
	}
}

func TestAGuestThatCannotBeReachedTaints(t *testing.T) {
	y := newYard(t, specs.Cache{Prepare: shell("exit 0")})
	y.spawn()
	gone := y.machine()
	gone.Port = 1
	y.run(Options{Reach: 300 * time.Millisecond})
	y.boot("ci", gone)
	if g := y.awaits(lease.Tainted); !strings.Contains(g.Evidence, "could not be reached for 300ms") || !strings.Contains(g.Evidence, "refused") {
		t.Errorf("evidence %q", g.Evidence)
	}
}

// silent is an address that takes connections and never says a word. taken counts them.
func (y *yard) silent() (port int, taken *atomic.Int32) {
	y.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	y.must(err)
	taken = new(atomic.Int32)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			taken.Add(1)
		}
	})
	y.t.Cleanup(func() { _ = listener.Close(); all.Wait() })
	return listener.Addr().(*net.TCPAddr).Port, taken
}

func TestAPoolWhoseGuestsHangKeepsNoOtherWaiting(t *testing.T) {
	const workers = 4
	y := newYard(t, specs.Cache{Prepare: shell("exit 0")})
	hung := *y.fleet.Caches[0]
	hung.Name, hung.Pools = "hung", []string{"bad"}
	y.fleet.Pools = append(y.fleet.Pools, &specs.Pool{Name: "bad", Max: 5})
	y.fleet.Caches = append(y.fleet.Caches, &hung)
	y.must(y.Adopt(t.Context(), y.fleet))
	y.spawn()
	m := y.machine()
	var taken *atomic.Int32
	m.Port, taken = y.silent()
	y.run(Options{Workers: workers, Reach: time.Hour, Look: time.Hour})
	for range workers {
		y.bootOf("bad", "hung", m)
	}
	y.eventually("half of the workers hang", func() bool { return taken.Load() >= workers/2 })
	y.boot("ci", y.machine())
	y.awaits(lease.Shelved)
}

func TestAnotherHostKeyTaintsAtOnce(t *testing.T) {
	y := newYard(t, specs.Cache{Prepare: shell("touch served")})
	y.spawn()
	other := y.machine()
	other.HostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ"
	y.run(Options{})
	y.boot("ci", other)
	if g := y.awaits(lease.Tainted); !strings.Contains(g.Evidence, "host key") || y.read("served") != "" {
		t.Errorf("evidence %q", g.Evidence)
	}
}

// lend leases the guest, lets use happen to it and gives it back. It returns the lease that was.
func (y *yard) lend(use func()) (id string) {
	y.t.Helper()
	l, err := y.Acquire(y.t.Context(), caller, lease.Request{Cache: "ci"})
	y.must(err)
	use()
	_, err = y.Release(y.t.Context(), caller, l.ID, lease.Release{})
	y.must(err)
	return l.ID
}

func TestAGuestIsResetBetweenLeases(t *testing.T) {
	y := newYard(t, specs.Cache{Reset: shell("rm -f leftover; echo reset >> log")})
	y.spawn()
	y.run(Options{Look: time.Hour})
	y.boot("ci", y.machine())
	y.awaits(lease.Shelved)
	leftover := filepath.Join(y.home, "leftover")
	y.lend(func() { y.must(os.WriteFile(leftover, nil, 0o600)) })
	y.awaits(lease.Shelved)
	if _, err := os.Stat(leftover); err == nil || y.read("log") != "reset\n" {
		t.Errorf("the reset script did not run once: log %q", y.read("log"))
	}
}

func TestAReleaseThatNobodyToldOfIsSeenWhenItIsSentAgain(t *testing.T) {
	y := newYard(t, specs.Cache{Reset: shell("echo reset >> log")})
	y.spawn()
	y.run(Options{Look: time.Hour})
	tell, deaf := y.tell, atomic.Bool{}
	y.tell = func(c ...lease.Change) {
		if !deaf.Load() {
			tell(c...)
		}
	}
	y.boot("ci", y.machine())
	y.awaits(lease.Shelved)
	id := y.lend(func() { deaf.Store(true) })
	y.awaits(lease.Resetting)
	deaf.Store(false)
	ended, err := y.Release(t.Context(), caller, id, lease.Release{})
	y.must(err)
	if !ended.Replayed {
		t.Error("it is the first release")
	}
	y.awaits(lease.Shelved)
}

func TestAFailedResetTaints(t *testing.T) {
	y := newYard(t, specs.Cache{Reset: shell("exit 7")})
	y.spawn()
	y.run(Options{})
	y.boot("ci", y.machine())
	y.awaits(lease.Shelved)
	y.lend(func() {})
	if g := y.awaits(lease.Tainted); g.Reason != "reset_failed" || !strings.Contains(g.Evidence, "exit status 7") {
		t.Errorf("tainted for %q with evidence %q", g.Reason, g.Evidence)
	}
}

func TestAFailedResetOfTheModuleTaintsWithTheEndOfItsOutput(t *testing.T) {
	for name, c := range map[string]struct{ reset, want string }{
		"loud":   {"seq 5000; echo 'the disk is full' >&2; exit 9", "ended with exit status 9; its output ends:\n…"},
		"brief":  {"echo 'the disk is full' >&2; exit 9", "ended with exit status 9; its output ends:\nthe disk is full\n"},
		"silent": {"exit 9", "ended with exit status 9; it printed nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			y := newYard(t, specs.Cache{Reset: shell("touch served")})
			y.spawn()
			y.run(Options{})
			m := y.machine()
			m.Reset, m.Attributes = true, attributes(t, map[string]any{"reset": c.reset})
			y.boot("ci", m)
			y.awaits(lease.Shelved)
			y.lend(func() {})
			g := y.awaits(lease.Tainted)
			if g.Reason != "reset_failed" || !strings.HasPrefix(g.Evidence, c.reset+" "+c.want) || y.read("served") != "" {
				t.Errorf("tainted for %q with evidence %q", g.Reason, g.Evidence)
			}
			if says := strings.HasSuffix(g.Evidence, "the disk is full\n"); says != (name != "silent") {
				t.Errorf("evidence %q", g.Evidence)
			}
		})
	}
}

func TestAGuestThatOffersItIsPartedFromItsHolderBeforeItsReset(t *testing.T) {
	y := newYard(t, specs.Cache{Reset: shell(`grep -qs "^State:[[:space:]]*[RSD]" "/proc/$(cat pid)/status" && echo alive >seen || echo ended >seen`)})
	y.spawn()
	y.run(Options{})
	m := y.machine()
	m.Attributes = attributes(t, map[string]any{"reset": guestd.ResetCommand, "cpus": 2})
	y.boot("ci", m)
	y.awaits(lease.Shelved)
	y.lend(func() {
		holder, err := ssh.Dial(t.Context(), y.info.Target(), y.key)
		y.must(err)
		defer holder.Close()
		_, err = holder.Run(t.Context(), "setsid sleep 1000 >/dev/null 2>&1 & echo $! >pid", nil, nil, nil, nil)
		y.must(err)
	})
	y.awaits(lease.Shelved)
	if got := y.read("seen"); got != "ended\n" {
		t.Errorf("what the holder left running had %q", got)
	}
}

func TestWhereTheSpecHasNoScriptAnyMoreTheGuestIsShelved(t *testing.T) {
	y := newYard(t, specs.Cache{Prepare: shell("exit 1")})
	y.spawn()
	y.boot("ci", y.machine())
	y.fleet.Caches[0].Prepare = specs.Script{}
	y.must(y.Open(t.Context()))
	y.must(y.Adopt(t.Context(), y.fleet))
	y.run(Options{})
	y.awaits(lease.Shelved)
}

func TestADrawnSpareIsPreparedOnce(t *testing.T) {
	y := newYard(t, specs.Cache{Prepare: shell("echo prepared >> log")})
	y.spawn()
	g := y.boot("p", y.machine())
	y.run(Options{Look: 20 * time.Millisecond})
	_, err := y.Draw(t.Context(), g, y.fleet.Caches[0])
	y.must(err)
	if g := y.awaits(lease.Shelved); g.Cache != "ci" || y.read("log") != "prepared\n" {
		t.Errorf("in cache %s, log %q", g.Cache, y.read("log"))
	}
}

func TestAHalfDrawnSpareIsLeftAlone(t *testing.T) {
	run := "ci"
	if spare := (lease.Guest{State: lease.Preparing, Pool: "p", Cache: "p", Run: run}); !spare.Drawing() {
		t.Error("a spare on its way would be prepared in its old cache")
	}
	for _, g := range []lease.Guest{
		{State: lease.Preparing, Pool: "p", Cache: "ci", Run: run},
		{State: lease.Preparing, Pool: "p", Cache: "p"},
		{State: lease.Resetting, Pool: "p", Cache: "p", Run: run},
	} {
		if g.Drawing() {
			t.Errorf("%+v would wait for ever", g)
		}
	}
}

func TestAStopInTheMiddleTaintsNothingAndTheNextStartRunsTheScriptAgain(t *testing.T) {
	y := newYard(t, specs.Cache{Prepare: shell("echo run >> log; test -e go || exec sleep 600")})
	y.spawn()
	stop := y.run(Options{})
	y.boot("ci", y.machine())
	y.eventually("the script runs", func() bool { return y.read("log") != "" })
	stop()
	y.awaits(lease.Preparing)
	y.must(os.WriteFile(filepath.Join(y.home, "go"), nil, 0o600))
	y.run(Options{})
	y.awaits(lease.Shelved)
	if got := y.read("log"); got != "run\nrun\n" {
		t.Errorf("the script ran as %q", got)
	}
}

func TestAGuestTaintedMeanwhileStaysTaintedForThatReason(t *testing.T) {
	y := newYard(t, specs.Cache{Prepare: shell("echo run >> log; while ! test -e go; do sleep 0.01; done; exit 1")})
	y.spawn()
	y.run(Options{})
	g := y.boot("ci", y.machine())
	y.eventually("the script runs", func() bool { return y.read("log") != "" })
	_, err := y.Taint(t.Context(), caller, g, lease.Taint{Reason: "manual"})
	y.must(err)
	y.must(os.WriteFile(filepath.Join(y.home, "go"), nil, 0o600))
	y.idle()
	if g := y.awaits(lease.Tainted); g.Reason != "manual" {
		t.Errorf("tainted for %q", g.Reason)
	}
}

func TestAGuestThatAnotherServerShelvesAtThatMomentStaysShelved(t *testing.T) {
	y := newYard(t, specs.Cache{Prepare: shell("exit 1")})
	y.spawn()
	y.first.Store(&first{"prepare_failed", func() {
		g, err := y.other.Guest(t.Context(), "p-1")
		if err == nil {
			_, err = y.other.Prepared(t.Context(), g)
		}
		if err != nil {
			t.Error(err)
		}
	}})
	y.run(Options{})
	y.boot("ci", y.machine())
	y.eventually("the script's end is told", func() bool { return y.first.Load() == nil })
	y.idle()
	y.awaits(lease.Shelved)
}

func TestAnOutageOfTheStoreLosesNoFinishedScript(t *testing.T) {
	y := newYard(t, specs.Cache{Prepare: shell("echo run >> log; while ! test -e go; do sleep 0.01; done; echo end >> log")})
	y.spawn()
	y.run(Options{Look: 10 * time.Millisecond})
	y.boot("ci", y.machine())
	y.eventually("the script runs", func() bool { return y.read("log") != "" })
	y.away.Store(true)
	y.must(os.WriteFile(filepath.Join(y.home, "go"), nil, 0o600))
	y.eventually("the script ends", func() bool { return y.read("log") == "run\nend\n" })
	y.away.Store(false)
	y.awaits(lease.Shelved)
	if got := y.read("log"); got != "run\nend\n" {
		t.Errorf("the script ran again: %q", got)
	}
}

// frail forwards connections to the guest and cuts those that are open when cut is called.
func (y *yard) frail() (port int, cut func()) {
	y.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	y.must(err)
	var mu sync.Mutex
	var open []net.Conn
	var all sync.WaitGroup
	all.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", net.JoinHostPort(y.info.Host, strconv.Itoa(y.info.Port)))
			if err != nil {
				y.t.Error(err)
				return
			}
			mu.Lock()
			open = append(open, in, out)
			mu.Unlock()
			all.Go(func() { _, _ = io.Copy(in, out); _ = in.Close() })
			all.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() })
		}
	})
	cut = func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range open {
			_ = c.Close()
		}
		open = nil
	}
	y.t.Cleanup(func() { _ = listener.Close(); cut(); all.Wait() })
	return listener.Addr().(*net.TCPAddr).Port, cut
}

func TestAScriptWhoseConnectionIsCutRunsAgain(t *testing.T) {
	y := newYard(t, specs.Cache{Prepare: shell("echo run >> log; test -e go || exec sleep 600")})
	y.spawn()
	m := y.machine()
	var cut func()
	m.Port, cut = y.frail()
	y.run(Options{})
	y.boot("ci", m)
	y.eventually("the script runs", func() bool { return y.read("log") != "" })
	y.must(os.WriteFile(filepath.Join(y.home, "go"), nil, 0o600))
	cut()
	y.awaits(lease.Shelved)
	if got := y.read("log"); got != "run\nrun\n" {
		t.Errorf("the script ran as %q", got)
	}
}

func TestAScriptWhoseConnectionIsCutAgainAndAgainTaints(t *testing.T) {
	y := newYard(t, specs.Cache{Prepare: shell("echo run >> log; exec sleep 600")})
	y.spawn()
	m := y.machine()
	var cut func()
	m.Port, cut = y.frail()
	y.run(Options{})
	y.boot("ci", m)
	for i := range maxBroken {
		y.eventually("the script runs", func() bool { return len(y.read("log")) == 4*(i+1) })
		cut()
	}
	if g := y.awaits(lease.Tainted); g.Reason != "prepare_failed" || !strings.Contains(g.Evidence, "broke off") {
		t.Errorf("tainted for %q with evidence %q", g.Reason, g.Evidence)
	}
}
