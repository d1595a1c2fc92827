package reconcile

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"greenroom/lease"
	"greenroom/reconcile/terraform"
)

// refused is what a call comes to while the store is away; each comes from another port.
func refused(port int) error {
	from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
	return fmt.Errorf("move in cache ci: %w: %w", lease.ErrUnavailable, &net.OpError{Op: "read", Net: "tcp", Source: from, Err: syscall.ECONNRESET})
}

func TestWhatFailsAgainAndAgainIsLoggedOnceUntilItIsSomethingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs strings.Builder
		l := New(Options{Log: slog.New(slog.NewTextHandler(&logs, nil))})
		errs := []error{refused(40001), refused(40002), errors.New("no space left"), errors.New("no space left"), refused(40003), nil}
		tries := 0
		ok := l.insist(t.Context(), &terraform.Running{}, "published", func() error {
			tries++
			return errs[tries-1]
		})
		if n := strings.Count(logs.String(), "could not be published"); !ok || tries != len(errs) || n != 3 {
			t.Errorf("%v after %d tries, logged %d times:\n%s", ok, tries, n, &logs)
		}
	})
}

func TestARunThatCannotBeStartedLetsItsShardGo(t *testing.T) {
	l, store, _, _ := ticking(t, cold(1))
	l.shard("unknown", "paaa") // of which nobody knows what its guests are born of
	if err := l.ensureShard("known", "paaa"); err != nil {
		t.Fatal(err)
	}
	if err := l.terraform().Shutdown(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for _, shard := range []string{"unknown", "known"} {
		l.run(t.Context(), shard, "paaa", "run", true)
		if sh := l.shards[shard]; sh.failures != 1 || sh.run != "" {
			t.Errorf("shard %s: %+v", shard, sh)
		}
		if _, err := store.Lock(t.Context(), "paaa", shard, "another", time.Minute); err != nil {
			t.Errorf("another server can't have shard %s: %v", shard, err)
		}
	}
}
