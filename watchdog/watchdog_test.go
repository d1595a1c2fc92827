package watchdog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"greenroom/lease"
	"greenroom/specs"
)

var holder = lease.Caller{Name: "job", Role: lease.User}

func poolOf(n int) specs.Pool {
	return specs.Pool{Name: "p", Max: n, Spare: n, Probes: []specs.Probe{
		{Kind: "ssh", Every: time.Second, Timeout: 300 * time.Millisecond, Failures: 3},
	}}
}

// reused is a cache that shelves its guests again after each lease.
func reused(n int) *specs.Cache {
	return &specs.Cache{Name: "ci", Pools: []string{"p"}, Size: n, Max: n, Enabled: true, Lease: specs.Lease{TTL: time.Hour, Max: time.Hour}, Hold: specs.Hold{For: time.Hour, Max: 2}}
}

func TestTwoOfTwentyAreTainted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y, h := newYard(t, poolOf(20)), newHands()
		all := names(y.shelve("p", 20))
		w := run(t, y, Options{}, h.probe)
		eventually(t, "all are probed", func() bool { return h.probes(all[19]) > 0 })
		h.set(Failed, all[3], all[11])
		eventually(t, "two are tainted", func() bool { return y.states(lease.Tainted) == 2 })
		pass(time.Minute)
		if n := y.states(lease.Tainted); n != 2 || len(w.Brakes()) > 0 {
			t.Errorf("%d are tainted, brakes %v", n, w.Brakes())
		}
		g := y.guest(all[3])
		if g.Reason != "dead" || !strings.HasPrefix(g.Evidence, "3 failures in a row since ") || strings.Count(g.Evidence, "connection refused") < 3 {
			t.Errorf("tainted for %q with evidence %q", g.Reason, g.Evidence)
		}
	})
}

func TestTwelveOfTwentyHoldTheBrakeUntilFewerAreUnhealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y, h := newYard(t, poolOf(20)), newHands()
		all := names(y.shelve("p", 20))
		registry := prometheus.NewPedanticRegistry()
		var told atomic.Int64
		w := run(t, y, Options{Registerer: registry, Braked: func() { told.Add(1) }}, h.probe)
		eventually(t, "all are probed", func() bool { return h.probes(all[19]) > 0 })
		brakeIs(t, registry, 0)
		h.set(Failed, all[:12]...)
		eventually(t, "the brake is on", func() bool { return len(w.Brakes()) == 1 })
		pass(time.Minute)
		want := "12 of 20 guests are unhealthy, more than 40%: nobody is tainted until at most 6 are"
		if n := y.states(lease.Tainted); n != 0 || w.Brakes()["p"] != want {
			t.Errorf("%d are tainted, brakes %v", n, w.Brakes())
		}
		brakeIs(t, registry, 1)
		on := told.Load()
		h.set(OK, all[:7]...)
		eventually(t, "the other five are tainted", func() bool { return y.states(lease.Tainted) == 5 })
		brakeIs(t, registry, 0)
		if off := told.Load(); on == 0 || off == on {
			t.Errorf("told %d times of a brake that went on, and %d times by when it was off", on, off)
		}
	})
}

func brakeIs(t *testing.T, registry *prometheus.Registry, want int) {
	t.Helper()
	text := fmt.Sprintf(`# HELP greenroom_watchdog_brake 1 while so much of a pool is unhealthy that nobody in it is tainted.
# TYPE greenroom_watchdog_brake gauge
greenroom_watchdog_brake{pool="p"} %d
`, want)
	if err := testutil.GatherAndCompare(registry, strings.NewReader(text), "greenroom_watchdog_brake"); err != nil {
		t.Error(err)
	}
}

func TestOneOfTwoIsTaintedAndTheOtherOnlyAfterItsReplacement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y, h := newYard(t, poolOf(2)), newHands()
		all := y.shelve("p", 2)
		w := run(t, y, Options{}, h.probe)
		h.set(Failed, all[0].Name)
		eventually(t, "it is tainted", func() bool { return y.guest(all[0].Name).State == lease.Tainted })
		h.set(Failed, all[1].Name)
		pass(time.Minute)
		if g := y.guest(all[1].Name); g.State != lease.Shelved || len(w.Brakes()) != 1 {
			t.Errorf("it is %s, brakes %v", g.State, w.Brakes())
		}
		h.set(OK, all[0].Name)
		y.replace(all[0].Name)
		eventually(t, "the other is tainted", func() bool { return y.guest(all[1].Name).State == lease.Tainted })
	})
}

