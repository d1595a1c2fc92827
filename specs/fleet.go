package specs

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
)

// Defaults of the language. What is missing here defaults to zero.
const (
	DefaultShardSize      = 25
	DefaultProbeKind      = "ssh"
	DefaultProbeEvery     = 10 * time.Second
	DefaultProbeTimeout   = 3 * time.Second
	DefaultProbeFailures  = 3
	DefaultMaxUnhealthy   = 0.4
	DefaultMaxUnavailable = 1
	DefaultLeaseTTL       = 30 * time.Minute
	DefaultLeaseMax       = 4 * time.Hour
	DefaultHoldFor        = 24 * time.Hour
	DefaultHoldMax        = 2
)

// Fleet is everything that one revision of the specs declares.
type Fleet struct {
	// Revision names what the fleet was read from: "dir:" and a digest of the files' names and contents,
	// or whatever a git source puts in its place.
	Revision string `json:"revision"`
	// Dir is the absolute directory that the fleet was read from, "" when it was not read from one.
	Dir string `json:"dir"`
	// Pools are sorted by name.
	Pools []*Pool `json:"pools"`
	// Caches are the named caches, sorted by name; see [Fleet.AllCaches] for the invisible ones too.
	Caches []*Cache `json:"caches"`
	// Guard holds a revision that would retire too many of all guests; nil: none does.
	Guard *Guard `json:"guard,omitempty"`
}

// Guard holds a revision back until an admin has approved its plan.
type Guard struct {
	// MaxRetire is the fraction of the guests, 0 to 1, that a revision may retire without another in their place.
	MaxRetire float64 `json:"max_retire"`
}

// Pool is a supply of guests of one kind.
type Pool struct {
	Name string `json:"name"`
	// Module is the module's source as it was written: a bundled name, a path, or a git:: or registry source.
	Module string `json:"module"`
	// ModuleDir is the module's absolute directory when Module is a path, and "" for any other source.
	ModuleDir string `json:"module_dir,omitempty"`
	// Max is the most guests the pool may have, every transitional state counted: 1 to 100000.
	Max int `json:"max"`
	// Spare is how many provisioned guests are kept that belong to no named cache. Default 0.
	Spare int `json:"spare"`
	// ShardSize is the most guests in one Terraform state: 1 to 500. Default 25.
	ShardSize int `json:"shard_size"`
	// Labels are matched exactly by requests. Never nil.
	Labels map[string]string `json:"labels"`
	// Capacity is matched by requests with "at least". Never nil.
	Capacity map[string]float64 `json:"capacity"`
	// Variables is the JSON object that is handed to the module, with sorted keys; "{}" when absent.
	Variables json.RawMessage `json:"variables"`
	// UserData is the bootstrap text that guests are born with. Default "".
	UserData string `json:"user_data"`
	// Probes has at least one element: a pool without a probe block gets one ssh probe.
	Probes  []Probe `json:"probes"`
	Brake   Brake   `json:"brake"`
	Rollout Rollout `json:"rollout"`
	// Guard holds a revision that would retire too many guests of the pool; nil: none does.
	Guard *Guard    `json:"guard,omitempty"`
	Range hcl.Range `json:"-"`
}

// Kinds of probes.
const (
	ProbeTCP  = "tcp"
	ProbeSSH  = "ssh"
	ProbeHTTP = "http"
	ProbeExec = "exec"
)

// Probe is one way in which the watchdog asks a guest whether it is alive.
type Probe struct {
	// Kind is one of "tcp", "ssh", "http" and "exec".
	Kind string
	// Every is the time from one probe to the next. Default 10s.
	Every time.Duration
	// Timeout is the time that one probe may take, at most Every. Default 3s, or Every when that is less.
	Timeout time.Duration
	// Failures is how many probes must fail in a row before the verdict. Default 3.
	Failures int
	// Port of a tcp or http probe. tcp: 0, the default, is the guest's ssh port. http: required.
	Port int
	// Path of an http probe. Default "/".
	Path string
	// Command of an exec probe, run in the guest; exit status 0 is alive.
	Command []string
}

// Brake stops the watchdog from tainting when too much of a pool looks dead at once.
type Brake struct {
	// MaxUnhealthy is the fraction of the pool's guests, 0 to 1, past which no guest is tainted. Default 0.4.
	MaxUnhealthy float64 `json:"max_unhealthy"`
}

// Rollout is the pace at which outdated guests are replaced.
type Rollout struct {
	// MaxUnavailable is how many guests may be missing at once because of a rollout. Default 1.
	MaxUnavailable int `json:"max_unavailable"`
}

