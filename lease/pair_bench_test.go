package lease_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"greenroom/lease"
	"greenroom/lease/leasetest"
)

// BenchmarkPair leases and returns guests from 64 sides at once, and reports the processor time that Redis takes for a pair.
func BenchmarkPair(b *testing.B) {
	server := leasetest.Redis(b)
	if err := server.Client.ConfigSet(b.Context(), "appendonly", "no").Err(); err != nil {
		b.Fatal(err)
	}
	cache := ci()
	cache.Size, cache.Max = 100, 100
	s := open(b, server.Client, cache)
	s.fleet.Pool("local").Max = 100
	s.shelf("ci", 100)
	used := func() float64 {
		info, err := server.Client.Info(b.Context(), "cpu").Result()
		if err != nil {
			b.Fatal(err)
		}
		var sum float64
		for line := range strings.Lines(info) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			if name == "used_cpu_user" || name == "used_cpu_sys" {
				n, _ := strconv.ParseFloat(value, 64)
				sum += n
			}
		}
		return sum
	}
	before := used()
	b.ReportAllocs()
	b.ResetTimer()
	var all sync.WaitGroup
	for side := range 64 {
		all.Go(func() {
			for n := side; n < b.N; n += 64 {
				l, err := s.Acquire(b.Context(), alice, lease.Request{Cache: "ci", Key: fmt.Sprint(b.N, "/", n)})
				if err == nil {
					_, err = s.Release(b.Context(), alice, l.ID, lease.Release{Outcome: "pass"})
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	b.ReportMetric((used()-before)*1e6/float64(b.N), "redis-µs/pair")
}