// replace does what the reconciler does about a tainted guest.
func (y *yard) replace(name string) {
	y.t.Helper()
	g, err := y.Claim(y.t.Context(), y.guest(name), lease.Replacing, "run2", "", 0)
	if err == nil {
		_, err = y.Publish(y.t.Context(), g, "run2", g.Incarnation+1, lease.Machine{Host: "127.0.0.1", Port: 2, User: "ci"})
	}
	if err != nil {
		y.t.Fatal(err)
	}
}

func TestANewGuestIsShelvedAfterItsFirstGoodAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y, h := newYard(t, poolOf(5)), newHands()
		run(t, y, Options{Refresh: time.Hour}, h.probe)
		pass(time.Second)
		h.set(Failed, "p-1")
		y.boot("p", lease.Machine{Host: "127.0.0.1", Port: 1, User: "ci"})
		pass(3 * time.Second)
		if g := y.guest("p-1"); g.State != lease.Booting || h.probes("p-1") < 8 {
			t.Errorf("it is %s after %d probes", g.State, h.probes("p-1"))
		}
		h.set(OK, "p-1")
		start := time.Now()
		eventually(t, "it is shelved", func() bool { return y.guest("p-1").State == lease.Shelved })
		if took := time.Since(start); took > time.Second {
			t.Errorf("that took %v", took)
		}
	})
}

func TestAGuestOfACacheWithAScriptGoesToPreparingAndIsLeftAloneThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := reused(5)
		c.Prepare = specs.Script{Path: "prepare.sh", Body: []byte("exit 0")}
		y, h := newYard(t, poolOf(5), c), newHands()
		run(t, y, Options{}, h.probe)
		y.boot("ci", lease.Machine{Host: "127.0.0.1", Port: 1, User: "ci"})
		eventually(t, "it is preparing", func() bool { return y.guest("p-1").State == lease.Preparing })
		pass(time.Second)
		before := h.probes("p-1")
		h.set(Failed, "p-1")
		pass(time.Minute)
		if g := y.guest("p-1"); g.State != lease.Preparing || h.probes("p-1") != before {
			t.Errorf("it is %s and was probed %d times more", g.State, h.probes("p-1")-before)
		}
	})
}

func TestAGuestThatNeverAnswersIsTaintedAtTheBootDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y, h := newYard(t, poolOf(5)), newHands()
		h.set(Failed, "p-1")
		h.set(Unknown, "p-2")
		run(t, y, Options{BootDeadline: time.Minute}, h.probe)
		y.boot("p", lease.Machine{Host: "127.0.0.1", Port: 1, User: "ci"})
		y.boot("p", lease.Machine{Host: "127.0.0.1", Port: 1, User: "ci"})
		pass(59 * time.Second)
		if g := y.guest("p-1"); g.State != lease.Booting {
			t.Fatalf("it is %s before the deadline", g.State)
		}
		eventually(t, "it is tainted", func() bool { return y.guest("p-1").State == lease.Tainted })
		if g := y.guest("p-1"); g.Reason != "boot_failed" || !strings.Contains(g.Evidence, "connection refused") {
			t.Errorf("tainted for %q with evidence %q", g.Reason, g.Evidence)
		}
		pass(time.Minute)
		if g := y.guest("p-2"); g.State != lease.Booting {
			t.Errorf("the guest that could not be asked is %s", g.State)
		}
	})
}

func TestALeasedGuestIsNeverTaintedButItsHolderIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y, h := newYard(t, poolOf(3), reused(3)), newHands()
		y.shelve("ci", 3)
		run(t, y, Options{}, h.probe)
		l, err := y.Acquire(t.Context(), holder, lease.Request{Cache: "ci"})
		if err != nil {
			t.Fatal(err)
		}
		h.set(Failed, l.Guest)
		eventually(t, "the holder is told", func() bool { return strings.HasPrefix(y.guest(l.Guest).Health, "suspect: ssh probe failed") })
		eventually(t, "the holder is told more", func() bool { return strings.HasPrefix(y.guest(l.Guest).Health, "dead: ") })
		pass(time.Minute)
		if g := y.guest(l.Guest); g.State != lease.Leased || g.Condemned != "" {
			t.Errorf("it is %s, condemned %q", g.State, g.Condemned)
		}
		h.set(OK, l.Guest)
		eventually(t, "the holder is told that it is well", func() bool { return y.guest(l.Guest).Health == "" })
		h.set(Failed, l.Guest)
		pass(time.Minute)
		if _, err := y.Release(t.Context(), holder, l.ID, lease.Release{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is tainted after its lease", func() bool { return y.guest(l.Guest).State == lease.Tainted })
	})
}

func TestAHeldGuestIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y, h := newYard(t, poolOf(3), reused(3)), newHands()
		g := y.shelve("ci", 3)[0]
		run(t, y, Options{}, h.probe)
		if _, err := y.Hold(t.Context(), holder, g, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		h.set(Failed, g.Name)
		pass(time.Minute)
		if now := y.guest(g.Name); now.State != lease.Held {
			t.Errorf("it is %s", now.State)
		}
	})
}

func TestWhenThisHostCannotAskNobodyIsCondemned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y, h := newYard(t, poolOf(10)), newHands()
		all := names(y.shelve("p", 10))
		registry := prometheus.NewPedanticRegistry()
		w := run(t, y, Options{Registerer: registry}, h.probe)
		h.set(Unknown, all...)
		pass(time.Minute)
		if n := y.states(lease.Shelved); n != 10 {
			t.Errorf("%d are shelved", n)
		}
		if n := testutil.ToFloat64(w.metrics.probes.WithLabelValues("p", "unknown")); n < 500 {
			t.Errorf("%v unknown results are counted", n)
		}
		h.set(OK, all...)
		h.set(Failed, all[0])
		eventually(t, "one that is dead is tainted afterwards", func() bool { return y.guest(all[0]).State == lease.Tainted })
	})
}

func TestAVanishedGuestIsTaintedWhateverItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y, h := newYard(t, poolOf(5), reused(5)), newHands()
		all := y.shelve("ci", 5)
		w := run(t, y, Options{}, h.probe)
		w.Vanished(t.Context(), all[:1], "the provider has no machine i-123")
		eventually(t, "it is tainted", func() bool { return y.guest(all[0].Name).State == lease.Tainted })
		if g := y.guest(all[0].Name); g.Reason != "vanished" || g.Evidence != "the provider has no machine i-123" {
			t.Errorf("tainted for %q with evidence %q", g.Reason, g.Evidence)
		}
		l, err := y.Acquire(t.Context(), holder, lease.Request{Cache: "ci"})
		if err != nil {
			t.Fatal(err)
		}
		w.Vanished(t.Context(), []lease.Guest{y.guest(l.Guest)}, "gone too")
		eventually(t, "the holder is told", func() bool { return y.guest(l.Guest).Health == "dead: gone too" })
		pass(time.Minute)
		if g := y.guest(l.Guest); g.State != lease.Leased {
			t.Errorf("the leased one is %s", g.State)
		}
	})
}

func TestALeasedGuestThatIsFoundAgainIsShelvedAfterItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y, h := newYard(t, poolOf(3), reused(3)), newHands()
		y.shelve("ci", 3)
		w := run(t, y, Options{}, h.probe)
		l, err := y.Acquire(t.Context(), holder, lease.Request{Cache: "ci"})
		if err != nil {
			t.Fatal(err)
		}
		leased := []lease.Guest{y.guest(l.Guest)}
		w.Vanished(t.Context(), leased, "the provider has no machine i-123")
		eventually(t, "the holder is told", func() bool { return y.guest(l.Guest).Health != "" })
		h.set(Failed, l.Guest)
		pass(time.Minute)
		w.Vanished(t.Context(), leased, "")
		pass(time.Minute)
		if g := y.guest(l.Guest); !strings.HasPrefix(g.Health, "dead: ") {
			t.Errorf("it is there, but does not answer, and its holder is told %q", g.Health)
		}
		h.set(OK, l.Guest)
		eventually(t, "the holder is told that all is well", func() bool { return y.guest(l.Guest).Health == "" })
		w.Vanished(t.Context(), leased, "gone once more")
		eventually(t, "the holder is told again", func() bool { return y.guest(l.Guest).Health != "" })
		w.Vanished(t.Context(), leased, "")
		eventually(t, "the holder is told at once that all is well", func() bool { return y.guest(l.Guest).Health == "" })
		if _, err := y.Release(t.Context(), holder, l.ID, lease.Release{}); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if g := y.guest(l.Guest); g.State != lease.Shelved {
			t.Errorf("it is %s (%s: %s)", g.State, g.Reason, g.Evidence)
		}
	})
}

func TestNobodyIsTaintedWhenTheProviderFindsItsMachinesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y, h := newYard(t, poolOf(5)), newHands()
		all := y.shelve("p", 5)
		w := run(t, y, Options{}, h.probe)
		w.Vanished(t.Context(), all[:3], "state is empty")
		eventually(t, "the brake is on", func() bool { return len(w.Brakes()) == 1 })
		w.Vanished(t.Context(), all, "")
		eventually(t, "the brake is off", func() bool { return len(w.Brakes()) == 0 })
		pass(time.Minute)
		if n := y.states(lease.Shelved); n != 5 {
			t.Errorf("%d are shelved", n)
		}
	})
}

