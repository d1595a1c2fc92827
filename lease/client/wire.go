package client

import (
	"fmt"
	"time"

	"greenroom/lease"
	"greenroom/reconcile/condition"
)

// Duration is written in JSON as Go and HCL write durations: "30m".
type Duration time.Duration

// MarshalText writes the duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads a duration, which must not be negative.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 || len(text) > 32 {
		return fmt.Errorf("%.40q is no duration; write one such as \"30m\" or \"1h30m\"", text)
	}
	*d = Duration(v)
	return nil
}

// Request is the body of POST /v1/leases.
type Request struct {
	Cache     string             `json:"cache,omitempty"`    // empty: a spare of any pool that satisfies the rest
	Labels    map[string]string  `json:"labels,omitempty"`   // all must be equal
	AtLeast   map[string]float64 `json:"at_least,omitempty"` // capacities
	TTL       Duration           `json:"ttl,omitempty"`      // zero: the cache's
	Wait      *Duration          `json:"wait,omitempty"`     // nil: for as long as somebody asks; 0: not at all
	Key       string             `json:"-"`                  // Idempotency-Key; one is made when it is empty
	PublicKey string             `json:"public_key,omitempty"`
}

// Renewal is the body of POST /v1/leases/{lease}/renew.
type Renewal struct {
	Token     string `json:"token,omitempty"`      // proof of the lease for the day that the store was lost
	PublicKey string `json:"public_key,omitempty"` // certified instead of the request's
}

// Release is the body of DELETE /v1/leases/{lease}; the zero value shelves the guest.
type Release struct {
	Outcome string   `json:"outcome,omitempty"` // pass, fail or empty
	Hold    Duration `json:"hold,omitempty"`
	Shelve  *bool    `json:"shelve,omitempty"` // nil: true
}

// Lease is one holder's right to one guest, or its wish for one.
type Lease struct {
	ID          string      `json:"id"`
	Cache       string      `json:"cache"`
	Holder      string      `json:"holder"`
	Owner       string      `json:"owner"`
	Phase       lease.Phase `json:"phase"`
	Position    int         `json:"position,omitempty"` // in the queue, from 1
	Reason      string      `json:"reason,omitempty"`   // why it waits, or why its release held no guest
	Guest       *Guest      `json:"guest,omitempty"`
	TTL         Duration    `json:"ttl"`
	Created     time.Time   `json:"created"`
	Granted     time.Time   `json:"granted,omitzero"`
	Deadline    time.Time   `json:"deadline,omitzero"` // expiry unless renewed
	Left        Duration    `json:"left,omitempty"`    // until the deadline, where that is the cap: by nobody's clock
	Cap         time.Time   `json:"cap,omitzero"`      // no renewal goes past it
	WaitUntil   time.Time   `json:"wait_until,omitzero"`
	Ended       time.Time   `json:"ended,omitzero"`
	How         string      `json:"how,omitempty"`
	Outcome     string      `json:"outcome,omitempty"`
	Source      string      `json:"source,omitempty"` // shelf, spare or new
	Hit         bool        `json:"hit"`
	Token       string      `json:"token,omitempty"`
	Certificate string      `json:"certificate,omitempty"` // one line of authorized_keys format
}

// Guest is where a leased guest is found. Host and what follows are for the lease's owner and admins.
type Guest struct {
	Name        string `json:"name"`
	Incarnation int    `json:"incarnation"`
	Host        string `json:"host,omitempty"`
	Port        int    `json:"port,omitempty"`
	User        string `json:"user,omitempty"`
	HostKey     string `json:"host_key,omitempty"` // authorized_keys format, to be pinned
	Health      string `json:"health,omitempty"`   // what the watchdog sees; empty is well
}

// Cache is a cache with its settings and what it has.
type Cache struct {
	Name      string              `json:"name"`
	Owner     string              `json:"owner"`
	Pools     []string            `json:"pools"`
	Warm      int                 `json:"warm"`
	Size      int                 `json:"size"`
	Max       int                 `json:"max"`
	Enabled   bool                `json:"enabled"` // in effect, the override included
	Invisible bool                `json:"invisible"`
	TTL       Duration            `json:"ttl"`
	MaxLease  Duration            `json:"max_lease"`
	Override  *lease.Override     `json:"override,omitempty"`
	Guests    map[lease.State]int `json:"guests"` // zeros included
	Leases    int                 `json:"leases"`
	Queue     int                 `json:"queue"`
	Oldest    time.Time           `json:"oldest,omitzero"` // when the head of the queue came
	Hits      int64               `json:"hits"`
	Misses    int64               `json:"misses"`
}

// Toggle is the body of enable and disable; at most one of For and Until.
type Toggle struct {
	For    Duration  `json:"for,omitempty"`
	Until  time.Time `json:"until,omitzero"`
	Reason string    `json:"reason,omitempty"`
}

// Reason is the body of taint and pause.
type Reason struct {
	Reason string `json:"reason,omitempty"`
}

// Hold is the body of hold.
type Hold struct {
	For Duration `json:"for"`
}

// Ordered tells when a taint or a forced removal takes place.
type Ordered struct {
	Guest       string      `json:"guest"`
	Incarnation int         `json:"incarnation"`
	State       lease.State `json:"state"`
	When        string      `json:"when"` // "now" or "when its lease ends"
}

// Probed is what a probe saw.
type Probed struct {
	Guest  string `json:"guest"`
	Alive  bool   `json:"alive"`
	Result string `json:"result"`
}

// Probe is how one probe of a guest stands.
type Probe struct {
	Kind     string    `json:"kind"`
	Every    Duration  `json:"every"`
	Asked    time.Time `json:"asked,omitzero"` // last; zero: not yet
	Outcome  string    `json:"outcome,omitempty"`
	Detail   string    `json:"detail,omitempty"` // what was seen, for those who may see it
	Seconds  float64   `json:"seconds"`
	Failures int       `json:"failures"` // in a row
	Allowed  int       `json:"allowed"`  // so many mean death
	Next     time.Time `json:"next,omitzero"`
}

// Pool is a pool as the reconciler and the watchdog see it.
type Pool struct {
	condition.PoolStatus
	Brake string                `json:"brake,omitempty"` // why the watchdog taints nothing here
	Runs  []condition.RunStatus `json:"runs,omitempty"`  // the last ones, newest first; only where one pool was asked for
}

// Status is the whole house.
type Status struct {
	condition.Status
	Pools  []Pool  `json:"pools"`
	Caches []Cache `json:"caches"`
}

// Reconcile is the body of POST /v1/reconcile, and its answer.
type Reconcile struct {
	Pools []string `json:"pools,omitempty"` // none: all
}

// NewToken is the body of POST /v1/tokens.
type NewToken struct {
	Name  string     `json:"name"`
	Owner string     `json:"owner,omitempty"`
	Role  lease.Role `json:"role"`
	For   Duration   `json:"for,omitempty"` // zero: until it is revoked
}

// Token is an API token; Secret is filled in only by its creation.
type Token struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"`
	Owner   string     `json:"owner"`
	Role    lease.Role `json:"role"`
	Created time.Time  `json:"created"`
	Expires time.Time  `json:"expires,omitzero"`
	Secret  string     `json:"token,omitempty"`
}

// Problem is an error as the API answers it (RFC 9457).
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
}
