package terraform

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	tfjson "github.com/hashicorp/terraform-json"

	"greenroom/reconcile/plan"
)

const (
	maxResources  = 2000
	maxAttributes = 200
	maxValue      = 1 << 10
)

// tell turns Terraform's plan, which has secrets in clear, into what may be shown. secrets are those
// known beforehand; whatever the plan itself marks joins them, for a mark is lost where a provider
// returns a value in another attribute. reasons are Terraform's words, by address.
func tell(from *tfjson.Plan, secrets, guests []string, reasons map[string]string) plan.Shard {
	for _, rc := range from.ResourceChanges {
		secrets = append(secrets, secretsIn(rc.Change.Before, rc.Change.BeforeSensitive, false)...)
		secrets = append(secrets, secretsIn(rc.Change.After, rc.Change.AfterSensitive, false)...)
	}
	clean := redactor(secrets).Replace
	told := plan.Shard{Resources: []plan.Resource{}}
	for _, rc := range from.ResourceChanges {
		switch {
		case rc.Mode != tfjson.ManagedResourceMode || rc.Change.Actions.Read():
		case rc.Change.Actions.NoOp():
			told.Kept++
		default:
			told.Resources = append(told.Resources, tellResource(rc, guests, reasons, clean))
		}
	}
	slices.SortStableFunc(told.Resources, func(a, b plan.Resource) int { return strings.Compare(a.Address, b.Address) })
	if n := len(told.Resources); n > maxResources {
		told.Resources = told.Resources[:maxResources]
		told.Error = fmt.Sprintf("%d resources change; only the first %d are told", n, maxResources)
	}
	return told
}

func tellResource(rc *tfjson.ResourceChange, guests []string, reasons map[string]string, clean func(string) string) plan.Resource {
	r := plan.Resource{
		Address: tellAddress(rc.Address, guests, clean), Guest: ownerOf(rc.Address, guests),
		Action: actionOf(rc.Change.Actions), Reason: reasons[rc.Address],
	}
	if rc.DeposedKey != "" {
		r.Address += " (deposed " + rc.DeposedKey + ")"
	}
	t := teller{clean: clean, replaces: rc.Change.ReplacePaths}
	t.walk(nil, place{
		rc.Change.Before, rc.Change.After, rc.Change.BeforeSensitive, rc.Change.AfterSensitive, rc.Change.AfterUnknown,
	})
	r.Attributes = t.told
	if t.more > 0 {
		r.Attributes = append(r.Attributes, plan.Attribute{Path: fmt.Sprintf("(%d more)", t.more)})
	}
	return r
}

// tellAddress leaves the addresses of guests readable, whatever words are secret.
func tellAddress(address string, guests []string, clean func(string) string) string {
	for _, key := range keysOf(address) {
		if !slices.Contains(guests, key) && clean(key) != key {
			return clean(address)
		}
	}
	return address
}

func actionOf(actions tfjson.Actions) string {
	if actions.Replace() {
		return "replace"
	}
	words := make([]string, len(actions))
	for i, a := range actions {
		words[i] = string(a)
	}
	return strings.Join(words, "+")
}

// place is one place in a resource, before and after. The masks have true where a value is
// sensitive, unknown where it is known only after the apply; true on a container is true for all in it.
type place struct{ before, after, beforeMask, afterMask, unknown any }

// at is what a value or a mask has at a step: a key or an index.
func at(v, step any) any {
	switch v := v.(type) {
	case bool:
		return v
	case map[string]any:
		key, _ := step.(string)
		return v[key]
	case []any:
		if i, ok := step.(int); ok && i < len(v) {
			return v[i]
		}
	}
	return nil
}

func (p place) at(step any) place {
	return place{at(p.before, step), at(p.after, step), at(p.beforeMask, step), at(p.afterMask, step), at(p.unknown, step)}
}

// anyTrue says whether a mask marks anything.
func anyTrue(mask any) bool {
	switch mask := mask.(type) {
	case bool:
		return mask
	case []any:
		return slices.ContainsFunc(mask, anyTrue)
	case map[string]any:
		return slices.ContainsFunc(slices.Collect(maps.Values(mask)), anyTrue)
	}
	return false
}

