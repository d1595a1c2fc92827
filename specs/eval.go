package specs

import (
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Values are computed when they are first asked for, attribute by attribute, so that block order never
// matters and a pool may refer to a cache that refers to another attribute of the same pool. A value that
// could not be computed is unknown, and what depends on it is unknown too, without a fault of its own.

// node is one local value or one attribute of a pool or cache.
type node struct {
	value    cty.Value
	busy     bool
	reported bool
}

// node returns the value at addr ("local.x", "pool.x.max"); at is the reference that asked for it.
func (d *decoder) node(addr string, at hcl.Range, compute func() cty.Value) cty.Value {
	n, ok := d.nodes[addr]
	switch {
	case ok && n.busy:
		d.cycle(n, addr, at)
		return cty.DynamicVal
	case ok:
		return n.value
	case len(d.chain) >= maxChain:
		d.report(at, sumTooDeep, "This is the end of a chain of more than %d references, each to the next. Refer to the value itself.", maxChain)
		return cty.DynamicVal
	}
	n = &node{busy: true}
	d.nodes[addr] = n
	d.chain = append(d.chain, addr)
	n.value = compute()
	d.chain = d.chain[:len(d.chain)-1]
	n.busy = false
	return n.value
}

func (d *decoder) cycle(n *node, addr string, at hcl.Range) {
	if n.reported {
		return
	}
	n.reported = true
	chain := append(slices.Clone(d.chain[slices.Index(d.chain, addr):]), addr)
	d.report(at, sumCycle, "Each of these needs the next one's value first: %s. Give one of them a value that refers to none of the others.",
		strings.Join(chain, " -> "))
}

func (d *decoder) local(name string, at hcl.Range) cty.Value {
	return d.node("local."+name, at, func() cty.Value {
		v, _ := d.eval(d.locals[name].Expr)
		return v
	})
}

// eval returns the value of an expression and the scope that it was evaluated in; it reports what is wrong.
func (d *decoder) eval(expr hclsyntax.Expression) (cty.Value, *hcl.EvalContext) {
	scope, ok := d.scope(expr)
	if !ok {
		return cty.DynamicVal, scope
	}
	v, diags := expr.Value(scope)
	for _, diag := range diags {
		if diag.Subject == nil {
			diag.Subject = expr.Range().Ptr()
		}
	}
	d.diags = append(d.diags, diags...)
	if diags.HasErrors() {
		return cty.DynamicVal, scope
	}
	if tooLarge(v) {
		d.report(expr.Range(), sumTooLarge, "The value has more than %d bytes and elements, or a number beyond what a 64-bit float can hold. "+
			"Specs describe guests; keep data in files that are fetched at run time.", MaxFileSize)
		return cty.DynamicVal, scope
	}
	return v, scope
}

// tooLarge keeps values that repeat one another from growing without bounds.
func tooLarge(v cty.Value) bool {
	size := 0
	err := cty.Walk(v, func(_ cty.Path, v cty.Value) (bool, error) {
		size++
		switch {
		case v.IsNull() || !v.IsKnown():
		case v.Type() == cty.String:
			size += len(v.AsString())
		case v.Type() == cty.Number && !isFinite(v):
			size += MaxFileSize
		}
		return size <= MaxFileSize, nil
	})
	return err != nil || size > MaxFileSize
}

func isFinite(v cty.Value) bool {
	f := v.AsBigFloat()
	return !f.IsInf() && f.MantExp(nil) <= 1024
}

// scope gathers what expr refers to, and nothing else; false when a name in it is unknown.
func (d *decoder) scope(expr hclsyntax.Expression) (*hcl.EvalContext, bool) {
	ok := d.knownFunctions(expr)
	locals := map[string]cty.Value{}
	refs := map[string]map[string]map[string]cty.Value{"pool": {}, "cache": {}}
	for _, t := range expr.Variables() {
		switch root := t.RootName(); root {
		case "local":
			ok = d.referLocal(t, locals) && ok
		case "pool", "cache":
			ok = d.referBlock(t, refs[root]) && ok
		default:
			ok = false
			d.report(t.SourceRange(), sumUnknownName, "There is nothing called %q here. %s Text is written in quotes, and local values as local.%s.",
				root, hint(root, []string{"local", "pool", "cache"}), root)
		}
	}
	vars := map[string]cty.Value{"local": cty.ObjectVal(locals)}
	for kind, blocks := range refs {
		objects := map[string]cty.Value{}
		for name, attrs := range blocks {
			objects[name] = cty.ObjectVal(attrs)
		}
		vars[kind] = cty.ObjectVal(objects)
	}
	return &hcl.EvalContext{Variables: vars, Functions: d.funcs}, ok
}

// knownFunctions is asked before HCL can notice, whose suggestion depends on chance.
func (d *decoder) knownFunctions(expr hclsyntax.Expression) bool {
	ok := true
	hclsyntax.VisitAll(expr, func(n hclsyntax.Node) hcl.Diagnostics {
		if call, isCall := n.(*hclsyntax.FunctionCallExpr); isCall && !d.hasFunction(call.Name) {
			ok = false
			d.report(call.NameRange, sumUnknownFunction, "No function is called %q. %s", call.Name, hint(call.Name, slices.Collect(maps.Keys(d.funcs))))
		}
		return nil
	})
	return ok
}

func (d *decoder) hasFunction(name string) bool {
	_, ok := d.funcs[name]
	return ok
}

func (d *decoder) referLocal(t hcl.Traversal, into map[string]cty.Value) bool {
	names := func() []string { return slices.Sorted(maps.Keys(d.locals)) }
	name, ok := step(t, 1)
	if ok && d.locals[name] == nil {
		return d.unknown(t, sumUnknownLocal, "local value", name, names())
	}
	for _, name := range oneOr(name, ok, names) {
		into[name] = d.local(name, t.SourceRange())
	}
	return true
}

// referBlock puts what t needs of a pool or cache into scope: one attribute, or only the name where the
// block is referred to as a whole. So a cache may list a pool whose max is taken from that cache.
func (d *decoder) referBlock(t hcl.Traversal, into map[string]map[string]cty.Value) bool {
	kind := t.RootName()
	names := func() []string { return d.names(kind) }
	name, ok := step(t, 1)
	if ok && d.blocks[kind][name] == nil {
		return d.unknown(t, map[string]string{"pool": sumUnknownPool, "cache": sumUnknownCache}[kind], kind, name, names())
	}
	for _, name := range oneOr(name, ok, names) {
		if into[name] == nil {
			into[name] = map[string]cty.Value{"name": cty.StringVal(name)}
		}
	}
	attr, ok := step(t, 2)
	if !ok || attr == "name" {
		return true
	}
	b := d.blocks[kind][name]
	if _, known := b.schema.attrs[attr]; !known {
		d.report(t.SourceRange(), sumUnknownAttribute, "A %s has no attribute %q that can be referred to. %s", kind, attr,
			hint(attr, append(b.schema.attrNames(), "name")))
		return false
	}
	into[name][attr] = d.attr(b, attr, t.SourceRange())
	return true
}

// oneOr is the name that a reference gives, or all names where it gives none.
func oneOr(name string, given bool, all func() []string) []string {
	if given {
		return []string{name}
	}
	return all()
}

// unknown reports a reference to nothing, except where the missing block may be in a file that did not parse.
func (d *decoder) unknown(t hcl.Traversal, summary, kind, name string, known []string) bool {
	if !d.partial {
		d.report(t.SourceRange(), summary, "No %s is called %q. %s", kind, name, hint(name, known))
	}
	return false
}

// step returns the name at place i of a traversal: a.name or a["name"].
func step(t hcl.Traversal, i int) (string, bool) {
	if i >= len(t) {
		return "", false
	}
	switch s := t[i].(type) {
	case hcl.TraverseAttr:
		return s.Name, true
	case hcl.TraverseIndex:
		if s.Key.Type() == cty.String && s.Key.IsKnown() && !s.Key.IsNull() {
			return s.Key.AsString(), true
		}
	}
	return "", false
}
