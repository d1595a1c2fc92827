package terraform

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/zclconf/go-cty/cty"
)

// contractInputs are the variables that every module has to declare (design §5).
var contractInputs = []string{"guests", "pool", "ssh_authorized_keys"}

// declared is what a module's *.tf files declare.
type declared struct {
	variables map[string]declaredVariable
	outputs   map[string]bool
	calls     bool // other modules, or a provisioner that inherits our settings; it may be said otherwise in files that are not read
}

type declaredVariable struct{ required, sensitive bool }

// readModule reads the declarations in dir. Anything else in the module is Terraform's to judge.
func readModule(dir string) (declared, error) {
	mod := declared{variables: map[string]declaredVariable{}, outputs: map[string]bool{}}
	hclFiles, _ := filepath.Glob(filepath.Join(dir, "*.tf")) // the pattern is well formed
	jsonFiles, _ := filepath.Glob(filepath.Join(dir, "*.tf.json"))
	others, _ := filepath.Glob(filepath.Join(dir, "*.tofu*"))
	mod.calls = len(others) > 0
	if len(hclFiles)+len(jsonFiles) == 0 {
		return mod, fmt.Errorf("there is no *.tf file in %s: it is no Terraform module", dir)
	}
	parser := hclparse.NewParser()
	for _, file := range hclFiles {
		if err := mod.read(parser.ParseHCLFile(file)); err != nil {
			return mod, err
		}
	}
	for _, file := range jsonFiles {
		if err := mod.read(parser.ParseJSONFile(file)); err != nil {
			return mod, err
		}
	}
	return mod, nil
}

func (m *declared) read(file *hcl.File, diags hcl.Diagnostics) error {
	if diags.HasErrors() {
		return diags
	}
	content, _, diags := file.Body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
		{Type: "variable", LabelNames: []string{"name"}},
		{Type: "output", LabelNames: []string{"name"}},
		{Type: "module", LabelNames: []string{"name"}},
		{Type: "resource", LabelNames: []string{"type", "name"}},
	}})
	if diags.HasErrors() {
		return diags
	}
	for _, block := range content.Blocks {
		switch block.Type {
		case "output":
			m.outputs[block.Labels[0]] = true
		case "module":
			m.calls = true
		case "resource":
			m.calls = m.calls || provisions(block.Body)
		case "variable":
			m.variables[block.Labels[0]] = readVariable(block.Body)
		}
	}
	return nil
}

// provisions tells whether a resource starts something, when it is made or ended, that would inherit our settings, as far as can be seen.
func provisions(body hcl.Body) bool {
	content, _, diags := body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "provisioner", LabelNames: []string{"type"}}}})
	return diags.HasErrors() || slices.ContainsFunc(content.Blocks, func(b *hcl.Block) bool { return !hasOwn(b.Body, ours) })
}

// hasOwn tells whether a provisioner's environment says each of some variables by itself.
func hasOwn(provisioner hcl.Body, names []string) bool {
	attrs, _, diags := provisioner.PartialContent(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "environment"}}})
	if diags.HasErrors() || attrs.Attributes["environment"] == nil {
		return false
	}
	pairs, diags := hcl.ExprMap(attrs.Attributes["environment"].Expr)
	own := map[string]bool{}
	for _, pair := range pairs {
		if key, diags := pair.Key.Value(nil); !diags.HasErrors() && key.Type() == cty.String && key.IsKnown() && !key.IsNull() {
			own[key.AsString()] = true
		}
	}
	return !diags.HasErrors() && !slices.ContainsFunc(names, func(name string) bool { return !own[name] })
}

func readVariable(body hcl.Body) declaredVariable {
	attrs, _, _ := body.PartialContent(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{
		{Name: "default"}, {Name: "sensitive"},
	}})
	v := declaredVariable{required: attrs.Attributes["default"] == nil}
	if a := attrs.Attributes["sensitive"]; a != nil {
		diags := gohcl.DecodeExpression(a.Expr, nil, &v.sensitive)
		v.sensitive = v.sensitive || diags.HasErrors() // Terraform itself reports a wrong one
	}
	return v
}

