// Package plan is the preview of a revision of the specs: what it would change, guest by guest, before anything changes.
//
// It is the shape of a plan and the ways to show one, and nothing else, so that the reconciler which makes plans, the
// API which hands them out, and the command line and pages which show them share one thing. It imports nothing of theirs.
package plan

import (
	"fmt"
	"strings"
	"time"
)

// Phase is how far a plan is.
//
//	making → ready    (again making when the base moves)
//	       ↘ failed
//	any    → replaced (by a newer request for the same ref)
type Phase string

// The phases of a plan.
const (
	Making   Phase = "making"
	Ready    Phase = "ready"
	Failed   Phase = "failed"   // Error says why
	Replaced Phase = "replaced" // ReplacedBy says by which
)

// Verb is what happens to a guest.
type Verb string

// The verbs of a plan.
const (
	Create  Verb = "create"  // a guest that is not there yet
	Replace Verb = "replace" // it goes, and another takes its place in the same cache
	Retire  Verb = "retire"  // it goes for good
	Keep    Verb = "keep"    // nothing happens to it
)

// When a change to a guest can happen.
const (
	Now      = "now"      // as soon as the revision is in force, at the pace of rollout
	Released = "released" // not before its lease, hold or quarantine has ended
)

// Change is how a pool or a cache stands in head as compared to base.
type Change string

// The changes of a pool or a cache.
const (
	Added   Change = "added"
	Removed Change = "removed"
	Changed Change = "changed"
	Same    Change = "same"
)

// Plan is one preview. All of it but Terraform is for everyone who has a token; Terraform is for admins.
type Plan struct {
	ID      string    `json:"id"`
	Phase   Phase     `json:"phase"`
	Error   string    `json:"error,omitempty"` // of a failed plan: every fault of the revision, with its source
	Ref     string    `json:"ref"`             // what was asked for: a git ref, or a name that the uploader of an archive gave
	By      string    `json:"by"`              // name of the caller who asked
	Base    string    `json:"base"`            // revision in force that it was made against; empty: none was
	Head    string    `json:"head"`            // revision that it previews
	Digest  string    `json:"digest"`          // of base and of everything that head declares; an approval is bound to it
	Made    time.Time `json:"made,omitzero"`
	Expires time.Time `json:"expires,omitzero"`

	ReplacedBy string `json:"replaced_by,omitempty"`

	Summary  Summary   `json:"summary"`
	Pools    []Pool    `json:"pools"`  // of base and head, by name
	Caches   []Cache   `json:"caches"` // of base and head, the invisible ones included, by name
	Guests   []Guest   `json:"guests"` // every guest on record and every one to come, by cache and name
	Notes    []string  `json:"notes,omitempty"`
	Breaches []Breach  `json:"breaches,omitempty"` // why it is held when it is followed
	Approved *Approval `json:"approved,omitempty"`

	Terraform *Terraform `json:"terraform,omitempty"` // admins only
}

// Summary counts the guests by what happens to them.
type Summary struct {
	Create       int `json:"create"`
	Replace      int `json:"replace"`       // now
	ReplaceLater int `json:"replace_later"` // when released
	Retire       int `json:"retire"`        // now
	RetireLater  int `json:"retire_later"`  // when released
	Keep         int `json:"keep"`
	Settings     int `json:"settings"` // of pools and caches that differ, whatever they do to guests
	Anyway       int `json:"anyway"`   // changes to guests that are due under base as well; counted nowhere else
}

// Changes tells that head differs from base in anything.
func (s Summary) Changes() bool {
	return s.Create+s.Replace+s.ReplaceLater+s.Retire+s.RetireLater+s.Settings > 0
}

// String is one line for people: "3 to create, 1 to replace when released, 2 to retire, 14 kept".
func (s Summary) String() string {
	var parts []string
	add := func(n int, text string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, text))
		}
	}
	add(s.Create, "to create")
	add(s.Replace, "to replace")
	add(s.ReplaceLater, "to replace when released")
	add(s.Retire, "to retire")
	add(s.RetireLater, "to retire when released")
	add(s.Keep, "kept")
	if len(parts) == 0 {
		parts = append(parts, "no guests")
	}
	if s.Settings > 0 {
		parts = append(parts, plural(s.Settings, "setting")+" changed")
	}
	return strings.Join(parts, ", ")
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Setting is one setting of a pool or a cache that differs. Values are as the spec language writes them; those of
// variables, user data and commands are never told, because they may be secrets: there, From and To are empty.
type Setting struct {
	Name string `json:"name"` // "warm", "lease.ttl", "probe.http.port", "variables.image", "prepare"
	From string `json:"from"`
	To   string `json:"to"`
}

// Pool is what happens to one pool.
type Pool struct {
	Pool     string    `json:"pool"`
	Change   Change    `json:"change"`
	Settings []Setting `json:"settings,omitempty"`
	// Outdated names what its guests are born of and that differs: "module", "variables.image", "user_data". Not
	// empty means that every guest of the pool is replaced.
	Outdated []string `json:"outdated,omitempty"`
	// ReadySeconds is how long a guest took to become ready, the median of the newest on record; 0: not measured.
	ReadySeconds float64 `json:"ready_seconds,omitempty"`
	Summary      Summary `json:"summary"`
}

