package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the time between two passes that nothing has caused.
const tick = 10 * time.Second

// idling is benchmark 5.
func idling(ctx context.Context, l *lab) ([]result, error) {
	terraform, started, err := l.spy()
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	for n := range l.sizes.pools {
		fmt.Fprintf(&text, "pool \"idle%d\" {\n  module    = \"./null\"\n  max       = 4\n  variables = { port = 1 }\n}\n\n", n)
	}
	e, err := l.fleetOf(ctx, text.String(), l.sizes.pools, "--terraform", terraform)
	if err != nil {
		return nil, err
	}
	defer e.close()
	if err := pause(ctx, l.sizes.window/8); err != nil {
		return nil, err
	}
	before, err := started.lines()
	if err != nil {
		return nil, err
	}
	used, err := e.server.ran()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := pause(ctx, l.sizes.idle); err != nil {
		return nil, err
	}
	ticks := float64(time.Since(start)) / float64(tick)
	now, err := e.server.ran()
	if err != nil {
		return nil, err
	}
	after, err := started.lines()
	return []result{
		{
			Name: fmt.Sprintf("Terraform processes of idle ticks over %d pools", l.sizes.pools), Unit: "in all",
			Measured: float64(len(after) - len(before)), Goal: goal{None: true},
		},
		{
			Name: fmt.Sprintf("processor time of the whole server in %v, a tick", tick), Unit: "ms",
			Measured: millis(now-used) / ticks, Goal: atMost(20),
		},
	}, err
}

// ran is the processor time of all threads of the process, to the nanosecond; those that have ended are not in it.
func (p *process) ran() (sum time.Duration, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has just ended
		}
		on, _, _ := strings.Cut(string(text), " ")
		n, err := strconv.ParseInt(on, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s has %q", file, text)
		}
		sum += time.Duration(n)
	}
	return sum, err
}
