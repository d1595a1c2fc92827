package server

import (
	"log/slog"
	"net"
	"strings"
	"testing"

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

func TestAServerThatFindsNoStoreAtItsStartSaysSoOnce(t *testing.T) {
	rdb, err := dialRedis("redis://" + nobody(t))
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	logs := &logBuffer{}
	p := newPulse(lease.New(rdb, lease.Options{}), slog.New(slog.NewTextHandler(logs, nil)))
	for range 3 {
		p.sweep(t.Context())
	}
	if n := strings.Count(logs.String(), "the store is away"); n != 1 || p.outage() == nil {
		t.Errorf("that the store is away is logged %d times, want once; outage %v:\n%s", n, p.outage(), logs)
	}
}
