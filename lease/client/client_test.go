package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"greenroom/internal/server"
	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/lease/leasetest"
	"greenroom/specs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is the real API on a real store; between stands between the client and it.
type house struct {
	t       *testing.T
	store   *lease.Store
	token   string
	handler http.Handler
}

func newHouse(t *testing.T, ttl time.Duration) *house {
	t.Helper()
	var feed *server.Feed
	h := &house{t: t, store: lease.New(leasetest.Embedded(t), lease.Options{Notify: func(c ...lease.Change) { feed.Notify(c...) }})}
	feed = server.NewFeed(h.store, time.Now, nil)
	fleet := &specs.Fleet{
		Revision: "test-1",
		Pools:    []*specs.Pool{{Name: "local", Module: "local", Max: 4, ShardSize: 25}},
		Caches: []*specs.Cache{{
			Name: "ci", Owner: "platform", Pools: []string{"local"}, Size: 4, Max: 4, Enabled: true, Lease: specs.Lease{TTL: ttl, Max: time.Hour},
		}},
	}
	h.must(h.store.Sweep(t.Context()))
	h.must(h.store.Open(t.Context()))
	h.must(h.store.Adopt(t.Context(), fleet))
	tokens, err := server.OpenTokens(t.TempDir(), time.Now)
	h.must(err)
	made, err := tokens.Create(client.NewToken{Name: "jenkins", Owner: "platform", Role: lease.User})
	h.must(err)
	h.token = made.Secret
	h.handler = server.Handler(server.Parts{Store: h.store, Tokens: tokens, Feed: feed, Log: slog.New(slog.DiscardHandler), Signer: lease.NewSigner(make([]byte, 32))})
	return h
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// client talks to the house through between, or straight when that is nil.
func (h *house) client(between func(http.ResponseWriter, *http.Request), o client.Options) *client.Client {
	h.t.Helper()
	handler := h.handler
	if between != nil {
		handler = http.HandlerFunc(between)
	}
	web := httptest.NewServer(handler)
	o.Addr, o.Token = web.URL, h.token
	c, err := client.New(o)
	h.must(err)
	h.t.Cleanup(web.Close)
	h.t.Cleanup(c.Close)
	return c
}

func (h *house) shelve() {
	h.t.Helper()
	ctx, fleet := h.t.Context(), h.store.Fleet()
	g, err := h.store.Plan(ctx, fleet.Pools[0], fleet.Caches[0], "local-a", "digest", false)
	h.must(err)
	g, err = h.store.Claim(ctx, g, lease.Provisioning, "run", "", 0)
	h.must(err)
	g, err = h.store.Publish(ctx, g, "run", 1, lease.Machine{ID: "1", Host: "127.0.0.1", Port: 22, User: "root", HostKey: "k"})
	h.must(err)
	_, err = h.store.Booted(ctx, g)
	h.must(err)
}

func (h *house) queue() []lease.Lease {
	h.t.Helper()
	queue, err := h.store.Queue(context.WithoutCancel(h.t.Context()), "ci", 100)
	h.must(err)
	return queue
}

func (h *house) active() []lease.Lease {
	h.t.Helper()
	leases, err := h.store.Leases(context.WithoutCancel(h.t.Context()), "ci", 100)
	h.must(err)
	return leases
}

func TestAcquireWaitsThroughTheQueueAndTellsEachPlace(t *testing.T) {
	h := newHouse(t, time.Minute)
	h.shelve()
	c := h.client(nil, client.Options{})
	first, err := c.Acquire(t.Context(), client.Request{Cache: "ci"}, nil)
	h.must(err)
	ahead, err := c.Request(t.Context(), client.Request{Cache: "ci"})
	h.must(err)
	places := make(chan int, 10)
	granted := make(chan client.Lease, 1)
	go func() {
		l, err := c.Acquire(t.Context(), client.Request{Cache: "ci"}, func(l client.Lease) { places <- l.Position })
		if err != nil {
			t.Error(err)
		}
		granted <- l
	}()
	if place := <-places; place != 2 {
		t.Errorf("first told place %d, want 2", place)
	}
	_, err = c.Release(t.Context(), ahead.ID, client.Release{})
	h.must(err)
	_, err = c.Release(t.Context(), first.ID, client.Release{Outcome: "pass"})
	h.must(err)
	if l := <-granted; l.Phase != lease.Active || l.Guest.Name != first.Guest.Name || l.Hit {
		t.Errorf("granted %+v", l)
	}
}

func TestAnAcquireThatIsGivenUpLeavesNothing(t *testing.T) {
	h := newHouse(t, time.Minute)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	_, err := h.client(nil, client.Options{}).Acquire(ctx, client.Request{Cache: "ci"}, func(client.Lease) { cancel(enough) })
	if !errors.Is(err, enough) || len(h.queue()) != 0 {
		t.Errorf("%v; %d in the queue", err, len(h.queue()))
	}
}

func TestAnAcquireWhoseAnswerIsLostAndGivenUpLeavesNothing(t *testing.T) {
	h := newHouse(t, time.Minute)
	h.shelve()
	ctx, cancel := context.WithCancel(t.Context())
	var calls atomic.Int32
	c := h.client(func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			h.handler.ServeHTTP(httptest.NewRecorder(), r)
			cancel()
			<-r.Context().Done()
			return
		}
		h.handler.ServeHTTP(w, r)
	}, client.Options{})
	if _, err := c.Acquire(ctx, client.Request{Cache: "ci"}, nil); !errors.Is(err, context.Canceled) || len(h.active()) != 0 {
		t.Errorf("%v; %d active leases", err, len(h.active()))
	}
}

