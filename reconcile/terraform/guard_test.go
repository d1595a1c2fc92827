package terraform

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func guestAddress(name string) string {
	return fmt.Sprintf("module.guests.terraform_data.guest[%q]", name)
}

func TestTheGuardRefusesWhatTheRunHasNoClaimTo(t *testing.T) {
	a, b, net := guestAddress("a"), guestAddress("b"), "module.guests.terraform_data.net"
	known := map[string][]string{"a": {a}, "b": {b}}
	for _, test := range []struct {
		name    string
		expect  Expect
		known   map[string][]string
		changes []Change
		refused []string
	}{
		{name: "no changes and no claims", known: known},
		{"a new guest", Expect{Create: []string{"c"}}, known, []Change{{guestAddress("c"), "create", ""}}, nil},
		{"a replaced guest", Expect{Replace: []string{"a"}}, known, []Change{{a, "replace", "requested"}}, nil},
		{"a replacement that was not planned", Expect{Replace: []string{"a"}}, known, nil, []string{a}},
		{"a replacement that became an update", Expect{Replace: []string{"a"}}, known, []Change{{a, "update", ""}}, []string{a}},
		{"a vanished guest is created anew", Expect{Replace: []string{"a"}, Vanished: []string{a}}, known, []Change{{a, "create", ""}}, nil},
		{"a destroyed guest", Expect{Destroy: []string{"a"}}, known, []Change{{a, "delete", ""}}, nil},
		{"a destruction that was not planned", Expect{Destroy: []string{"a"}}, known, nil, []string{a}},
		{"a vanished guest needs no destruction", Expect{Destroy: []string{"a"}, Vanished: []string{a}}, known, nil, nil},
		{"a guest to destroy is replaced", Expect{Destroy: []string{"a"}}, known, []Change{{a, "replace", ""}}, []string{a, a}},
		{"an unclaimed guest is deleted", Expect{}, known, []Change{{b, "delete", ""}}, []string{b}},
		{"an unclaimed guest is updated", Expect{Replace: []string{"a"}}, known, []Change{{a, "replace", ""}, {b, "update", ""}}, []string{b}},
		{"an unclaimed tainted guest is replaced", Expect{}, known, []Change{{b, "replace", "tainted"}}, []string{b}},
		{"an unclaimed guest is moved, imported and read", Expect{}, known, []Change{{b, "move", ""}, {b, "import", ""}, {b, "read", ""}, {b, "noop", ""}}, nil},
		{"a half-made guest is made again", Expect{Create: []string{"a"}}, known, []Change{{a, "replace", "tainted"}}, nil},
		{"a guest is in the path of its module", Expect{}, known, []Change{{`module.guests.module.vm["b"].terraform_data.disk[0]`, "delete", ""}}, []string{`module.guests.module.vm["b"].terraform_data.disk[0]`}},
		{"a shared resource is created and updated", Expect{}, known, []Change{{net, "create", ""}, {net, "update", ""}}, nil},
		{"a shared resource is replaced under a living guest", Expect{Replace: []string{"a"}}, known, []Change{{a, "replace", ""}, {net, "replace", ""}}, []string{net}},
		{"a shared resource goes with the last guest", Expect{Destroy: []string{"a", "b"}}, known, []Change{{a, "delete", ""}, {b, "delete", ""}, {net, "delete", ""}}, nil},
		{"an unknown action", Expect{Create: []string{"a"}}, known, []Change{{a, "explode", ""}}, []string{a}},
		{"an address that can't be read is shared", Expect{}, known, []Change{{"%%", "delete", ""}}, []string{"%%"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var refused []string
			var guard *GuardError
			if err := Guard(test.expect, test.known, test.changes); errors.As(err, &guard) {
				for _, v := range guard.Violations {
					refused = append(refused, v.Address)
				}
			}
			if diff := cmp.Diff(test.refused, refused); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAPlanThatPassesTheGuardChangesNoUnclaimedGuest(t *testing.T) {
	names := []string{"a", "b", "c", "d"}
	actions := []string{"noop", "create", "read", "update", "replace", "delete", "move", "import", "remove", "forget"}
	rapid.Check(t, func(t *rapid.T) {
		var expect Expect
		known, claimed := map[string][]string{}, map[string]bool{}
		for _, name := range names {
			switch rapid.IntRange(0, 4).Draw(t, "claim "+name) {
			case 0:
				expect.Create = append(expect.Create, name)
				claimed[name] = true
			case 1:
				expect.Replace = append(expect.Replace, name)
				claimed[name] = true
			case 2:
				expect.Destroy = append(expect.Destroy, name)
				claimed[name] = true
			}
			if !slices.Contains(expect.Create, name) {
				known[name] = []string{guestAddress(name)}
			}
		}
		var changes []Change
		for _, name := range names {
			changes = append(changes, Change{Address: guestAddress(name), Action: rapid.SampledFrom(actions).Draw(t, name)})
		}
		changes = append(changes, Change{Address: "net.x", Action: rapid.SampledFrom(actions).Draw(t, "net")})
		if Guard(expect, known, changes) != nil {
			return
		}
		for i, name := range names {
			action := changes[i].Action
			if !claimed[name] && !slices.Contains(harmless, action) {
				t.Fatalf("unclaimed guest %s: %s passed", name, action)
			}
			if slices.Contains(expect.Replace, name) && !slices.Contains([]string{"replace", "create", "delete"}, action) {
				t.Fatalf("guest %s was to be replaced, and %s passed", name, action)
			}
			if slices.Contains(expect.Destroy, name) && action != "delete" && action != "remove" {
				t.Fatalf("guest %s was to be destroyed, and %s passed", name, action)
			}
		}
		if ends := slices.Contains([]string{"replace", "delete", "remove"}, changes[len(names)].Action); ends && len(claimed) < len(names) {
			t.Fatal("a shared resource ended under a living guest")
		}
	})
}
