package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/modules"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/terraform"
)

// coldSpec is a cache that keeps nothing ahead of demand, so that each request is a miss.
func coldSpec(module, variables, probe string, most int) string {
	return fmt.Sprintf(`
pool "cold" {
  module    = %q
  max       = %d
  variables = { %s }
  probe "%s" { every = "10s" }
}

cache "bench" {
  owner = "platform"
  pools = [pool.cold]
  warm  = 0
}
`, module, most, variables, probe)
}

// misses is benchmark 3.
func misses(ctx context.Context, l *lab) ([]result, error) {
	reaction, err := l.reacting(ctx)
	if err != nil {
		return nil, err
	}
	leased, err := l.leasing(ctx)
	return append(reaction, leased...), err
}

// fleetOf starts a server with real Redis on specs, and waits until they are in force.
func (l *lab) fleetOf(ctx context.Context, text string, pools int, args ...string) (e *estate, err error) {
	e = &estate{}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	if e.redis, err = l.redis(ctx); err != nil {
		return e, err
	}
	e.closers = append(e.closers, e.redis.close)
	dir, err := l.writeSpecs(text)
	if err != nil {
		return e, err
	}
	if e.server, err = l.serve(ctx, dir, e.redis.addr, args...); err != nil {
		return e, err
	}
	e.closers = append(e.closers, e.server.stop)
	return e, e.server.ready(ctx, pools, 2*time.Minute)
}

// miss asks for a guest that is not there, and tells how long it took until it was leased.
func (s *server) miss(ctx context.Context) (began time.Time, took time.Duration, err error) {
	began = time.Now()
	l, err := s.api.Acquire(ctx, client.Request{Cache: "bench"}, nil)
	took = time.Since(began)
	if err == nil && (l.Hit || l.Phase != lease.Active) {
		err = fmt.Errorf("the request was no miss: %+v", l)
	}
	return began, took, err
}

// timed is the module of no machines, with the time at which each is made.
var timed = strings.Replace(module, `triggers_replace = each.value.incarnation`, `triggers_replace = each.value.incarnation
  provisioner "local-exec" {
    interpreter = ["/bin/bash", "-c"]
    command     = "echo $EPOCHREALTIME >> ${var.log}"
  }
}
variable "log" {
  type = string`, 1)

// reacting measures from a request until an apply is started for its guest, and until that sets about making the guest, of which the
// module tells by a command of its own.
func (l *lab) reacting(ctx context.Context) ([]result, error) {
	port, stop, err := respond()
	if err != nil {
		return nil, err
	}
	defer stop()
	dir, err := l.place()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "main.tf"), []byte(timed), 0o600); err != nil {
		return nil, err
	}
	notes, err := l.place() // beside the module, which would be another one with each line
	if err != nil {
		return nil, err
	}
	begun := log{filepath.Join(notes, "begun")}
	n := l.sizes.misses
	e, err := l.fleetOf(ctx, coldSpec(dir, fmt.Sprintf("port = %d, log = %q", port, begun.path), "tcp", n), 1)
	if err != nil {
		return nil, err
	}
	defer e.close()
	var started, applied, leased []float64
	for range n {
		began, took, err := e.server.miss(ctx)
		if err != nil {
			return nil, err
		}
		start, err := e.server.applyAfter(began)
		if err != nil {
			return nil, err
		}
		apply, err := begun.after(began)
		if err != nil {
			return nil, err
		}
		started, applied, leased = append(started, millis(start)), append(applied, millis(apply)), append(leased, millis(took))
		if err := e.server.calm(ctx); err != nil {
			return nil, err
		}
	}
	return []result{
		{Name: "miss until terraform apply starts, p95", Unit: "ms", Measured: percentile(started, 95), Goal: atMost(100)},
		{Name: "the same, median", Unit: "ms", Measured: percentile(started, 50)},
		{Name: "miss until terraform apply makes the guest, p95", Unit: "ms", Measured: percentile(applied, 95)},
		{Name: "the same, median", Unit: "ms", Measured: percentile(applied, 50)},
		{Name: "miss to the lease, median", Unit: "ms", Measured: percentile(leased, 50)},
	}, nil
}