func TestALostAnswerIsAskedForAgainAndCountsOnce(t *testing.T) {
	h := newHouse(t, time.Minute)
	h.shelve()
	h.shelve()
	var calls atomic.Int32
	var told atomic.Int32
	c := h.client(func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			h.handler.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		h.handler.ServeHTTP(w, r)
	}, client.Options{OnRetry: func(error) { told.Add(1) }})
	l, err := c.Acquire(t.Context(), client.Request{Cache: "ci"}, nil)
	if err != nil || l.Phase != lease.Active || len(h.active()) != 1 || told.Load() != 1 {
		t.Errorf("%+v, %v; %d active leases, told %d times", l, err, len(h.active()), told.Load())
	}
}

func TestAServerWithoutItsStoreIsTriedAgainAsItAsks(t *testing.T) {
	h := newHouse(t, time.Minute)
	h.shelve()
	var calls atomic.Int32
	busy := func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
			_ = json.NewEncoder(w).Encode(client.Problem{Code: "unavailable", Status: 503, Detail: "away"})
			return
		}
		h.handler.ServeHTTP(w, r)
	}
	begun := time.Now()
	if _, err := h.client(busy, client.Options{}).Acquire(t.Context(), client.Request{Cache: "ci"}, nil); err != nil || time.Since(begun) < time.Second {
		t.Errorf("after %v: %v", time.Since(begun), err)
	}
	calls.Store(0)
	if _, err := h.client(busy, client.Options{Retry: -1}).Leases(t.Context(), ""); !errors.Is(err, lease.ErrUnavailable) {
		t.Errorf("without retries: %v", err)
	}
}

func TestARequestThatTimesOutIsOver(t *testing.T) {
	h := newHouse(t, time.Minute)
	wait := client.Duration(50 * time.Millisecond)
	var once sync.Once
	c := h.client(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			once.Do(func() { h.untilEmpty() })
		}
		h.handler.ServeHTTP(w, r)
	}, client.Options{})
	if _, err := c.Acquire(t.Context(), client.Request{Cache: "ci", Wait: &wait}, nil); !errors.Is(err, lease.ErrOver) {
		t.Errorf("acquire: %v", err)
	}
}

// untilEmpty sweeps until nobody waits.
func (h *house) untilEmpty() {
	ctx := context.WithoutCancel(h.t.Context())
	for end := time.Now().Add(20 * time.Second); len(h.queue()) > 0 && time.Now().Before(end); {
		if err := h.store.Sweep(ctx); err != nil {
			h.t.Error(err)
			return
		}
	}
}

func TestKeepAliveRenewsUntilTheLeaseIsLost(t *testing.T) {
	h := newHouse(t, 5*time.Second)
	h.shelve()
	c := h.client(nil, client.Options{})
	l, err := c.Acquire(t.Context(), client.Request{Cache: "ci", TTL: client.Duration(time.Second)}, nil)
	h.must(err)
	renewed := make(chan client.Lease, 10)
	lost := c.KeepAlive(t.Context(), l, client.Heartbeat{Renewed: func(l client.Lease) { renewed <- l }})
	for range 2 {
		if next := <-renewed; !next.Deadline.After(l.Deadline) {
			t.Errorf("renewed until %s, was %s", next.Deadline, l.Deadline)
		}
	}
	_, err = c.Release(t.Context(), l.ID, client.Release{})
	h.must(err)
	if err := <-lost; !errors.Is(err, lease.ErrOver) {
		t.Errorf("lost: %v", err)
	}
	if _, open := <-lost; open {
		t.Error("the channel is still open")
	}
}

