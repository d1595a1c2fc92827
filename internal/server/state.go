package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sys/unix"

	"greenroom/internal/embedded"
	"greenroom/lease"
)

// lockState makes this process the only server on a state directory, until the file is closed or the process ends.
func lockState(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		pid, _ := io.ReadAll(io.LimitReader(file, 20))
		err = fmt.Errorf("another server (pid %s) uses the state directory %s; stop it, or choose another directory",
			strings.TrimSpace(string(pid)), dir)
	} else if err == nil {
		err = errors.Join(file.Truncate(0), writeAt(file, strconv.Itoa(os.Getpid())+"\n"))
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func writeAt(file *os.File, text string) error {
	_, err := file.WriteAt([]byte(text), 0)
	return err
}

// leaseKey reads the secret that signs lease tokens, and makes one of 32 bytes (0600) when there is none.
func leaseKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		key = make([]byte, 32)
		rand.Read(key)
		err = writeSecret(path, key)
	case err == nil && len(key) != 32:
		err = fmt.Errorf("%s has %d bytes, want 32; put it back from a backup, or remove it, and lease tokens handed out so far are void", path, len(key))
	}
	if err != nil {
		return nil, fmt.Errorf("the key of lease tokens: %w", err)
	}
	return key, nil
}

// openRedis opens the store that the options name: Redis (with ?addr= a Cluster, with ?master_name= Sentinel), or the
// embedded one. It connects to nothing yet.
func openRedis(o Options) (redis.UniversalClient, io.Closer, error) {
	if o.RedisURL == "" {
		store, err := embedded.Open(embedded.Options{Dir: filepath.Join(o.StateDir, "store"), Log: o.Log})
		if err != nil {
			return nil, nil, err
		}
		return store.Client(), store, nil
	}
	rdb, err := dialRedis(o.RedisURL)
	if err != nil {
		return nil, nil, errors.New("the Redis URL can't be read; write redis://[user:password@]host:port/db, with ?addr=… for a Cluster, ?master_name=… for Sentinel")
	}
	return rdb, rdb, nil
}

// dialRedis makes a client for which the deadlines of contexts count, which they don't unless told: else a server that is
// silent takes up the whole read timeout of every call.
func dialRedis(text string) (redis.UniversalClient, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	switch {
	case u.Query().Has("addr") && !u.Query().Has("master_name"):
		o, err := redis.ParseClusterURL(text)
		if err != nil {
			return nil, err
		}
		o.MaxRetries, o.ContextTimeoutEnabled = onceOnly, true
		return redis.NewClusterClient(o), nil
	case u.Query().Has("master_name"):
		o, err := redis.ParseFailoverURL(text)
		if err != nil {
			return nil, err
		}
		o.MaxRetries, o.ContextTimeoutEnabled = onceOnly, true
		return redis.NewFailoverClient(o), nil
	}
	o, err := redis.ParseURL(text)
	if err != nil {
		return nil, err
	}
	o.MaxRetries, o.ContextTimeoutEnabled = onceOnly, true
	return redis.NewClient(o), nil
}

// onceOnly: a script whose answer was lost may have been executed; whether to send it again is the caller's to decide. A Cluster's
// client sends it again all the same, up to MaxRedirects (3) times: without those it would not follow a slot that moves either.
const onceOnly = -1

// Changes hands what the store tells to everybody who asked for it. Subscribers must not block.
type Changes struct {
	mu   sync.RWMutex
	subs []func(...lease.Change)
}

// Subscribe adds a listener for as long as the server lives.
func (c *Changes) Subscribe(f func(...lease.Change)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subs = append(c.subs, f)
}

func (c *Changes) tell(changes ...lease.Change) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, f := range c.subs {
		f(changes...)
	}
}

// What ends by time ends at the next sweep. One that is away is looked for more often, because nobody is served until it is swept.
const (
	sweepEvery = 2 * time.Second
	awayEvery  = time.Second
)

// pulse sweeps the store and knows by that whether the store can be used.
type pulse struct {
	store *lease.Store
	from  string // the server that the store is taken from; empty: it is taken from nobody
	ours  bool
	log   *slog.Logger
	mu    sync.RWMutex
	err   error
	swept chan struct{} // closed after the first sweep
}

var errUnswept = fmt.Errorf("%w: it was not swept since the start", lease.ErrUnavailable)

func newPulse(store *lease.Store, from string, log *slog.Logger) *pulse {
	return &pulse{store: store, from: from, log: log, swept: make(chan struct{}), err: errUnswept}
}

// outage is why no call may use the store: after each time of absence a sweep comes first, because it gives back the time
// in which nobody could renew.
func (p *pulse) outage() error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.err
}

// run sweeps until ctx ends, or the store is another server's: two would take each other's machines for destroyed.
func (p *pulse) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if err := p.sweep(ctx); errors.Is(err, lease.ErrForeign) {
			return fmt.Errorf("%w; one server uses a store: give this one another, or, when that one is gone for good, start this one with "+
				"--take-store and its name", err)
		}
		timer.Reset(p.pause())
	}
}

func (p *pulse) pause() time.Duration {
	if p.outage() != nil {
		return awayEvery
	}
	return sweepEvery
}

func (p *pulse) sweep(ctx context.Context) error {
	err := p.beat(ctx)
	if ctx.Err() != nil || errors.Is(err, lease.ErrForeign) {
		return err
	}
	before := p.outage()
	switch {
	case err != nil && !errors.Is(err, lease.ErrUnavailable):
		p.log.Error("sweeping the store failed", "err", err)
		err = nil
	case err != nil && (before == nil || errors.Is(before, errUnswept)):
		p.log.Error("the store is away; the API answers 503 until it is back", "err", err)
	case err == nil && before != nil:
		p.log.Info("the store is in use")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
	select {
	case <-p.swept:
	default:
		if err == nil {
			close(p.swept)
		}
	}
	return err
}

// beat is one sweep. The store is made this server's before the first: one of another server's tells that nobody was away.
func (p *pulse) beat(ctx context.Context) error {
	if !p.ours {
		if err := p.store.Belong(ctx, p.from); err != nil {
			return err
		}
		p.ours = true
	}
	return p.store.Sweep(ctx)
}

// wait returns true when the store was swept once, false when ctx ended before.
func (p *pulse) wait(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-p.swept:
		return true
	}
}

// serverID is the name of this state directory among those on one store; it survives restarts.
func serverID(path string) (string, error) {
	id, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		id = []byte(rand.Text())
		err = writeSecret(path, id)
	}
	if err != nil {
		return "", fmt.Errorf("the server's id: %w", err)
	}
	return string(id), nil
}

// place names this server for people.
func place(state string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "a host without a name"
	}
	return fmt.Sprintf("the state directory %s on %s", state, host)
}
