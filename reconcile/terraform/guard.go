package terraform

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Expect are the claims of a run. Vanished are addresses that their provider took away.
type Expect struct {
	Create, Replace, Destroy []string
	Vanished                 []string
}

// Change is one planned change of a resource instance. Actions are those of Terraform's
// machine-readable UI: noop, create, read, update, replace, delete, move, import, remove.
type Change struct {
	Address, Action, Reason string
}

// Violation is one change that the guard refuses.
type Violation struct{ Address, Action, Why string }

// GuardError lists everything in a plan that the run has no claim to.
type GuardError struct{ Violations []Violation }

func (e *GuardError) Error() string {
	lines := make([]string, len(e.Violations))
	for i, v := range e.Violations {
		lines[i] = fmt.Sprintf("%s (%s): %s", v.Address, v.Action, v.Why)
	}
	return "the plan was refused: " + strings.Join(lines, "; ")
}

// Guard holds a plan against the claims of its run. known are the guests of the shard with the
// addresses that the state has for them; a resource that belongs to none of them, nor to a claimed
// guest, is shared.
//
//   - a guest that nobody claimed is not touched;
//   - a guest to replace has every known instance replaced: -replace of an unknown address is
//     silently ignored by Terraform, so that only the plan tells;
//   - a guest to destroy is destroyed, and nothing else;
//   - a shared resource is deleted or replaced only when no guest survives untouched.
func Guard(expect Expect, known map[string][]string, changes []Change) error {
	g := guard{expect: expect, known: known, planned: map[string]string{}}
	g.names = slices.Concat(expect.Create, expect.Replace, expect.Destroy)
	for name := range known {
		if !slices.Contains(g.names, name) {
			g.names = append(g.names, name)
			g.survivors = append(g.survivors, name)
		}
	}
	for _, c := range changes {
		g.planned[c.Address] = c.Action
		g.check(c)
	}
	g.checkPlanned(expect.Replace, "replace", "create", "delete")
	g.checkPlanned(expect.Destroy, "delete", "remove")
	if len(g.found) == 0 {
		return nil
	}
	slices.SortFunc(g.found, func(a, b Violation) int { return strings.Compare(a.Address, b.Address) })
	return &GuardError{Violations: g.found}
}

type guard struct {
	expect    Expect
	known     map[string][]string
	names     []string
	survivors []string
	planned   map[string]string
	found     []Violation
}

func (g *guard) refuse(c Change, format string, args ...any) {
	g.found = append(g.found, Violation{c.Address, c.Action, fmt.Sprintf(format, args...)})
}

// harmless actions change no machine: they may happen to any guest.
var harmless = []string{"noop", "read", "move", "import"}

func (g *guard) check(c Change) {
	if slices.Contains(harmless, c.Action) {
		return
	}
	owner := ownerOf(c.Address, g.names)
	switch {
	case !slices.Contains([]string{"create", "update", "replace", "delete", "remove"}, c.Action):
		g.refuse(c, "an action that this version of Greenroom does not know")
	case owner == "":
		g.checkShared(c)
	case slices.Contains(g.expect.Create, owner):
	case slices.Contains(g.expect.Replace, owner):
	case slices.Contains(g.expect.Destroy, owner):
		if c.Action != "delete" && c.Action != "remove" {
			g.refuse(c, "guest %s is to be destroyed", owner)
		}
	default:
		g.refuse(c, "guest %s is not claimed by this run", owner)
	}
}

func (g *guard) checkShared(c Change) {
	ends := c.Action == "delete" || c.Action == "remove" || c.Action == "replace"
	if ends && len(g.survivors) > 0 {
		g.refuse(c, "it is shared, and guest %s lives on", slices.Min(g.survivors))
	}
}

// checkPlanned demands that each known instance of the guests has one of the actions planned. A
// vanished instance has no machine any more: there is nothing left to replace or delete.
func (g *guard) checkPlanned(guests []string, actions ...string) {
	for _, guest := range guests {
		for _, address := range g.known[guest] {
			got := g.planned[address]
			if slices.Contains(actions, got) || slices.Contains(g.expect.Vanished, address) {
				continue
			}
			if got == "" {
				got = "noop"
			}
			g.refuse(Change{Address: address, Action: got}, "guest %s needs %s here, and it is not planned", guest, actions[0])
		}
	}
}

// ownerOf returns the guest that a resource instance belongs to: the one that its for_each key
// names, or a key in the path of the modules around it. "" means that it is shared.
func ownerOf(address string, guests []string) string {
	for _, key := range keysOf(address) {
		if slices.Contains(guests, key) {
			return key
		}
	}
	return ""
}

// keysOf returns the for_each keys in an address, outermost first. Addresses have the syntax of HCL
// traversals (https://developer.hashicorp.com/terraform/internals/json-format#resource-address).
func keysOf(address string) []string {
	traversal, diags := hclsyntax.ParseTraversalAbs([]byte(address), "", hcl.InitialPos)
	if diags.HasErrors() {
		return nil
	}
	var keys []string
	for _, step := range traversal {
		if index, ok := step.(hcl.TraverseIndex); ok && index.Key.Type() == cty.String {
			keys = append(keys, index.Key.AsString())
		}
	}
	return keys
}
