package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	miniredis.DumpMaxLineLen = 1 << 20
	switch dir := os.Getenv("EMBEDDED_TEST_DIR"); os.Getenv("EMBEDDED_TEST_CHILD") {
	case "writer":
		os.Exit(childExit(writeForever(dir)))
	case "full":
		signal.Ignore(syscall.SIGXFSZ)
		os.Exit(childExit(fillDisk(dir)))
	}
	goleak.VerifyTestMain(m)
}

func childExit(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// open opens a store that is closed with the test.
func open(t testing.TB, o Options) *Store {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// reopen closes s and opens its directory again.
func reopen(t testing.TB, s *Store) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, s.opts)
}

// do runs a command and returns its reply, errors as text.
func do(s *Store, args ...any) any {
	v, err := s.Client().Do(context.Background(), args...).Result()
	if err != nil {
		return err.Error()
	}
	return v
}

// must runs a command that succeeds.
func must(t testing.TB, s *Store, args ...any) any {
	t.Helper()
	v, err := s.Client().Do(context.Background(), args...).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		t.Fatalf("%v: %v", args, err)
	}
	return v
}

// state is everything that the store holds by now, as seen by miniredis and by a snapshot.
func state(s *Store) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mem.advance(s.opts.Now())
	s.mem.sweep(s.mem.millis)
	var b strings.Builder
	b.WriteString(s.mem.mini.Dump())
	for _, args := range slices.Collect(s.mem.dump()) {
		fmt.Fprintf(&b, "%q\n", args)
	}
	return b.String()
}

// manual is a clock that the test moves.
type manual struct{ now time.Time }

func newManual() *manual { return &manual{now: time.UnixMilli(1_700_000_000_000)} }

func (m *manual) Now() time.Time { return m.now }

func (m *manual) add(d time.Duration) { m.now = m.now.Add(d) }

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
