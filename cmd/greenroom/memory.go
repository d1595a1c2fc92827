package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// Bounds of what the server may have in memory; see tendMemory.
const (
	garbage  = 300       // percent of what is in use
	leastMem = 200 << 20 // bytes that are not saved on
	roomMem  = 44 << 20  // bytes that there are always for garbage
)

// tendMemory lets garbage pile up while there is room, because a small heap would be collected many times a second, and less of it the
// more is in use, because the heap of 100 000 guests would stand in memory several times: the soft limit follows what is in use.
func tendMemory(ctx context.Context) {
	debug.SetGCPercent(garbage)
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	collected := make(chan struct{}, 1)
	watchCollector(ctx, collected)
	for {
		metrics.Read(live)
		debug.SetMemoryLimit(memoryLimit(int64(live[0].Value.Uint64())))
		select {
		case <-ctx.Done():
			return
		case <-collected:
		}
	}
}

// watchCollector tells of every collection: what is in use is known anew then, and to set a limit stops all that runs.
func watchCollector(ctx context.Context, collected chan<- struct{}) {
	type canary struct{ _ *byte } // it has a pointer, so it stands alone, and is garbage at once
	runtime.AddCleanup(new(canary), func(collected chan<- struct{}) {
		select {
		case collected <- struct{}{}:
		default:
		}
		if ctx.Err() == nil {
			watchCollector(ctx, collected)
		}
	}, collected)
}

// memoryLimit is the soft limit where so many bytes are in use.
func memoryLimit(live int64) int64 { return max(leastMem, live+live/4+roomMem) }