func TestAHeartbeatThatFailsIsToldAndTriedAgainUntilTheLeaseMustBeOver(t *testing.T) {
	h := newHouse(t, 5*time.Second)
	h.shelve()
	var away atomic.Bool
	c := h.client(func(w http.ResponseWriter, r *http.Request) {
		if away.Load() {
			panic(http.ErrAbortHandler)
		}
		h.handler.ServeHTTP(w, r)
	}, client.Options{})
	l, err := c.Acquire(t.Context(), client.Request{Cache: "ci", TTL: client.Duration(time.Second)}, nil)
	h.must(err)
	away.Store(true)
	var failures atomic.Int32
	lost := c.KeepAlive(t.Context(), l, client.Heartbeat{Failed: func(error) { failures.Add(1) }})
	if err := <-lost; !errors.Is(err, lease.ErrOver) || failures.Load() < 2 {
		t.Errorf("lost: %v after %d failures told", err, failures.Load())
	}
}

func TestAnOutageThatIsKnownEndsNoLease(t *testing.T) {
	const ttl = time.Second
	renewed := func(w http.ResponseWriter) {
		now := time.Now()
		_ = json.NewEncoder(w).Encode(client.Lease{ID: "ci.X", TTL: client.Duration(ttl), Deadline: now.Add(ttl), Cap: now.Add(time.Hour)})
	}
	for name, test := range map[string]struct {
		outage func(http.ResponseWriter)
		lost   bool
	}{
		"the store is away": {outage: func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusServiceUnavailable)
			_ = json.NewEncoder(w).Encode(client.Problem{Code: "unavailable", Status: http.StatusServiceUnavailable, Detail: "away"})
		}},
		"no server is there": {},
		"nobody answers":     {outage: func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, lost: true},
		"a proxy says so": {outage: func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusServiceUnavailable)
			_ = json.NewEncoder(w).Encode(client.Problem{Code: "overloaded", Status: http.StatusServiceUnavailable, Detail: "full"})
		}, lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			h := &house{t: t}
			var away atomic.Bool
			handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if away.Load() {
					test.outage(w)
					return
				}
				renewed(w)
			})
			socket := filepath.Join(t.TempDir(), "s")
			serve := func() (stop func()) {
				listener, err := net.Listen("unix", socket)
				h.must(err)
				web := &httptest.Server{Listener: listener, Config: &http.Server{Handler: handler}}
				web.Start()
				return web.Close
			}
			stop := serve()
			defer func() { stop() }()
			c, err := client.New(client.Options{Addr: socket})
			h.must(err)
			defer c.Close()
			if away.Store(true); test.outage == nil {
				stop()
			}
			began, back := time.Now(), make(chan struct{}, 1)
			ctx, cancel := context.WithCancel(t.Context())
			lost := c.KeepAlive(ctx, client.Lease{ID: "ci.X", TTL: client.Duration(ttl)}, client.Heartbeat{
				Failed: func(error) {
					if time.Since(began) > 3*ttl && away.CompareAndSwap(true, false) && test.outage == nil {
						stop = serve()
					}
				},
				Renewed: func(client.Lease) {
					select {
					case back <- struct{}{}:
					default:
					}
				},
			})
			select {
			case err := <-lost:
				if !test.lost || !errors.Is(err, lease.ErrOver) {
					t.Errorf("lost: %v", err)
				}
			case <-back:
				if test.lost {
					t.Error("it was not lost")
				}
			}
			cancel()
			for range lost {
			}
		})
	}
}

func TestAHolderIsToldOfTheCapBeforeItAndAtIt(t *testing.T) {
	h := newHouse(t, 3*time.Second)
	h.store.Fleet().Caches[0].Lease.Max = 5 * time.Second
	h.shelve()
	c := h.client(nil, client.Options{})
	l, err := c.Acquire(t.Context(), client.Request{Cache: "ci"}, nil)
	h.must(err)
	var capped []time.Duration
	err = <-c.KeepAlive(t.Context(), l, client.Heartbeat{Capped: func(l client.Lease) { capped = append(capped, time.Duration(l.Left)) }})
	if late := time.Since(l.Cap); !errors.Is(err, lease.ErrOver) || !strings.Contains(err.Error(), "as long as a lease of cache ci may") || late < 0 {
		t.Errorf("lost %v after the cap: %v", late, err)
	}
	if len(capped) != 1 || capped[0] > 3*time.Second {
		t.Errorf("told of the cap %v before it", capped)
	}
}

