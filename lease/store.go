package lease

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"greenroom/specs"
)

//go:embed scripts/*.lua
var sources embed.FS

// Options of a store; the zero value is useful.
type Options struct {
	Prefix   string        // of every key; default "greenroom"
	Patience time.Duration // a queued request lapses when nobody asks for it for so long; default 90s
	MaxQueue int           // most requests that wait in one cache; default 10000
	Gap      time.Duration // a pause between sweeps that means "we were away"; default 5s
	Grace    time.Duration // what leases and requests are given after such a pause; default 2m
	Keep     time.Duration // how long ended leases stay on record; default 24h
	Timeout  time.Duration // of one call on the store; default 5s
	Server   string        // the only one that uses the store, by a name that survives restarts; empty: whoever likes
	Place    string        // says for people where Server is

	// Notify is told of each change, after it happened and before whoever brought it about goes on. Those that happened at once come
	// together, in their order. It must not block, and may keep what it is told.
	Notify func(...Change)
}

// Kind names what a Change is about.
type Kind string

// The kinds of changes.
const (
	Missed      Kind = "missed"       // a request had to queue
	Granted     Kind = "granted"      // a lease became active
	LeaseEnded  Kind = "lease ended"  // released, expired, cancelled
	GuestMoved  Kind = "guest moved"  // a guest is in another state
	CacheToggle Kind = "cache toggle" // an override began or ended
	Unsure      Kind = "unsure"       // somebody did not know what was done before: what came of that may not have been told
	StoreLost   Kind = "store lost"   // what was in the store is gone, and must be found again
)

// Change is one thing that happened in the store.
type Change struct {
	Kind  Kind
	Cache string
	Guest string // GuestMoved, Unsure
	State State  // GuestMoved; LeaseEnded: where its guest was sent, empty where nobody knows
	Lease *Lease // Granted, LeaseEnded

	Since time.Time // GuestMoved: of the state, by the store's clock; zero where nobody knows

	// Ordered and Ready are set where a guest that was on order is first shelved or leased: since when it was, and this time.
	Ordered, Ready time.Time
}

// Store is the inventory and the leases in one Redis. Its methods may be called concurrently.
type Store struct {
	rdb     redis.UniversalClient
	options Options
	scripts map[string]*redis.Script // "calls" and "turns", see core.lua, and those that stand alone
	queues  queues
	turns   int // that make a mirror when they come together
	fleet   atomic.Pointer[specs.Fleet]
	waiters waiters
	ahead   atomic.Int64 // the store's clock, of this process's, in nanoseconds, as it was at the last sweep
	swept   sync.Mutex   // of last
	last    rounds
}

// New returns a store on rdb: a real Redis (single, Sentinel or Cluster) or the embedded one.
func New(rdb redis.UniversalClient, o Options) *Store {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.Patience, 90*time.Second)
	def(&o.Gap, 5*time.Second)
	def(&o.Grace, 2*time.Minute)
	def(&o.Keep, 24*time.Hour)
	def(&o.Timeout, 5*time.Second)
	if o.MaxQueue == 0 {
		o.MaxQueue = 10000
	}
	if o.Prefix == "" {
		o.Prefix = "greenroom"
	}
	if o.Notify == nil {
		o.Notify = func(...Change) {}
	}
	s := &Store{rdb: rdb, options: o, scripts: loadScripts(), queues: queues{lines: map[string]*line{}, mirrors: map[string]*mirror{}}, turns: mirrorFrom}
	s.fleet.Store(&specs.Fleet{})
	s.waiters.chans = map[string]map[chan struct{}]struct{}{}
	return s
}

// alone are the scripts that stand without the library, for many caches at once.
var alone = []string{"stock", "beat"}

// parts are what stands around the calls.
var parts = []string{"core", "lib", "calls", "single"}

// loadScripts makes one script of the calls, and one of turns alone; see core.lua.
func loadScripts() map[string]*redis.Script {
	read := func(name string) string {
		body, _ := sources.ReadFile("scripts/" + name + ".lua")
		return string(body)
	}
	call := func(name string) string { return fmt.Sprintf("calls.%s = function(ARGV)\n%send\n", name, read(name)) }
	scripts := map[string]*redis.Script{"turns": redis.NewScript(read("core") + call("turns") + read("single"))}
	var all strings.Builder
	entries, _ := sources.ReadDir("scripts")
	for _, e := range entries {
		switch name := strings.TrimSuffix(e.Name(), ".lua"); {
		case slices.Contains(alone, name):
			scripts[name] = redis.NewScript(read(name))
		case !slices.Contains(parts, name):
			all.WriteString(call(name))
		}
	}
	scripts["calls"] = redis.NewScript(read("core") + read("lib") + all.String() + read("calls"))
	return scripts
}

