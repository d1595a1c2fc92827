// Package condition says how the fleet, its pools and its shards stand: what the reconciler knows of itself, in the shape in
// which the API tells it. It stands apart from the reconciler so that clients need not link what drives Terraform.
package condition

import (
	"time"

	"greenroom/lease"
)

// Type names one aspect of a pool or a shard.
type Type string

// The conditions, in the sense of the Kubernetes API conventions: each is true or false, and says why.
const (
	Ready       Type = "Ready"       // all that is wanted is there
	Reconciling Type = "Reconciling" // work is under way or due
	Stalled     Type = "Stalled"     // a human must act
	Waiting     Type = "Waiting"     // tried again by itself at a known time
)

// Condition is one aspect with its reason.
type Condition struct {
	Type     Type      `json:"type"`
	Status   bool      `json:"status"`
	Reason   string    `json:"reason"` // one CamelCase word
	Message  string    `json:"message"`
	Since    time.Time `json:"since"`
	Revision string    `json:"revision"` // of the spec that was in force
}

// Status is what the reconciler knows of itself and of everything.
type Status struct {
	Revision   string       `json:"revision"`             // in force
	Source     string       `json:"source"`               // where specs come from
	SpecValid  bool         `json:"spec_valid"`           // the newest revision seen is the one in force
	SpecFault  *Fault       `json:"spec_fault,omitempty"` // why not
	SpecSince  time.Time    `json:"spec_since"`           // of the revision in force
	Terraform  string       `json:"terraform"`            // version and path of the binary; empty while there is none
	Processes  int64        `json:"terraform_processes"`  // Terraform processes started so far
	Store      string       `json:"store,omitempty"`      // why the store cannot be used just now
	Pools      []PoolStatus `json:"pools"`
	Conditions []Condition  `json:"conditions"` // of the fleet as a whole
}

// Fault is why the newest revision of the specs is not in force.
type Fault struct {
	Reason   string    `json:"reason"`             // one of those below
	Revision string    `json:"revision,omitempty"` // that has it; empty when none could be read
	Message  string    `json:"message"`
	Since    time.Time `json:"since,omitzero"` // the first look that found it
	Plan     string    `json:"plan,omitempty"` // of a held revision: what to look at and to approve
}

func (f *Fault) Error() string { return f.Message }

// Why a revision is not in force.
const (
	SpecInvalid    = "SpecInvalid"        // the specs have faults
	Unreachable    = "SourceUnreachable"  // the repository or directory does not answer, or is gone
	Unauthorized   = "SourceUnauthorized" // the repository wants other credentials
	RefMissing     = "RefMissing"         // the repository has no such branch, tag or commit any more
	TooLarge       = "SourceTooLarge"     // what would have to be read is beyond the limits
	GuardExceeded  = "GuardExceeded"      // held: it is past a guard
	NotFastForward = "NotFastForward"     // held: it does not descend from the one in force
)

// Held tells that an admin may approve the revision.
func (f *Fault) Held() bool { return f.Reason == GuardExceeded || f.Reason == NotFastForward }

// PoolStatus is one pool as the reconciler sees it.
type PoolStatus struct {
	Pool       string              `json:"pool"`
	Module     string              `json:"module"`
	Digest     string              `json:"digest"` // that new guests are born of
	Max        int                 `json:"max"`
	Spare      int                 `json:"spare"`
	Guests     map[lease.State]int `json:"guests"` // zeros included
	Conditions []Condition         `json:"conditions"`
	Pause      *lease.Pause        `json:"pause,omitempty"`
	Shards     []ShardStatus       `json:"shards"`
}

// ShardStatus is one shard as the reconciler sees it.
type ShardStatus struct {
	Shard      string      `json:"shard"`
	Pool       string      `json:"pool"`
	Digest     string      `json:"digest"`
	Outdated   bool        `json:"outdated"` // of another digest than the pool has now
	Guests     int         `json:"guests"`
	Run        string      `json:"run,omitempty"` // under way
	LastRun    *RunStatus  `json:"last_run,omitempty"`
	Failures   int         `json:"failures"` // runs in a row
	NextTry    time.Time   `json:"next_try,omitzero"`
	Conditions []Condition `json:"conditions"`
}

// RunStatus is one finished run.
type RunStatus struct {
	Run      string            `json:"run"`
	Shard    string            `json:"shard"`
	Plan     RunPlan           `json:"plan"` // what it was to do
	Started  time.Time         `json:"started"`
	Ended    time.Time         `json:"ended"`
	Created  []string          `json:"created,omitempty"`
	Replaced []string          `json:"replaced,omitempty"`
	Retired  []string          `json:"retired,omitempty"`
	Failed   map[string]string `json:"failed,omitempty"` // guest -> why
	Result   string            `json:"result"`           // ok, failed or the kind of fault
	Message  string            `json:"message,omitempty"`
}

// RunPlan is the guests that a run was to create, replace and retire.
type RunPlan struct {
	Create  []string `json:"create,omitempty"`
	Replace []string `json:"replace,omitempty"`
	Retire  []string `json:"retire,omitempty"`
}

// Of returns the condition of a type from a list; one that is not there is false.
func Of(list []Condition, t Type) Condition {
	for _, c := range list {
		if c.Type == t {
			return c
		}
	}
	return Condition{Type: t}
}
