package server

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"greenroom/lease"
)

// nobody is an address at which nothing listens.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// silent is an address at which somebody listens and never answers.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// What is not accepted is connected all the same, and waits for an answer.
func TestASilentStoreHoldsUpNoCallBeyondItsDeadline(t *testing.T) {
	at := silent(t)
	for name, url := range map[string]string{
		"single":  "redis://" + at + "/0?read_timeout=30s",
		"Cluster": "redis://" + at + "?addr=" + at + "&read_timeout=30s",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rdb, err := dialRedis(url)
			if err != nil {
				t.Fatal(err)
			}
			defer rdb.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			begun := time.Now()
			if err := rdb.Ping(ctx).Err(); err == nil || time.Since(begun) > 15*time.Second {
				t.Errorf("%v after %v", err, time.Since(begun))
			}
		})
	}
}

// A silent Sentinel names no master that a call could wait for, so that the setting has to do.
func TestDeadlinesCountBehindSentinelToo(t *testing.T) {
	rdb, err := dialRedis("redis://127.0.0.1:1/0?master_name=m")
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	if c, ok := rdb.(*redis.Client); !ok || !c.Options().ContextTimeoutEnabled {
		t.Errorf("%T ignores deadlines", rdb)
	}
}

func TestAServerThatFindsNoStoreAtItsStartSaysSoOnce(t *testing.T) {
	rdb, err := dialRedis("redis://" + nobody(t))
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	logs := &logBuffer{}
	p := newPulse(lease.New(rdb, lease.Options{}), "", slog.New(slog.NewTextHandler(logs, nil)))
	for range 3 {
		_ = p.sweep(t.Context())
	}
	if n := strings.Count(logs.String(), "the store is away"); n != 1 || p.outage() == nil {
		t.Errorf("that the store is away is logged %d times, want once; outage %v:\n%s", n, p.outage(), logs)
	}
}
