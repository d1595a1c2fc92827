package terraform

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Job is one run of one shard: the whole set of guests that shall exist after it, and the claims.
// Only claimed guests may change; the guard refuses a plan that touches any other.
type Job struct {
	// Shard names the shard's directory: lower-case letters, digits, ".", "_" and "-".
	Shard string `json:"shard"`
	// Run is the caller's unique id of this run, of the same letters.
	Run string `json:"run"`
	// Pool is handed to the module as "pool".
	Pool string `json:"pool"`
	// Module is what makes the guests.
	Module Module `json:"module"`
	// Guests is the wanted set after this run, by name.
	Guests map[string]Guest `json:"guests"`
	// AuthorizedKeys is handed to the module as "ssh_authorized_keys".
	AuthorizedKeys []string `json:"authorized_keys"`
	// Variables is a JSON object, handed to the module as further inputs.
	Variables json.RawMessage `json:"variables,omitempty"`
	// Create, Replace and Destroy are the guests claimed for this run.
	Create  []string `json:"create,omitempty"`
	Replace []string `json:"replace,omitempty"`
	Destroy []string `json:"destroy,omitempty"`
	// DriftOnly plans and reports, and never applies.
	DriftOnly bool `json:"drift_only,omitempty"`
}

// Module says where a module comes from: exactly one of Dir, FS and Source, or the Digest alone
// of a tree that the module store has already.
type Module struct {
	// Dir is a local directory tree.
	Dir string `json:"-"`
	// FS is an embedded tree, as modules.Lookup returns a bundled one.
	FS fs.FS `json:"-"`
	// Source is a remote source as Terraform writes them (git::, registry), fetched by init.
	Source string `json:"source,omitempty"`
	// Version is the version constraint of a registry source.
	Version string `json:"version,omitempty"`
	// Digest is the tree's Digest. When given it is checked; when empty it is computed.
	Digest string `json:"digest,omitempty"`
}

// Guest is the input of one guest (design §5).
type Guest struct {
	Incarnation int    `json:"incarnation"`
	UserData    string `json:"user_data"`
}

// Output is what a module says of one guest (design §5).
type Output struct {
	ID         string                     `json:"id"`
	Host       string                     `json:"host"`
	Port       int                        `json:"port"`
	User       string                     `json:"user"`
	HostKey    string                     `json:"host_key"`
	Attributes map[string]json.RawMessage `json:"attributes"`
}

// Outcome is what came of a run. It is complete even when Err is set: what is in Guests exists.
type Outcome struct {
	Run string `json:"run"`
	// Guests are those that exist whole and keep the contract, claimed or not. A claimed guest that is
	// neither here nor in Failed, after a run that was cut short, is not known: run again.
	Guests map[string]Output `json:"guests"`
	// Incarnations are those last applied, of every guest with an instance in the state. A name
	// that stands here and not in Guests is a broken guest that occupies its slot.
	Incarnations map[string]int `json:"incarnations"`
	// Failed are the claimed guests that did not come out right, with the reason.
	Failed map[string]string `json:"failed,omitempty"`
	// Vanished are the guests that their provider took away.
	Vanished []string `json:"vanished,omitempty"`
	// Diagnostics are Terraform's own, without values.
	Diagnostics []Diagnostic `json:"diagnostics,omitempty"`
	// Changed says that the plan held changes (applied, unless Err or DriftOnly).
	Changed bool `json:"changed"`
	// Torn says that Terraform was killed while it applied: what it was making may exist although the state lacks it. The next run has
	// to claim the same guests.
	Torn    bool      `json:"torn,omitempty"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	// Steps are the Terraform processes of the run, one each.
	Steps []Step `json:"steps"`
	// Err is nil when the run did all it was asked to.
	Err *Fault `json:"err,omitempty"`
}

// Step is one Terraform process. Op is version, init, plan, show, apply, output, push or unlock;
// Result is ok, failed, or unused: an apply that came up beside a plan which was not applied.
type Step struct {
	Op      string  `json:"op"`
	Seconds float64 `json:"seconds"`
	Result  string  `json:"result"`
}

// Kinds of Fault.
const (
	FaultInit        = "init"        // terraform init failed
	FaultPlan        = "plan"        // the module does not plan
	FaultGuard       = "guard"       // the plan would touch what the run did not claim
	FaultDrift       = "drift"       // unclaimed guests have vanished: taint them and come again
	FaultApply       = "apply"       // some claimed guests failed; the others are in force
	FaultContract    = "contract"    // the module breaks the contract
	FaultLocked      = "locked"      // somebody else holds the state's lock
	FaultState       = "state"       // the state is not the one that this shard left
	FaultBackend     = "backend"     // the state's backend does not answer
	FaultBudget      = "budget"      // a time budget ran out; outcome unknown
	FaultInterrupted = "interrupted" // interrupted; outcome unknown
	FaultLost        = "lost"        // the runner or Terraform was killed; outcome unknown
	FaultDisk        = "disk"        // no space left
	FaultStale       = "stale"       // somebody kept writing the state between plan and apply
)

// Fault says why a run did not do all it was asked to.
type Fault struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func (f *Fault) Error() string {
	if f.Hint == "" {
		return f.Kind + ": " + f.Message
	}
	return f.Kind + ": " + f.Message + "; " + f.Hint
}

// Stalled says that coming again can't help: a human must act first.
func (f *Fault) Stalled() bool {
	return f.Kind == FaultGuard || f.Kind == FaultContract || f.Kind == FaultState
}

// Diagnostic is one of Terraform's, less the values of its snippet.
type Diagnostic struct {
	Severity string `json:"severity"`
	Summary  string `json:"summary"`
	Detail   string `json:"detail,omitempty"`
	Address  string `json:"address,omitempty"`
	Guest    string `json:"guest,omitempty"`
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
}

const maxUserData = 1 << 20

var safeName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,126}$`)

// check finds what is wrong with a job before anything is written.
func (j Job) check() error {
	for what, name := range map[string]string{"shard": j.Shard, "run": j.Run} {
		if !safeName.MatchString(name) {
			return fmt.Errorf("%s %q: allowed are 1 to 127 of a-z, 0-9, dot, underscore and dash", what, name)
		}
	}
	for name, g := range j.Guests {
		if !safeName.MatchString(name) || len(g.UserData) > maxUserData {
			return fmt.Errorf("guest %q: the name must be of a-z, 0-9, dot, underscore and dash, and user_data of at most 1 MiB", name)
		}
	}
	if len(j.Variables) > 0 {
		var v map[string]json.RawMessage
		if err := json.Unmarshal(j.Variables, &v); err != nil {
			return fmt.Errorf("variables of pool %s: a JSON object is needed: %w", j.Pool, err)
		}
	}
	return j.checkClaims()
}

func (j Job) checkClaims() error {
	seen := map[string]bool{}
	for _, name := range slices.Concat(j.Create, j.Replace, j.Destroy) {
		_, wanted := j.Guests[name]
		switch {
		case seen[name]:
			return fmt.Errorf("guest %s is claimed twice in run %s", name, j.Run)
		case wanted == slices.Contains(j.Destroy, name):
			return fmt.Errorf("guest %s: a guest to destroy must not be wanted, one to create or replace must be", name)
		}
		seen[name] = true
	}
	return nil
}

// expect is what the guard holds a plan against.
func (j Job) expect() Expect {
	return Expect{Create: j.Create, Replace: j.Replace, Destroy: j.Destroy}
}

func quoted(names []string) string {
	slices.Sort(names)
	return strings.Join(names, ", ")
}
