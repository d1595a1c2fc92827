package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// respond answers tcp probes on every address of this host and returns its port. It closes at once what it accepts.
func respond() (port int, stop func(), err error) {
	listener, err := net.Listen("tcp4", "0.0.0.0:0") // all of 127.0.0.0/8: see shelf.put
	if err != nil {
		return 0, nil, err
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	return listener.Addr().(*net.TCPAddr).Port, func() { _ = listener.Close() }, nil
}

// probeInterval is between two probes of a guest.
const probeInterval = 10 * time.Second

// watching is benchmark 6.
func watching(ctx context.Context, l *lab) ([]result, error) {
	probes, err := l.probing(ctx)
	if err != nil {
		return nil, err
	}
	memory, err := l.remembering(ctx)
	return append(probes, memory...), err
}

// probing counts the probes of a while and what they cost.
func (l *lab) probing(ctx context.Context) ([]result, error) {
	port, stop, err := respond()
	if err != nil {
		return nil, err
	}
	defer stop()
	_, parts, err := l.stocked(ctx, shelf{guests: l.sizes.probed, port: port, every: probeInterval})
	if err != nil {
		return nil, err
	}
	defer parts.close()
	if err := pause(ctx, min(l.sizes.window, 2*probeInterval)); err != nil { // until all are in the timetable
		return nil, err
	}
	results, err := parts.server.countProbes(ctx, l.sizes)
	if err != nil {
		return nil, err
	}
	scrape, err := parts.server.scrapes(ctx)
	return append(results, result{
		Name: fmt.Sprintf("a scrape of the metrics with %d guests", l.sizes.probed), Unit: "ms", Measured: scrape, Goal: atMost(50),
	}), err
}

// countProbes watches the probes of a while.
func (s *server) countProbes(ctx context.Context, z sizes) ([]result, error) {
	before, err := s.probes(ctx)
	if err != nil {
		return nil, err
	}
	used, err := s.cpu()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := pause(ctx, z.window); err != nil {
		return nil, err
	}
	took := time.Since(start)
	usedAfter, err := s.cpu()
	if err != nil {
		return nil, err
	}
	after, err := s.probes(ctx)
	if err != nil {
		return nil, err
	}
	wanted := float64(z.probed) / probeInterval.Seconds()
	return []result{
		{
			Name: fmt.Sprintf("processor for probing %d guests every %v", z.probed, probeInterval), Unit: "% of a core",
			Measured: 100 * (usedAfter - used).Seconds() / took.Seconds(), Goal: atMost(50),
		},
		{
			Name: "probes made, of those wanted", Unit: "/s", Measured: (after - before) / took.Seconds(),
			Baseline: wanted, Against: "guests by interval", Ratio: (after - before) / took.Seconds() / wanted, Goal: atLeast(0.95),
		},
	}, nil
}

// scrapes is the median time of a scrape, in milliseconds.
func (s *server) scrapes(ctx context.Context) (float64, error) {
	var took []time.Duration
	for range 21 {
		start := time.Now()
		if _, err := s.probes(ctx); err != nil {
			return 0, err
		}
		took = append(took, time.Since(start))
	}
	return float64(median(took).Microseconds()) / 1000, nil
}

// probes is how many probes the server says it has made with success.
func (s *server) probes(ctx context.Context) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, `greenroom_probes_total{pool="null",result="ok"} `); ok {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
	}
	return 0, err
}

// remembering looks at the memory of a server that has had many guests for a while.
func (l *lab) remembering(ctx context.Context) ([]result, error) {
	_, parts, err := l.stocked(ctx, shelf{guests: l.sizes.many, port: 1, every: 24 * time.Hour})
	if err != nil {
		return nil, err
	}
	defer parts.close()
	if err := pause(ctx, l.sizes.settled); err != nil {
		return nil, err
	}
	now, peak, err := parts.server.memory()
	mb := func(n int64) float64 { return float64(n) / 1e6 }
	return []result{
		{Name: fmt.Sprintf("memory with %d guests, the most since the start", l.sizes.many), Unit: "MB", Measured: mb(peak), Goal: atMost(250)},
		{Name: "the same, at the end", Unit: "MB", Measured: mb(now)},
	}, err
}