// applyAfter is how long after a time an apply was started, as the runner has written it down: at the moment in which the guard has passed its plan
// and it is let go, or in which the one process for both begins.
func (s *server) applyAfter(t time.Time) (time.Duration, error) {
	logs, _ := filepath.Glob(filepath.Join(s.dir, "state", "shards", "*", "runner.log")) // the pattern is well formed
	for _, file := range logs {
		text, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(text)) {
			var said struct {
				Time time.Time
				Msg  string
			}
			if json.Unmarshal([]byte(line), &said) == nil && said.Msg == terraform.ApplyStarts && said.Time.After(t) {
				return said.Time.Sub(t), nil
			}
		}
	}
	return 0, fmt.Errorf("no apply was started after %v", t)
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// percentile is what p of 100 values do not exceed.
func percentile(values []float64, p int) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[(len(sorted)*p+99)/100-1]
}

// ratios of what was measured in turn.
func ratios(a, b []float64) (all []float64) {
	for n := range a {
		all = append(all, a[n]/b[n])
	}
	return all
}

// leasing measures from a request to a lease of a local guest, in turn with the same change made by hand.
func (l *lab) leasing(ctx context.Context) ([]result, error) {
	n := l.sizes.locals
	e, err := l.fleetOf(ctx, coldSpec("local", "", "ssh", n), 1)
	if err != nil {
		return nil, err
	}
	defer e.close()
	defer l.endGuests(ctx, filepath.Join(e.server.dir, "state", "guests"))
	bare, guests, err := l.bareLocal(ctx)
	if err != nil {
		return nil, err
	}
	defer l.endGuests(ctx, guests)
	var ours, theirs []float64
	for made := range n {
		took, err := bare.make(ctx, made+1)
		if err != nil {
			return nil, err
		}
		_, leased, err := e.server.miss(ctx)
		if err != nil {
			return nil, err
		}
		ours, theirs = append(ours, millis(leased)), append(theirs, millis(took))
		if err := e.server.calm(ctx); err != nil {
			return nil, err
		}
	}
	return []result{{
		Name: "miss to the lease of a local guest", Unit: "ms", Measured: percentile(ours, 50),
		Baseline: percentile(theirs, 50), Against: "terraform apply of the same guest until it answers",
		Ratio: median(ratios(ours, theirs)), Goal: atMost(1.3),
	}}, nil
}

// bareLocal is a root of the bundled local module, and where its guests live.
func (l *lab) bareLocal(ctx context.Context) (r *root, guests string, err error) {
	dir, err := l.place()
	if err != nil {
		return nil, "", err
	}
	tree, _ := modules.Lookup("local")
	module, guests := filepath.Join(dir, "local"), filepath.Join(dir, "guests")
	if err := os.CopyFS(module, tree); err != nil {
		return nil, "", err
	}
	r, err = l.bareRoot(ctx, module, "cold", nil, "GREENROOM_BINARY="+l.binary, "GREENROOM_GUESTS_DIR="+guests)
	return r, guests, err
}

// endGuests ends local guests, which would live on without those who made them.
func (l *lab) endGuests(ctx context.Context, dir string) {
	entries, _ := os.ReadDir(dir) // none: there are no guests
	for _, entry := range entries {
		cmd := exec.CommandContext(context.WithoutCancel(ctx), l.binary, "guestd", "stop", "--dir", filepath.Join(dir, entry.Name()))
		if out, err := cmd.CombinedOutput(); err != nil {
			l.sayf("  a guest could not be ended: %v\n%s", err, out)
		}
	}
}

// calm waits until no run is under way, and a moment longer.
func (s *server) calm(ctx context.Context) error {
	if err := until(ctx, patience, func() error {
		shards, err := s.api.Shards(ctx)
		for _, sh := range shards {
			if c := condition.Of(sh.Conditions, condition.Reconciling); c.Status {
				return fmt.Errorf("shard %s: %+v", sh.Shard, c)
			}
		}
		return err
	}); err != nil {
		return err
	}
	return pause(ctx, 50*time.Millisecond)
}

// make makes one guest more and waits until it greets.
func (r *root) make(ctx context.Context, guests int) (time.Duration, error) {
	if err := r.want(guests); err != nil {
		return 0, err
	}
	began := time.Now()
	if _, err := r.apply(ctx); err != nil {
		return 0, err
	}
	out, err := r.outputs()
	if err != nil {
		return 0, err
	}
	err = greets(ctx, out[fmt.Sprintf("%s-%d", r.pool, guests)])
	return time.Since(began), err
}

// greets waits for the banner of a guest's SSH server.
func greets(ctx context.Context, g terraform.Output) error {
	return until(ctx, patience, func() error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(g.Host, strconv.Itoa(g.Port)))
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, err = conn.Read(make([]byte, 8))
		return err
	})
}
