// Package lease is the inventory of guests and the leases on them: one state machine, kept in Redis by
// the Lua scripts in lease/scripts.
//
// It exists so that no two parts of Greenroom can disagree on whose a guest is: every move of a guest is
// one atomic script that compares before it sets, and Redis server time is the only clock. The package
// knows nothing of Terraform, HTTP or probes.
package lease

import (
	"errors"
	"strings"
	"time"
)

// The facts that a call on the store can run into.
var (
	ErrUnavailable  = errors.New("the store cannot be reached")                             // retry later
	ErrUnknownCache = errors.New("unknown cache")                                           // no such cache in the spec in force
	ErrUnknownPool  = errors.New("unknown pool")                                            // no such pool in the spec in force
	ErrUnknownGuest = errors.New("unknown guest")                                           // no record of that name
	ErrUnknownLease = errors.New("unknown lease")                                           // never granted, or ended long ago
	ErrImpossible   = errors.New("no pool of the cache can ever satisfy the request")       // labels, capacity
	ErrNotYours     = errors.New("not yours")                                               // another owner's cache or lease
	ErrOver         = errors.New("the lease is over")                                       // released, expired, cancelled
	ErrQueued       = errors.New("the lease is not granted yet")                            // renew of a queued request
	ErrLeased       = errors.New("the guest is leased")                                     // a claim that must not be
	ErrConflict     = errors.New("the guest is in another state or incarnation")            // compare-and-set lost
	ErrFull         = errors.New("at max")                                                  // pool or cache
	ErrReplay       = errors.New("the idempotency key was used for a different request")    // same key, other body
	ErrNoneReady    = errors.New("no guest is ready and the request does not want to wait") // wait = 0
	ErrHoldBudget   = errors.New("the cache's budget of holds is used up")                  // hold { max }
	ErrLocked       = errors.New("another server works on the shard")                       // shard lock
	ErrQueueFull    = errors.New("the queue is full")                                       // MaxQueue
	ErrForeign      = errors.New("the store is another server's")                           // Belong
	ErrInvalid      = errors.New("invalid request")                                         // limits on input
)

// Role is what a caller may do.
type Role string

// The roles. System is Greenroom's own parts; no token carries it.
const (
	User   Role = "user"   // leases of caches of its owner
	Admin  Role = "admin"  // everything
	System Role = "system" // the watchdog, the reconciler, the sweeper
)

// Caller is who asks. Each call that changes something takes one.
type Caller struct {
	Name  string `json:"name"`
	Owner string `json:"owner"` // team; a cache is leased to its own owner and to admins
	Role  Role   `json:"role"`
}

// May tells whether the caller may use what belongs to owner; what belongs to nobody is anybody's.
func (c Caller) May(owner string) bool {
	return owner == "" || c.runs(owner)
}

// runs tells whether what belongs to owner is the caller's to end, as may in lib.lua does: what belongs to nobody is not.
func (c Caller) runs(owner string) bool { return c.rules() || c.Owner == owner }

func (c Caller) rules() bool { return c.Role == Admin || c.Role == System }

// Phase is where a lease stands.
//
//	queued → active → ended      (a hit is active at once; a cancelled request goes from queued to ended)
type Phase string

// The phases of a lease. A queued one is a request.
const (
	Queued Phase = "queued"
	Active Phase = "active"
	Ended  Phase = "ended"
)

// How a lease ended.
const (
	Released  = "released"
	Expired   = "expired"
	Cancelled = "cancelled" // by its holder, while queued
	Abandoned = "abandoned" // queued, and nobody asked for it any more
	TimedOut  = "timed_out" // queued for longer than it wanted to wait
	Removed   = "removed"   // queued for pools that its cache has no more, or for a cache that the spec has no more
)

// Lease is one holder's right to one guest, or its wish for one.
type Lease struct {
	ID          string        `json:"id"` // <cache>.<26 random characters>
	Cache       string        `json:"cache"`
	Holder      string        `json:"holder"` // name of the caller
	Owner       string        `json:"owner"`  // team of the caller
	Phase       Phase         `json:"phase"`
	Pools       []string      `json:"pools"` // that satisfy it, in order of preference
	Guest       string        `json:"guest,omitempty"`
	Incarnation int           `json:"incarnation,omitempty"`
	TTL         time.Duration `json:"-"`
	PublicKey   string        `json:"-"` // of the holder; certified for the guest while the lease is active
	Created     time.Time     `json:"created"`
	Granted     time.Time     `json:"granted,omitzero"`
	Deadline    time.Time     `json:"deadline,omitzero"` // expiry unless renewed
	Cap         time.Time     `json:"cap,omitzero"`      // no renewal goes past it
	WaitUntil   time.Time     `json:"wait_until,omitzero"`
	EndedAt     time.Time     `json:"ended,omitzero"`
	How         string        `json:"how,omitempty"`      // how it ended
	Outcome     string        `json:"outcome,omitempty"`  // pass, fail or empty
	Source      string        `json:"source,omitempty"`   // shelf, spare or new
	Hit         bool          `json:"hit"`                // granted at once
	Position    int           `json:"position,omitempty"` // in the queue, from 1
	Leased      *Guest        `json:"-"`                  // the guest as it stood then, with its address; nil where it is not this lease's
	Replayed    bool          `json:"-"`                  // the answer to an idempotency key seen before, or to a release of what had ended
}

// CacheOf returns the cache that a lease id belongs to.
func CacheOf(id string) (string, error) {
	cache, rest, ok := strings.Cut(id, ".")
	if !ok || cache == "" || rest == "" || len(id) > 80 {
		return "", ErrUnknownLease
	}
	for i := range len(id) {
		switch id[i] {
		case '{', '}', ':', ' ', '\n':
			return "", ErrUnknownLease
		}
	}
	return cache, nil
}
