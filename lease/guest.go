package lease

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// State is where a guest stands in its life:
//
//	planned → provisioning → booting → preparing → shelved → leased → resetting → shelved
//
// with tainted, replacing, retiring, failed, held and quarantined beside that road. Every move is one
// compare-and-set script on (guest, incarnation, state).
type State string

// The states of a guest. All but Gone count against the max of the guest's pool and cache.
const (
	Planned      State = "planned"      // slot claimed, no run has taken it up yet
	Provisioning State = "provisioning" // a Terraform run is making it
	Booting      State = "booting"      // made; not yet seen alive by a probe
	Preparing    State = "preparing"    // the cache's prepare script runs, or is about to
	Shelved      State = "shelved"      // ready, on its cache's shelf
	Leased       State = "leased"       // somebody's, and untouchable
	Resetting    State = "resetting"    // released; the cache's reset script runs, or is about to
	Held         State = "held"         // kept aside for diagnosis until a time
	Quarantined  State = "quarantined"  // found again after the store was lost; may be leased
	Tainted      State = "tainted"      // must not be used again; replaced or retired at the next apply
	Replacing    State = "replacing"    // a run replaces it by its next incarnation
	Retiring     State = "retiring"     // claimed to be destroyed; its slot is freed afterwards
	Failed       State = "failed"       // a run could not make it
	Gone         State = "gone"         // destroyed; no record is kept but its events
)

// States lists every state that a guest on record can be in, in the order of its life.
var States = []State{
	Planned, Provisioning, Booting, Preparing, Shelved, Leased, Resetting,
	Held, Quarantined, Tainted, Replacing, Retiring, Failed,
}

// Guest is one machine as the inventory knows it.
type Guest struct {
	Name        string    `json:"name"` // <pool>-<slot>
	Pool        string    `json:"pool"`
	Cache       string    `json:"cache"` // the pool's own name while it is a spare
	Slot        int       `json:"slot"`
	Incarnation int       `json:"incarnation"`
	State       State     `json:"state"`
	Since       time.Time `json:"since"` // of the state
	Shard       string    `json:"shard"`
	Digest      string    `json:"digest"`
	Run         string    `json:"run,omitempty"` // the run that has claimed it, while one has

	ID         string          `json:"id,omitempty"` // the provider's
	Host       string          `json:"host,omitempty"`
	Port       int             `json:"port,omitempty"`
	User       string          `json:"user,omitempty"`
	HostKey    string          `json:"host_key,omitempty"` // authorized_keys format, pinned by every client
	Attributes json.RawMessage `json:"attributes,omitempty"`
	Reset      bool            `json:"-"` // see Machine

	Lease     string    `json:"lease,omitempty"` // id of the lease that has it
	Uses      int       `json:"uses"`            // leases of this incarnation so far
	Born      time.Time `json:"born,omitzero"`   // when this incarnation was made
	Until     time.Time `json:"until,omitzero"`  // end of a hold or a quarantine
	Reason    string    `json:"reason,omitempty"`
	Evidence  string    `json:"evidence,omitempty"`  // what was seen when it was tainted
	Condemned string    `json:"condemned,omitempty"` // reason of a taint that waits for the lease to end
	Health    string    `json:"health,omitempty"`    // what the watchdog tells the holder; empty is well
	Failures  int       `json:"failures,omitempty"`  // in a row: runs that did not make it, and machines that did not come up
	Demand    bool      `json:"demand,omitempty"`    // made because somebody waited (not ahead of demand)
}

// GuestName is the name of a pool's slot.
func GuestName(pool string, slot int) string { return pool + "-" + strconv.Itoa(slot) }

// ParseGuestName splits <pool>-<slot>.
func ParseGuestName(name string) (pool string, slot int, err error) {
	i := strings.LastIndexByte(name, '-')
	if i > 0 {
		slot, err = strconv.Atoi(name[i+1:])
	}
	if i <= 0 || err != nil || slot < 1 || len(name) > 64 || strconv.Itoa(slot) != name[i+1:] {
		return "", 0, fmt.Errorf("%w: %.80q is no guest name (want <pool>-<number>)", ErrUnknownGuest, name)
	}
	return name[:i], slot, nil
}

// Principal is the name that a certificate must carry to enter this incarnation of the guest.
func (g Guest) Principal() string { return g.Name + "." + strconv.Itoa(g.Incarnation) }

// Event is one entry of a guest's history.
type Event struct {
	Time        time.Time `json:"time"`
	Guest       string    `json:"guest"`
	Cache       string    `json:"cache"`
	Incarnation int       `json:"incarnation"`
	From        State     `json:"from,omitempty"`
	To          State     `json:"to"`
	Actor       string    `json:"actor,omitempty"`
	Lease       string    `json:"lease,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	Detail      string    `json:"detail,omitempty"` // evidence, outcome; at most 2 KiB
}
