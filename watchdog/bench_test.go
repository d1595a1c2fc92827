package watchdog

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"greenroom/lease"
	"greenroom/specs"
)

// BenchmarkScheduling is the cost of one probe of one of 10 000 guests, less the probe itself: an iteration is a probe.
func BenchmarkScheduling(b *testing.B) {
	p := poolOf(10_000)
	p.Probes[0].Every = time.Microsecond // always due
	y := newYard(b, p)
	for i := range p.Max {
		y.found(i + 1)
	}
	w, err := New(Options{Store: y.Store, Log: slog.New(slog.DiscardHandler), Refresh: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	left := make(chan struct{}, 1024)
	w.probe = func(ctx context.Context, _ lease.Guest, s specs.Probe) Result {
		select {
		case left <- struct{}{}:
		case <-ctx.Done():
		}
		return Result{Kind: s.Kind, At: time.Now(), Outcome: OK}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	for range p.Max {
		<-left
	}
	for b.Loop() {
		<-left
	}
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