// Cache is an owned shelf of prepared guests.
type Cache struct {
	Name string `json:"name"`
	// Owner is the team that may lease from the cache; "" is anybody.
	Owner string `json:"owner"`
	// Pools are the names of the pools that the cache draws from, in order of preference.
	Pools []string `json:"pools"`
	// Warm is how many idle guests are kept shelved ahead of demand. Default 0.
	Warm int `json:"warm"`
	// Size is the most guests that may stay shelved. Default Max.
	Size int `json:"size"`
	// Max is the most guests the cache may have in all, leased ones included. Default the sum of its pools' max.
	Max int `json:"max"`
	// Enabled says whether the cache grants leases. Default true.
	Enabled bool   `json:"enabled"`
	Lease   Lease  `json:"lease"`
	Reuse   Reuse  `json:"reuse"`
	Prepare Script `json:"prepare"`
	Reset   Script `json:"reset"`
	Hold    Hold   `json:"hold"`
	// Invisible marks the cache that every pool has under its own name.
	Invisible bool      `json:"invisible,omitempty"`
	Range     hcl.Range `json:"-"`
}

// Lease bounds the leases of a cache.
type Lease struct {
	// TTL is how long a lease lives after a heartbeat, at least 5s. Default 30m, or Max when that is less.
	TTL time.Duration
	// Max is how long a lease lives whatever its heartbeats. Default 4h, or TTL when that is more.
	Max time.Duration
}

// Reuse says how often and how long a guest is shelved again before it is replaced. Zero is without limit.
type Reuse struct {
	// Uses is how many leases a guest may serve. Default 0.
	Uses int
	// Age is how old a guest may be when it is shelved. Default 0.
	Age time.Duration
}

// Script is run in a guest by its cache; Path is "" where the cache has none.
type Script struct {
	// Path is the file as the spec names it, relative to the spec directory.
	Path string `json:"path"`
	// Body is what the file contained when the spec was read.
	Body []byte `json:"-"`
}

// Hold is the budget for keeping guests aside for diagnosis.
type Hold struct {
	// For is the longest a guest is held. Default 24h.
	For time.Duration
	// Max is how many guests may be held at once; 0 forbids holding. Default 2.
	Max int
}

// MarshalJSON writes durations as the language writes them ("10s"), and leaves out what the kind does not use.
func (p Probe) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Kind     string   `json:"kind"`
		Every    string   `json:"every"`
		Timeout  string   `json:"timeout"`
		Failures int      `json:"failures"`
		Port     int      `json:"port,omitempty"`
		Path     string   `json:"path,omitempty"`
		Command  []string `json:"command,omitempty"`
	}{p.Kind, brief(p.Every), brief(p.Timeout), p.Failures, p.Port, p.Path, p.Command})
}

// MarshalJSON writes durations as the language writes them.
func (l Lease) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]string{"ttl": brief(l.TTL), "max": brief(l.Max)})
}

// MarshalJSON writes durations as the language writes them; no limit is 0 and "".
func (r Reuse) MarshalJSON() ([]byte, error) {
	age := ""
	if r.Age > 0 {
		age = brief(r.Age)
	}
	return json.Marshal(map[string]any{"uses": r.Uses, "age": age})
}

// MarshalJSON writes durations as the language writes them.
func (h Hold) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{"for": brief(h.For), "max": h.Max})
}

// Pool returns the pool of that name, nil when there is none.
func (f *Fleet) Pool(name string) *Pool {
	for _, p := range f.Pools {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Cache returns the named cache of that name, or the invisible cache of the pool of that name, or nil.
func (f *Fleet) Cache(name string) *Cache {
	for _, c := range f.Caches {
		if c.Name == name {
			return c
		}
	}
	if p := f.Pool(name); p != nil {
		return invisible(p)
	}
	return nil
}

// AllCaches returns the named and the invisible caches, sorted by name.
func (f *Fleet) AllCaches() []*Cache {
	all := slices.Clone(f.Caches)
	for _, p := range f.Pools {
		all = append(all, invisible(p))
	}
	slices.SortFunc(all, func(a, b *Cache) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// invisible is the cache that p has under its own name. A guest of it serves one lease and is destroyed,
// because reuse is on only where a cache says so.
func invisible(p *Pool) *Cache {
	return &Cache{
		Name:      p.Name,
		Pools:     []string{p.Name},
		Warm:      p.Spare,
		Size:      p.Spare,
		Max:       p.Max,
		Enabled:   true,
		Lease:     Lease{TTL: DefaultLeaseTTL, Max: DefaultLeaseMax},
		Reuse:     Reuse{Uses: 1},
		Hold:      Hold{For: DefaultHoldFor, Max: DefaultHoldMax},
		Invisible: true,
		Range:     p.Range,
	}
}

// Eligible returns the pools of c, in its order of preference, whose guests satisfy a request: every label
// equal, every capacity at least what is asked. A capacity that the pool does not declare satisfies nothing.
func (f *Fleet) Eligible(c *Cache, labels map[string]string, atLeast map[string]float64) []string {
	var names []string
	for _, name := range c.Pools {
		if p := f.Pool(name); p != nil && p.satisfies(labels, atLeast) {
			names = append(names, name)
		}
	}
	return names
}

func (p *Pool) satisfies(labels map[string]string, atLeast map[string]float64) bool {
	for key, want := range labels {
		if got, ok := p.Labels[key]; !ok || got != want {
			return false
		}
	}
	for key, want := range atLeast {
		if got, ok := p.Capacity[key]; !ok || got < want {
			return false
		}
	}
	return true
}
