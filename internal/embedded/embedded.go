// Package embedded is the Redis for a Greenroom without a Redis server: the same Lua scripts run
// in an in-process miniredis, whose writes are journalled to the state directory, so that the
// default store survives kill -9 as the real one does.
//
// Every write is journalled before it is executed, with its time; opening the store executes the
// journal again. That needs commands to be deterministic: those that block, pick at random, or
// leave what a snapshot can't hold are refused, also inside scripts. One thing can't be refused:
// the order in which pairs() walks over an object made by cjson.decode. Scripts must not write in
// that order.
package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	// ErrLocked says that another process has the directory open.
	ErrLocked = errors.New("the state directory is in use")
	// ErrJournal says that a write could not be journalled and therefore was not executed.
	ErrJournal = errors.New("the journal can't be written")
	// ErrCorrupt says that a record before the end of a journal or snapshot is damaged.
	ErrCorrupt = errors.New("damaged journal")
)

// Options says where the store lives and how it behaves; only Dir is required.
type Options struct {
	Dir          string           // journal, snapshot and lock; made with mode 0700
	Log          *slog.Logger     // default: slog.Default()
	Now          func() time.Time // default: time.Now
	SyncEvery    time.Duration    // fsync interval, as Redis' appendfsync everysec; default 1s
	CompactBytes int64            // the journal's size that asks for a snapshot; default 8 MiB, some seconds of replay
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.SyncEvery <= 0 {
		o.SyncEvery = time.Second
	}
	if o.CompactBytes <= 0 {
		o.CompactBytes = 8 << 20
	}
	return o
}

// Store is an open embedded Redis. Its one mutex makes each command, and each MULTI, atomic.
type Store struct {
	opts   Options
	lock   *os.File
	client *redis.Client
	done   chan struct{}
	wg     sync.WaitGroup

	mu      sync.Mutex
	mem     *memory
	gen     generation
	journal *journal
	base    int64 // the size of the snapshot that the journal goes on from
	unsafe  error // a failed fsync: what is in the journal may not be on the disk
	retryAt int64 // the journal's size at which a failed compaction is tried again
	conns   map[net.Conn]struct{}
	closed  bool
}

// Open replays the journal in o.Dir, drops a record that a crash tore at its end, and starts
// serving. It fails with ErrLocked while another process has the directory open, and with
// ErrCorrupt, changing nothing, when a record before the end is damaged.
func Open(o Options) (*Store, error) {
	o = o.withDefaults()
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the embedded store's directory: %w", err)
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	s := &Store{opts: o, lock: lock, done: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	if err := s.load(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s.client = s.newClient()
	s.wg.Go(s.syncLoop)
	return s, nil
}

// Client is the go-redis client of the store; it lives as long as the store does.
func (s *Store) Client() redis.UniversalClient { return s.client }

// Close ends the connections, syncs the journal and gives the directory free.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.done)
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	err := s.client.Close()
	s.wg.Wait()
	s.mem.mini.Close()
	return errors.Join(err, s.journal.file.Sync(), s.journal.file.Close(), s.lock.Close())
}

// syncLoop makes what was written durable against power loss; kill -9 needs no sync.
func (s *Store) syncLoop() {
	tick := time.NewTicker(s.opts.SyncEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-tick.C:
			s.sync()
		}
	}
}

// sync runs outside the mutex, so that a slow disk holds up no command. A failed fsync leaves it
// unknown which pages are on the disk, so the next write rewrites everything first.
func (s *Store) sync() {
	s.mu.Lock()
	j := s.journal
	dirty := j.dirty
	j.dirty = false
	s.mu.Unlock()
	if !dirty {
		return
	}
	err := j.file.Sync()
	if err == nil || errors.Is(err, os.ErrClosed) {
		return // closed: a compaction took over, and synced its own files
	}
	s.opts.Log.Error("syncing the embedded store's journal", "err", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if j == s.journal {
		s.unsafe = err
	}
}
