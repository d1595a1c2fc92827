package server

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sys/unix"

	"greenroom/lease"
	"greenroom/lease/leasetest"
	"greenroom/reconcile"
	"greenroom/specs"
	"greenroom/watchdog"
)

// BenchmarkScrape is the cost of one scrape, as Prometheus makes it, of 10 000 guests in 20 pools and 40 caches.
func BenchmarkScrape(b *testing.B) {
	b.Run("on the embedded store", func(b *testing.B) { benchmarkScrape(b, leasetest.Embedded(b)) })
	b.Run("on a real Redis", func(b *testing.B) { benchmarkScrape(b, leasetest.Redis(b).Client) })
}

func benchmarkScrape(b *testing.B, rdb redis.UniversalClient) {
	const guests = 10_000
	store := lease.New(rdb, lease.Options{})
	fleet := wideFleet(20, 40, guests)
	if err := errors.Join(store.Open(b.Context()), store.Adopt(b.Context(), fleet)); err != nil {
		b.Fatal(err)
	}
	populate(b, store, fleet, guests)
	registry := prometheus.NewRegistry()
	if _, err := watchdog.New(watchdog.Options{Store: store, Registerer: registry}); err != nil {
		b.Fatal(err)
	}
	reconcile.New(reconcile.Options{Store: store, Registry: registry})
	tokens, err := OpenTokens(b.TempDir(), time.Now)
	if err != nil {
		b.Fatal(err)
	}
	handler := Handler(Parts{Store: store, Tokens: tokens, Registry: registry, Log: slog.New(slog.DiscardHandler)})
	count := &trips{}
	rdb.AddHook(count)
	scrape := func() *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Header.Set("Accept-Encoding", "gzip")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w
	}
	scrape() // the first brings the script
	count.n.Store(0)
	var last *httptest.ResponseRecorder
	before := cpu(b)
	for b.Loop() {
		last = scrape()
	}
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/1000/float64(b.N), "cpu-ms/op") // of this process
	b.ReportMetric(float64(count.n.Load())/float64(b.N), "trips/op")
	text, err := gzip.NewReader(last.Body)
	if err != nil {
		b.Fatal(err)
	}
	size, err := io.Copy(io.Discard, text)
	if err != nil || last.Code != http.StatusOK {
		b.Fatal(last.Code, err)
	}
	b.ReportMetric(float64(size), "bytes/scrape")
}

// cpu is the time that this process has had of all cores, which on a busy machine says more than the clock.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// wideFleet has caches that draw from two pools each.
func wideFleet(pools, caches, guests int) *specs.Fleet {
	fleet := &specs.Fleet{Revision: "wide"}
	for i := range pools {
		fleet.Pools = append(fleet.Pools, &specs.Pool{Name: fmt.Sprintf("pool-of-machines-%03d", i), Module: "local", Max: guests, ShardSize: 25, Variables: json.RawMessage("{}")})
	}
	for i := range caches {
		fleet.Caches = append(fleet.Caches, &specs.Cache{
			Name: fmt.Sprintf("cache-of-a-team-%03d", i), Pools: []string{fleet.Pools[i%pools].Name, fleet.Pools[(i+1)%pools].Name},
			Size: guests, Max: guests, Enabled: true,
		})
	}
	return fleet
}

// populate plans guests, the same number in each cache.
func populate(b *testing.B, store *lease.Store, fleet *specs.Fleet, guests int) {
	b.Helper()
	var all sync.WaitGroup
	const hands = 8
	for hand := range hands {
		all.Go(func() {
			for i := hand; i < guests; i += hands {
				c := fleet.Caches[i%len(fleet.Caches)]
				if _, err := store.Plan(b.Context(), fleet.Pool(c.Pools[i/len(fleet.Caches)%2]), c, "shard", "digest", false); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}