func (p place) differs() bool { return anyTrue(p.unknown) || !reflect.DeepEqual(p.before, p.after) }

// steps are the ways further in. There are none where the two sides are not of one kind.
func (p place) steps() []any {
	keys, size := map[string]bool{}, 0
	var object, list bool
	if p.unknown == false {
		p.unknown = nil
	}
	for _, v := range []any{p.before, p.after, p.unknown} {
		switch v := v.(type) {
		case map[string]any:
			object = true
			for key := range v {
				keys[key] = true
			}
		case []any:
			list = true
			size = max(size, len(v))
		case nil:
		default:
			return nil
		}
	}
	if object && list {
		return nil
	}
	var steps []any
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		steps = append(steps, key)
	}
	for i := range size {
		steps = append(steps, i)
	}
	return steps
}

// teller tells the attributes of one resource that differ.
type teller struct {
	clean    func(string) string
	replaces []any // Terraform's replace_paths
	told     []plan.Attribute
	more     int
}

func (t *teller) walk(path []any, p place) {
	if !p.differs() {
		return
	}
	if len(path) > 0 && (p.beforeMask == true || p.afterMask == true || secretName(fmt.Sprint(path[len(path)-1]))) {
		t.tell(path, plan.Attribute{Sensitive: true})
		return
	}
	steps := p.steps()
	if len(steps) == 0 {
		t.leaf(path, p)
	}
	for _, step := range steps {
		t.walk(append(path, step), p.at(step))
	}
}

func (t *teller) leaf(path []any, p place) {
	before, after, unknown := t.text(p.before), t.text(p.after), anyTrue(p.unknown)
	switch {
	case anyTrue(p.beforeMask), anyTrue(p.afterMask), before == hidden, after == hidden, before == after && !unknown:
		t.tell(path, plan.Attribute{Sensitive: true})
	case unknown:
		t.tell(path, plan.Attribute{Before: cut(before, maxValue), Unknown: true})
	default:
		t.tell(path, plan.Attribute{Before: cut(before, maxValue), After: cut(after, maxValue)})
	}
}

func (t *teller) tell(path []any, a plan.Attribute) {
	if len(t.told) == maxAttributes {
		t.more++
		return
	}
	a.Path = cut(t.clean(pathText(path)), maxValue)
	a.Replaces = slices.ContainsFunc(t.replaces, func(r any) bool { return overlaps(r, path) })
	t.told = append(t.told, a)
}

// overlaps says whether one of two paths leads to the other.
func overlaps(replace any, path []any) bool {
	steps, _ := replace.([]any)
	for i := range min(len(steps), len(path)) {
		if fmt.Sprint(steps[i]) != fmt.Sprint(path[i]) {
			return false
		}
	}
	return true
}

// hidden is a text of which nothing is told.
const hidden = `"` + sensitive + `"`

// text is a value as compact JSON without secrets. Nothing is the empty text.
func (t *teller) text(v any) string {
	if v == nil {
		return ""
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(t.cleaned(v)); err != nil {
		return hidden // it came from JSON: this can't be
	}
	return strings.TrimSpace(out.String())
}

func (t *teller) cleaned(v any) any {
	switch v := v.(type) {
	case string:
		if text := t.clean(v); strings.TrimSpace(text) != sensitive {
			return text
		}
		return sensitive
	case json.Number:
		if t.clean(v.String()) != v.String() {
			return sensitive
		}
	case []any:
		all := make([]any, len(v))
		for i, e := range v {
			all[i] = t.cleaned(e)
		}
		return all
	case map[string]any:
		all := map[string]any{}
		for key, e := range v {
			if all[t.clean(key)] = sensitive; !secretName(key) {
				all[t.clean(key)] = t.cleaned(e)
			}
		}
		return all
	}
	return v
}

// pathText writes a path as people do: tags.name, disks[0].size, labels["a b"].
func pathText(path []any) string {
	var text strings.Builder
	for i, step := range path {
		key, isKey := step.(string)
		switch {
		case !isKey:
			fmt.Fprintf(&text, "[%d]", step)
		case !hclsyntax.ValidIdentifier(key):
			fmt.Fprintf(&text, "[%q]", key)
		case i > 0:
			text.WriteString("." + key)
		default:
			text.WriteString(key)
		}
	}
	return text.String()
}