// checkModule holds a module's declarations against the contract and the pool's variables.
func checkModule(mod declared, variables map[string]json.RawMessage) error {
	var errs []error
	for _, name := range contractInputs {
		if _, ok := mod.variables[name]; !ok {
			errs = append(errs, fmt.Errorf("the module does not declare variable %q, which every module must", name))
		}
		if _, ok := variables[name]; ok {
			errs = append(errs, fmt.Errorf("variable %q is Greenroom's own: take it out of the pool's variables", name))
		}
	}
	if !mod.outputs["guests"] {
		errs = append(errs, errors.New("the module does not declare output \"guests\", which every module must"))
	}
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		if _, ok := mod.variables[name]; !ok {
			errs = append(errs, fmt.Errorf("the pool sets variable %q, which the module does not declare; it declares %s", name, mod.own()))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(mod.variables)) {
		_, set := variables[name]
		if mod.variables[name].required && !set && !slices.Contains(contractInputs, name) {
			errs = append(errs, fmt.Errorf("the module needs variable %q, which the pool does not set", name))
		}
	}
	return errors.Join(errs...)
}

// own lists the variables that a pool may set.
func (m declared) own() string {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(m.variables)), func(name string) bool {
		return slices.Contains(contractInputs, name)
	})
	if len(names) == 0 {
		return "none of its own"
	}
	return strings.Join(names, ", ")
}

// errUnusable marks a guest whose output has the right shape and can't be reached for all that: it
// came out wrong, while a wrong shape is the module's fault.
var errUnusable = errors.New("the guest is not usable")

// What a guest may say of itself: it is kept in the store, and told to whoever leases it.
const (
	maxField  = 4 << 10
	maxToTell = 64 << 10 // of its attributes
)

// checkOutput reads one guest of the module's output and holds it against the contract.
func checkOutput(raw json.RawMessage) (Output, error) {
	var o Output
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil || fields == nil {
		return o, errors.New("an object is needed")
	}
	for _, name := range []string{"id", "host", "port", "user", "host_key", "attributes"} {
		if _, ok := fields[name]; !ok {
			return o, fmt.Errorf("attribute %q is missing", name)
		}
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return o, fmt.Errorf("attribute %q: a %s is needed, not a %s", wrong.Field, wrong.Type, wrong.Value)
		}
		return o, err
	}
	for name, text := range map[string]string{"id": o.ID, "host": o.Host, "user": o.User, "host_key": o.HostKey} {
		if len(text) > maxField || strings.ContainsFunc(strings.TrimRight(text, "\r\n"), unicode.IsControl) {
			return o, fmt.Errorf("attribute %q: a text of at most %d bytes in one line is needed", name, maxField)
		}
	}
	if n := len(fields["attributes"]); n > maxToTell {
		return o, fmt.Errorf("attribute \"attributes\" has %d bytes; allowed are %d: it is for what is worth telling each holder", n, maxToTell)
	}
	switch {
	case o.ID == "" || o.Host == "" || o.User == "":
		return o, fmt.Errorf("%w: \"id\", \"host\" and \"user\" must not be empty", errUnusable)
	case o.Port < 1 || o.Port > 65535:
		return o, fmt.Errorf("%w: \"port\" is %d; allowed are 1 to 65535", errUnusable, o.Port)
	}
	return o, nil
}

// checkOutputs reads the guests that keep the contract, and says of each other one why it does not.
func checkOutputs(raw map[string]json.RawMessage) (good map[string]Output, bad map[string]error) {
	good, bad = map[string]Output{}, map[string]error{}
	for name, r := range raw {
		o, err := checkOutput(r)
		if err != nil {
			bad[name] = err
			continue
		}
		good[name] = o
	}
	return good, bad
}

// breaches lists what is wrong with the module's outputs after a run that applied all it was asked to.
func breaches(wanted map[string]Guest, raw map[string]json.RawMessage, bad map[string]error) []string {
	var found []string
	for name := range wanted {
		if _, ok := raw[name]; !ok {
			found = append(found, fmt.Sprintf("output \"guests\" lacks guest %s", name))
		}
	}
	for name := range raw {
		if _, ok := wanted[name]; !ok {
			found = append(found, fmt.Sprintf("output \"guests\" has guest %s, which nobody wants", name))
		}
	}
	for name, why := range bad {
		if !errors.Is(why, errUnusable) {
			found = append(found, fmt.Sprintf("output \"guests\", guest %s: %s", name, why))
		}
	}
	slices.Sort(found)
	return found
}