// Fleet returns the fleet whose settings are in force.
func (s *Store) Fleet() *specs.Fleet { return s.fleet.Load() }

// Ping tells whether the store can be reached.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	return outage(s.rdb.Ping(ctx).Err())
}

// Now is the time by the store's clock, by which leases end, as far as the last sweep tells.
func (s *Store) Now() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }

// base is the prefix of every key of a cache; the braces are the hash tag of Redis Cluster.
func (s *Store) base(cache string) string { return s.options.Prefix + ":{" + cache + "}" }

func (s *Store) global(name string) string { return s.options.Prefix + ":" + name }

// run executes one call on one cache and turns its code into an error.
func (s *Store) run(ctx context.Context, name, cache string, args ...any) ([]any, error) {
	return s.carry(ctx, cache, &call{name: name, args: args})
}

// carry is run of a call that a mirror may decide; then there is no reply.
func (s *Store) carry(ctx context.Context, cache string, c *call) ([]any, error) {
	err := s.send(ctx, cache, c)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s in cache %s: %w", c.name, cache, outage(err))
	case c.reply == nil: // a mirror has decided it
		return nil, nil
	}
	reply := c.reply
	switch code := text(reply[0]); code {
	case "ok", "hit", "condemned":
		return reply, nil
	case "no_policy":
		return nil, fmt.Errorf("%w: cache %s is not in force", ErrUnavailable, cache)
	default:
		detail := make([]string, 0, len(reply))
		for _, v := range reply[1:] {
			detail = append(detail, text(v))
		}
		return nil, refusal(code, strings.Join(detail, ", "))
	}
}

var refusals = map[string]error{
	"unknown": ErrUnknownLease, "not_yours": ErrNotYours, "over": ErrOver, "queued": ErrQueued,
	"leased": ErrLeased, "conflict": ErrConflict, "full": ErrFull, "replay": ErrReplay,
	"none_ready": ErrNoneReady, "queue_full": ErrQueueFull, "budget": ErrHoldBudget, "locked": ErrLocked,
}

func refusal(code, detail string) error {
	err, ok := refusals[code]
	switch {
	case !ok:
		return fmt.Errorf("the store answered %q (%s), which this version does not know", code, detail)
	case detail != "":
		return fmt.Errorf("%w (%s)", err, detail)
	}
	return err
}

// outage marks the errors that mean "Redis is away" as ErrUnavailable.
func outage(err error) error {
	var network net.Error
	switch {
	case err == nil || errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &network), errors.Is(err, context.DeadlineExceeded), errors.Is(err, redis.ErrClosed),
		errors.Is(err, redis.ErrPoolTimeout), strings.Contains(err.Error(), "EOF"):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	for _, code := range []string{"LOADING", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "OOM", "MISCONF", "journal"} {
		if strings.Contains(err.Error(), code) {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	return err
}

// waiters wakes the long polls of this process when their lease changes.
type waiters struct {
	count atomic.Int64 // of chans: most often nobody waits
	mu    sync.Mutex
	chans map[string]map[chan struct{}]struct{}
}

func (w *waiters) watch(id string) (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.chans[id] == nil {
		w.chans[id] = map[chan struct{}]struct{}{}
	}
	w.chans[id][ch] = struct{}{}
	w.count.Add(1)
	return ch, func() {
		w.count.Add(-1)
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.chans[id], ch)
		if len(w.chans[id]) == 0 {
			delete(w.chans, id)
		}
	}
}

func (w *waiters) wake(id string) {
	if w.count.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch := range w.chans[id] {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	case nil:
		return ""
	}
	return fmt.Sprint(v)
}

// number reads a whole number; what is none is 0.
func number(v any) int64 {
	switch v := v.(type) {
	case int64:
		return v
	case string:
		n, _ := strconv.ParseInt(v, 10, 64)
		return n
	}
	return 0
}

// ms reads milliseconds since the epoch; 0 and nothing are the zero time.
func ms(v any) time.Time {
	n := number(v)
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// table reads a flat list of fields and values.
func table(v any) map[string]string {
	flat, _ := v.([]any)
	out := make(map[string]string, len(flat)/2)
	for i := 0; i+1 < len(flat); i += 2 {
		out[text(flat[i])] = text(flat[i+1])
	}
	return out
}