// Cache is what happens to one cache.
type Cache struct {
	Cache     string    `json:"cache"`
	Owner     string    `json:"owner,omitempty"`
	Invisible bool      `json:"invisible,omitempty"` // of the pool of the same name
	Change    Change    `json:"change"`
	Settings  []Setting `json:"settings,omitempty"`
	Summary   Summary   `json:"summary"`
	Dip       *Dip      `json:"dip,omitempty"`
}

// Dip says that a cache has fewer guests shelved than its warm on the way.
type Dip struct {
	Warm     int     `json:"warm"`     // that head asks for
	Lowest   int     `json:"lowest"`   // most guests that are missing at once, told as what is left on the shelf
	Seconds  float64 `json:"seconds"`  // for which it lasts in all
	Measured bool    `json:"measured"` // from measured ready times; false: some pool has none, and a minute was assumed
}

// Guest is what happens to one guest.
type Guest struct {
	// Guest is its name. Of one to create it is the slot that is free now, which another may take first; empty where
	// it depends on the order of things.
	Guest       string `json:"guest,omitempty"`
	Incarnation int    `json:"incarnation,omitempty"` // 0: of one to create
	Pool        string `json:"pool"`
	Cache       string `json:"cache"`
	State       string `json:"state,omitempty"` // now; empty: it is not there yet
	Verb        Verb   `json:"verb"`
	When        string `json:"when,omitempty"`   // now or released; empty: keep
	Reason      string `json:"reason,omitempty"` // excess, age, outdated, removed, warm, spare, demand …
	Detail      string `json:"detail,omitempty"` // for people: what makes it outdated, what it is replaced by
	// ToPool is the pool of the guest that takes its place, when that is another.
	ToPool string `json:"to_pool,omitempty"`
	Lease  *Lease `json:"lease,omitempty"` // while it is leased
	// Until is the end of its hold or quarantine.
	Until time.Time `json:"until,omitzero"`
	// Anyway means that the same is due under base, no later and with the same in its place.
	Anyway bool `json:"anyway,omitempty"`
	// OneOf means that so many go and that which of them depends on the order in which they are released.
	OneOf bool `json:"one_of,omitempty"`
}

// Lease is what a plan tells of the lease on a guest.
type Lease struct {
	Owner    string    `json:"owner"`
	Deadline time.Time `json:"deadline"` // unless it is renewed
	Cap      time.Time `json:"cap"`      // the latest that renewals can bring it to
}

// History is the guard that every fleet has: a revision that is followed must descend from the one in force.
const History = "history"

// Breach is a guard that a revision is past.
type Breach struct {
	Guard   string  `json:"guard"`  // "fleet", "pool.NAME" or "history"; the numbers are zero of the last
	Retire  int     `json:"retire"` // guests that go without another in their place
	Of      int     `json:"of"`     // guests that there are
	Allowed float64 `json:"allowed"`
}

func (b Breach) String() string {
	if b.Guard == History {
		return "history: the revision does not descend from the one in force"
	}
	return fmt.Sprintf("%s: %d of %s would be retired, and guard { max_retire } allows %s", b.Guard, b.Retire, plural(b.Of, "guest"), percent(b.Allowed))
}

func percent(share float64) string { return fmt.Sprintf("%.4g%%", share*100) }

// Approval is an admin's word that a revision past its guard may come into force.
type Approval struct {
	By     string    `json:"by"`
	At     time.Time `json:"at"`
	Digest string    `json:"digest"`
}

// Terraform is the second layer: what Terraform itself plans, shard by shard.
type Terraform struct {
	Phase  Phase   `json:"phase"` // making, ready or failed
	Error  string  `json:"error,omitempty"`
	Shards []Shard `json:"shards"`
}

// Shard is Terraform's plan of one shard.
type Shard struct {
	Shard     string     `json:"shard"`
	Pool      string     `json:"pool"`
	Error     string     `json:"error,omitempty"` // why there is no plan of it
	Resources []Resource `json:"resources"`       // those that change, by address
	Kept      int        `json:"kept"`            // resources that stay as they are
	Seconds   float64    `json:"seconds"`         // that it took
}

// Resource is one resource instance that Terraform would change.
type Resource struct {
	Address    string      `json:"address"`
	Guest      string      `json:"guest,omitempty"`
	Action     string      `json:"action"`           // create, update, replace or delete
	Reason     string      `json:"reason,omitempty"` // Terraform's own word
	Attributes []Attribute `json:"attributes,omitempty"`
}

// Attribute is one attribute that differs. Values are JSON, cut to a bounded length.
type Attribute struct {
	Path      string `json:"path"` // "tags.name", "disks[0].size"
	Before    string `json:"before,omitempty"`
	After     string `json:"after,omitempty"`
	Sensitive bool   `json:"sensitive,omitempty"` // neither value is told
	Unknown   bool   `json:"unknown,omitempty"`   // After is known only after the apply
	Replaces  bool   `json:"replaces,omitempty"`  // its change is why the resource is replaced
}
