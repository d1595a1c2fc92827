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
)

// loop stands for the reconcile loop.
type loop struct {
	mu     sync.Mutex
	status condition.Status
	woken  []string
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

func (l *loop) Explain(_ context.Context, cache string) string {
	return "every guest of cache " + cache + " is leased"
}

// dog stands for the watchdog.
type dog struct {
	result string
	err    error
	brakes map[string]string
}

func (d *dog) Probe(context.Context, lease.Guest) (string, error) { return d.result, d.err }

func (d *dog) Brakes() map[string]string { return d.brakes }

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