func TestKeepAliveEndsWithItsContext(t *testing.T) {
	h := newHouse(t, time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	lost := h.client(nil, client.Options{}).KeepAlive(ctx, client.Lease{ID: "ci.X", TTL: client.Duration(time.Minute)}, client.Heartbeat{})
	cancel()
	if err, open := <-lost; open {
		t.Errorf("sent %v", err)
	}
}

func TestEveryCodeOfTheDocumentThatIsAFactIsFound(t *testing.T) {
	h := newHouse(t, time.Minute)
	for code, want := range map[string]error{
		"unavailable": lease.ErrUnavailable, "unknown_cache": lease.ErrUnknownCache, "not_yours": lease.ErrNotYours, "lease_over": lease.ErrOver,
		"idempotency_mismatch": lease.ErrReplay, "hold_budget": lease.ErrHoldBudget, "impossible": lease.ErrImpossible,
	} {
		c := h.client(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusTeapot)
			_ = json.NewEncoder(w).Encode(client.Problem{Code: code, Status: http.StatusTeapot, Detail: "because"})
		}, client.Options{})
		if _, err := c.Caches(t.Context()); !errors.Is(err, want) || err.Error() != "because" || errors.Is(err, lease.ErrLocked) {
			t.Errorf("%s: %v", code, err)
		}
	}
}

func TestAnswersThatAreNotGreenroomsAreErrors(t *testing.T) {
	h := newHouse(t, time.Minute)
	for _, status := range []int{200, 302, 404, 500} {
		c := h.client(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte("<html>a proxy</html>"))
		}, client.Options{})
		var e *client.Error
		if _, err := c.Caches(t.Context()); !errors.As(err, &e) || e.Code != "unexpected" {
			t.Errorf("%d: %v", status, err)
		}
	}
}

func TestAnAddressThatIsNoneIsRefused(t *testing.T) {
	for _, addr := range []string{"", "localhost:7070", "ftp://host", "http://", "socket", ":"} {
		if _, err := client.New(client.Options{Addr: addr}); err == nil {
			t.Errorf("%q is accepted", addr)
		}
	}
}

func TestASocketThatIsNotThereIsNamedOnce(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "nobody.sock")
	c, err := client.New(client.Options{Addr: socket, Retry: -1})
	if err != nil {
		t.Fatal(err)
	}
	want := "cannot reach the server at " + socket + ": connect: no such file or directory"
	if err := c.Ready(t.Context()); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestOrdinals(t *testing.T) {
	got := map[int]string{}
	for _, n := range []int{1, 2, 3, 4, 11, 12, 13, 21, 22, 101, 111, 112} {
		got[n] = client.Ordinal(n)
	}
	want := map[int]string{1: "1st", 2: "2nd", 3: "3rd", 4: "4th", 11: "11th", 12: "12th", 13: "13th", 21: "21st", 22: "22nd", 101: "101st", 111: "111th", 112: "112th"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzDuration(f *testing.F) {
	for _, seed := range []string{"30m", "0s", "-1s", "1h30m", "", "9999999h", "µs"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var d, again client.Duration
		if d.UnmarshalText([]byte(text)) != nil {
			return
		}
		out, err := d.MarshalText()
		if err != nil || again.UnmarshalText(out) != nil || d != again || d < 0 {
			t.Errorf("%q is read as %v, which is written as %q", text, d, out)
		}
	})
}

func TestACallThatCannotBeWrittenIsNotTriedAgain(t *testing.T) {
	tried := false
	c, err := client.New(client.Options{Addr: "http://127.0.0.1:1", Retry: time.Hour, OnRetry: func(error) { tried = true }})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Request(t.Context(), client.Request{AtLeast: map[string]float64{"cpus": math.NaN()}})
	var unwritten *json.UnsupportedValueError
	if tried || !errors.As(err, &unwritten) {
		t.Errorf("tried again: %v; %v", tried, err)
	}
}

func TestARequestThatCannotBeCancelledIsSaidToLapse(t *testing.T) {
	h := newHouse(t, time.Minute)
	var away atomic.Bool
	c := h.client(func(w http.ResponseWriter, r *http.Request) {
		if away.Load() {
			panic(http.ErrAbortHandler)
		}
		h.handler.ServeHTTP(w, r)
	}, client.Options{Retry: -1})
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.Acquire(ctx, client.Request{Cache: "ci"}, func(client.Lease) { away.Store(true); cancel() })
	if !errors.Is(err, client.ErrUncancelled) || !errors.Is(err, context.Canceled) {
		t.Errorf("acquire: %v", err)
	}
}
