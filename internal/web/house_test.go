package web_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"greenroom/lease"
	"greenroom/reconcile/condition"
	"greenroom/specs"
	"greenroom/watchdog"
)

// loop stands for the reconcile loop.
type loop struct {
	mu     sync.Mutex
	status condition.Status
	woken  []string
	runs   []condition.RunStatus
}

func (l *loop) Status(context.Context) (condition.Status, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status, nil
}

// say changes what the loop says.
func (l *loop) say(how func(*condition.Status)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	how(&l.status)
}

func (l *loop) Wake(pools ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.woken = append(l.woken, fmt.Sprint(pools))
}

func (l *loop) Trouble() error { return nil }

func (l *loop) Runs(string) []condition.RunStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.runs
}

func (l *loop) Explain(_ context.Context, cache string) string {
	return "every guest of cache " + cache + " is leased"
}

// dog stands for the watchdog.
type dog struct {
	result string
	err    error
	brakes map[string]string
	probes []watchdog.Standing
}

func (d *dog) Probe(context.Context, lease.Guest) (string, error) { return d.result, d.err }

func (d *dog) Brakes() map[string]string { return d.brakes }

func (d *dog) Standings(context.Context, string) ([]watchdog.Standing, error) {
	return d.probes, d.err
}

func testFleet() *specs.Fleet {
	return &specs.Fleet{
		Revision: "test-1",
		Pools: []*specs.Pool{{
			Name: "local", Module: "git::https://robot:hunter2@git.example.org/modules.git", Max: 6, ShardSize: 25,
			Labels: map[string]string{"os": "debian-12"}, Capacity: map[string]float64{"cpus": 2},
			Variables: json.RawMessage(`{"image":"secret-image","isolation":"process"}`), UserData: "secret-user-data",
			Probes: []specs.Probe{{Kind: specs.ProbeSSH, Every: 10 * time.Second, Timeout: 3 * time.Second, Failures: 3}},
			Brake:  specs.Brake{MaxUnhealthy: .4}, Rollout: specs.Rollout{MaxUnavailable: 1}, Guard: &specs.Guard{MaxRetire: .25},
		}},
		Caches: []*specs.Cache{{
			Name: "ci", Owner: "platform", Pools: []string{"local"}, Warm: 1, Size: 3, Max: 4, Enabled: true,
			Lease: specs.Lease{TTL: time.Minute, Max: time.Hour}, Hold: specs.Hold{For: 2 * time.Hour, Max: 1},
			Reuse: specs.Reuse{Uses: 50, Age: 24 * time.Hour},
		}},
	}
}

func standing() condition.Status {
	ready := []condition.Condition{{Type: condition.Ready, Status: true, Reason: "Converged", Message: "everything that the spec wants is there", Since: now}}
	return condition.Status{
		Revision: "test-1", Source: "a test", SpecValid: true, SpecSince: now, Terraform: "1.11.4",
		Conditions: []condition.Condition{{Type: condition.Ready, Status: true, Reason: "Serving", Message: "revision test-1 is in force", Since: now}},
		Pools: []condition.PoolStatus{{
			Pool: "local", Module: "local", Max: 6, Guests: map[lease.State]int{lease.Shelved: 2, lease.Booting: 1}, Conditions: ready,
			Shards: []condition.ShardStatus{{
				Shard: "local-1234-1", Pool: "local", Guests: 3, Conditions: ready, LastRun: &condition.RunStatus{
					Run: "r7", Started: now.Add(-time.Minute), Ended: now, Result: "ok", Created: []string{"local-1", "local-2"}, Replaced: []string{"local-3"},
				},
			}},
		}},
	}
}

// shelve puts one more guest of a cache on its shelf, by the steps that the loop takes.
func (h *house) shelve(cache string) lease.Guest {
	h.t.Helper()
	ctx, fleet := h.t.Context(), h.store.Fleet()
	c := fleet.Cache(cache)
	g, err := h.store.Plan(ctx, fleet.Pool(c.Pools[0]), c, c.Pools[0]+"-1234-1", "digest", false)
	must(h.t, err)
	g, err = h.store.Claim(ctx, g, lease.Provisioning, "run", "", 0)
	must(h.t, err)
	g, err = h.store.Publish(ctx, g, "run", g.Incarnation, lease.Machine{ID: "1", Host: "192.0.2.7", Port: 2222, User: "root", HostKey: "ssh-ed25519 AAAA"})
	must(h.t, err)
	g, err = h.store.Booted(ctx, g)
	must(h.t, err)
	return g
}

// acquire asks for a guest in the name of a caller.
func (h *house) acquire(by lease.Caller, cache string) lease.Lease {
	h.t.Helper()
	l, err := h.store.Acquire(h.t.Context(), by, lease.Request{Cache: cache, Wait: lease.Forever})
	must(h.t, err)
	return l
}

func (h *house) release(by lease.Caller, l lease.Lease, outcome string) {
	h.t.Helper()
	_, err := h.store.Release(h.t.Context(), by, l.ID, lease.Release{Outcome: outcome})
	must(h.t, err)
}

// replace taints a guest and puts another machine in its place.
func (h *house) replace(g lease.Guest, reason, evidence string) lease.Guest {
	h.t.Helper()
	ctx := h.t.Context()
	g, err := h.store.Taint(ctx, alice, g, lease.Taint{Reason: reason, Evidence: evidence, Condemn: true})
	must(h.t, err)
	for _, run := range []string{"", "run"} { // what is decided, and then taken up
		g, err = h.store.Claim(ctx, g, lease.Replacing, run, reason, 0)
		must(h.t, err)
	}
	g, err = h.store.Publish(ctx, g, "run", g.Incarnation+1, lease.Machine{ID: "2", Host: "192.0.2.8", Port: 2222, User: "root"})
	must(h.t, err)
	g, err = h.store.Booted(ctx, g)
	must(h.t, err)
	return g
}

// Some of the callers that the tokens of a house stand for.
var (
	alice = lease.Caller{Name: "alice", Owner: "admin", Role: lease.Admin}
	bob   = lease.Caller{Name: "bob", Owner: "platform", Role: lease.User}
)