func TestManyVanishedGuestsHoldTheBrake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y, h := newYard(t, poolOf(5)), newHands()
		all := y.shelve("p", 5)
		w := run(t, y, Options{}, h.probe)
		w.Vanished(t.Context(), all[:3], "state is empty")
		pass(time.Minute)
		if n := y.states(lease.Shelved); n != 5 || len(w.Brakes()) != 1 {
			t.Errorf("%d are shelved, brakes %v", n, w.Brakes())
		}
	})
}

// lines is a log that many may write to.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), s)
}

func TestAnOutageOfTheStoreLosesNoVerdictAndIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y, h := newYard(t, poolOf(10)), newHands()
		all := names(y.shelve("p", 10))
		var log lines
		run(t, y, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, h.probe)
		pass(10 * time.Second)
		y.away.Store(true)
		h.set(Failed, all[0])
		before := h.probes(all[5])
		pass(time.Minute)
		if n := h.probes(all[5]) - before; n < 50 || n > 70 {
			t.Errorf("%d probes in a minute's outage", n)
		}
		y.away.Store(false)
		eventually(t, "it is tainted", func() bool { return y.guest(all[0]).State == lease.Tainted })
		if n, m := log.count("cannot use the store"), log.count("reaches the store again"); n != 1 || m != 1 {
			t.Errorf("logged %d and %d times", n, m)
		}
	})
}

func TestItTellsHowTheProbesOfAGuestStand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y, h := newYard(t, poolOf(2)), newHands()
		name := y.shelve("p", 2)[0].Name
		w := run(t, y, Options{}, h.probe)
		stand := func() Standing {
			all, err := w.Standings(t.Context(), name)
			if err != nil || len(all) != 1 {
				t.Fatalf("%v, %v", all, err)
			}
			return all[0]
		}
		eventually(t, "it is alive", func() bool { return h.probes(name) > 0 && stand().Last.Outcome == OK })
		if s := stand(); s.Probe.Kind != "ssh" || s.Failures != 0 || s.Next.Before(s.Last.At) {
			t.Errorf("alive: %+v", s)
		}
		h.set(Failed, name)
		eventually(t, "it has failed twice", func() bool { return stand().Failures == 2 })
		if s := stand(); s.Last.Outcome != Failed || s.Last.Detail != "connection refused" {
			t.Errorf("suspect: %+v", s)
		}
		if all, err := w.Standings(t.Context(), "p-99"); err != nil || all != nil {
			t.Errorf("of nobody: %v, %v", all, err)
		}
	})
}

func TestNobodyWaitsForAWatchdogThatDoesNotRun(t *testing.T) {
	y := newYard(t, poolOf(1))
	w, err := New(Options{Store: y.Store})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if all, err := w.Standings(ctx, "p-1"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v", all, err)
	}
}

func TestWithoutAFleetNothingIsProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y, h := newYard(t, poolOf(3)), newHands()
		g := y.shelve("p", 1)[0]
		y.Store = lease.New(y.client, lease.Options{})
		run(t, y, Options{}, h.probe)
		pass(time.Minute)
		if n := h.probes(g.Name); n != 0 {
			t.Errorf("probed %d times", n)
		}
		if err := y.Adopt(t.Context(), y.fleet); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is probed", func() bool { return h.probes(g.Name) > 0 })
	})
}

func TestChangedProbesTakeEffectWithAFreshHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y, h := newYard(t, poolOf(3)), newHands()
		g := y.shelve("p", 3)[0]
		run(t, y, Options{}, h.probe)
		h.set(Failed, g.Name)
		pass(1100 * time.Millisecond)
		changed := poolOf(3)
		changed.Brake.MaxUnhealthy = 0.4
		changed.Probes[0].Every = time.Minute
		if err := y.Adopt(t.Context(), &specs.Fleet{Revision: "r2", Pools: []*specs.Pool{&changed}}); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second) // the refresh
		before := h.probes(g.Name)
		pass(70 * time.Second) // one probe a minute, give or take a tenth: one or two, and no third since the change
		if n := h.probes(g.Name) - before; n < 1 || n > 2 {
			t.Errorf("%d probes in 70 seconds", n)
		}
		if now := y.guest(g.Name); now.State != lease.Shelved {
			t.Errorf("it is %s after too few failures", now.State)
		}
		pass(3 * time.Minute)
		eventually(t, "it is tainted", func() bool { return y.guest(g.Name).State == lease.Tainted })
	})
}

func TestProbesAreSpreadAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const guests, every = 2000, 10 * time.Second
		p := poolOf(guests)
		p.Probes[0].Every = every
		y, h := newYard(t, p), newHands()
		h.took = 50 * time.Millisecond
		for i := range guests {
			y.found(i + 1)
		}
		run(t, y, Options{Workers: 16}, h.probe)
		pass(6 * every)
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.atOnce > 16 {
			t.Errorf("%d probes at once", h.atOnce)
		}
		perSecond := map[time.Time]int{}
		for _, times := range h.asked {
			if len(times) < 4 {
				t.Fatalf("a guest was probed %d times", len(times))
			}
			for _, at := range times {
				perSecond[at.Truncate(time.Second)]++
			}
		}
		for at, n := range perSecond {
			if n > 2*guests/10 {
				t.Errorf("%d probes in the second %v", n, at)
			}
		}
	})
}

func TestAPoolThatTimesOutDoesNotStarveTheOthers(t *testing.T) {
	q := queue{lines: map[*pool][]*check{}}
	sick, well := &guest{pool: &pool{name: "sick"}}, &guest{pool: &pool{name: "well"}}
	for range 100 {
		q.push(&check{guest: sick})
	}
	q.push(&check{guest: well})
	q.push(&check{guest: well})
	var order []string
	for range 5 {
		order = append(order, q.peek().guest.pool.name)
		q.pop()
	}
	if got := strings.Join(order, " "); got != "sick well sick well sick" {
		t.Errorf("served %s", got)
	}
}

// TestAnyLifeOnARealStore lets guests die, recover, be leased and be replaced at random for ten minutes. Whatever happens, the
// history of each guest shows that it was tainted from the shelf alone, and in the end one that is dead is tainted.
func TestAnyLifeOnARealStore(t *testing.T) {
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) {
			t.Log("seed", seed)
			y, h := newYard(t, poolOf(12), reused(12)), newHands()
			h.took = 20 * time.Millisecond
			all := names(y.shelve("ci", 12))
			random := rand.New(rand.NewPCG(seed, 0))
			w := run(t, y, Options{Workers: 4, Rand: func() float64 { return 0.5 }}, h.probe)
			var leases []string
			for range 600 {
				pass(time.Duration(random.IntN(2000)) * time.Millisecond)
				name := all[random.IntN(len(all))]
				switch random.IntN(6) {
				case 0:
					h.set(Failed, name, all[random.IntN(len(all))])
				case 1, 2:
					h.set(OK, name)
				case 3:
					if l, err := y.Acquire(t.Context(), holder, lease.Request{Cache: "ci"}); err == nil {
						leases = append(leases, l.ID)
					}
				case 4:
					if len(leases) > 0 {
						if _, err := y.Release(t.Context(), holder, leases[0], lease.Release{}); err != nil {
							t.Fatal(err)
						}
						leases = leases[1:]
					}
				case 5:
					if y.guest(name).State == lease.Tainted {
						h.set(OK, name)
						y.replace(name)
					}
				}
			}
			y.checkHistory(all)
			for _, name := range all {
				h.set(OK, name)
				if y.guest(name).State == lease.Tainted {
					y.replace(name)
				}
			}
			eventually(t, "the brake is off", func() bool { return len(w.Brakes()) == 0 && y.states(lease.Tainted) == 0 })
			pass(time.Minute)
			g := y.shelved(all)
			h.set(Failed, g)
			eventually(t, "the dead one is tainted", func() bool { return y.guest(g).State == lease.Tainted })
		})
	}
}

// shelved is the name of some shelved guest.
func (y *yard) shelved(all []string) string {
	y.t.Helper()
	for _, name := range all {
		if y.guest(name).State == lease.Shelved {
			return name
		}
	}
	y.t.Fatal("no guest is shelved")
	return ""
}

func (y *yard) checkHistory(all []string) {
	y.t.Helper()
	taints := 0
	for _, name := range all {
		events, err := y.Events(y.t.Context(), name, 200)
		if err != nil {
			y.t.Fatal(err)
		}
		for _, e := range events {
			if e.To != lease.Tainted {
				continue
			}
			taints++
			if e.From != lease.Shelved || e.Actor != "watchdog" || e.Reason != "dead" {
				y.t.Errorf("%s was tainted by %s from %s for %s", name, e.Actor, e.From, e.Reason)
			}
		}
	}
	if taints == 0 {
		y.t.Error("nobody was tainted, so nothing is shown")
	}
}
