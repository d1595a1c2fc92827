package specs

import (
	"fmt"
	"math/big"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// rule checks the value of an attribute, which is neither null nor unknown, and returns it in the attribute's
// own type, or an unknown value after it reported what is wrong.
type rule func(*given) cty.Value

// given is an attribute as the spec gives it.
type given struct {
	*decoder
	name  string
	expr  hclsyntax.Expression
	scope *hcl.EvalContext
	value cty.Value
}

func (g *given) fault(summary, detail string, args ...any) cty.Value {
	return g.faultAt(g.expr.Range(), summary, detail, args...)
}

func (g *given) faultAt(at hcl.Range, summary, detail string, args ...any) cty.Value {
	diag := g.report(at, summary, detail, args...)
	diag.Expression, diag.EvalContext = g.expr, g.scope
	return cty.DynamicVal
}

// element is where the i-th element of a list stands, if the list is written out.
func (g *given) element(i int) hcl.Range {
	if list, ok := g.expr.(*hclsyntax.TupleConsExpr); ok && i < len(list.Exprs) {
		return list.Exprs[i].Range()
	}
	return g.expr.Range()
}

// item is where a key and its value stand in an object, if the object is written out.
func (g *given) item(key string) hcl.Range {
	if object, ok := g.expr.(*hclsyntax.ObjectConsExpr); ok {
		for _, i := range object.Items {
			if k, diags := i.KeyExpr.Value(g.scope); !diags.HasErrors() && k.RawEquals(cty.StringVal(key)) {
				return hcl.RangeBetween(i.KeyExpr.Range(), i.ValueExpr.Range())
			}
		}
	}
	return g.expr.Range()
}

// part is where the element with that key stands: a number in a list, text in an object.
func (g *given) part(key cty.Value) hcl.Range {
	if key.Type() == cty.Number {
		return g.element(asInt(key))
	}
	return g.item(key.AsString())
}

// as converts the value, or reports that the attribute, or which of its elements, should be something else.
func (g *given) as(t cty.Type, want string) (cty.Value, bool) {
	v, err := convert.Convert(g.value, t)
	if err == nil && v.IsWhollyKnown() && !hasNull(v) {
		return v, true
	}
	if !g.badElements(t, want) {
		g.fault(sumWrongType, "The attribute %q must be %s, but this is %s.", g.name, want, describe(g.value))
	}
	return cty.DynamicVal, false
}

// badElements reports the elements that keep the value from being a list or map of type t.
func (g *given) badElements(t cty.Type, want string) (found bool) {
	has := g.value.Type()
	keyed := t.IsMapType() && (has.IsObjectType() || has.IsMapType())
	listed := t.IsListType() && (has.IsTupleType() || has.IsListType())
	if !keyed && !listed {
		return false
	}
	for key, v := range g.value.Elements() {
		if got, err := convert.Convert(v, t.ElementType()); err == nil && !got.IsNull() {
			continue
		}
		found = true
		g.faultAt(g.part(key), sumWrongType, "The attribute %q must be %s, but this element is %s.", g.name, want, describe(v))
	}
	return found
}

func hasNull(v cty.Value) bool {
	null := false
	_ = cty.Walk(v, func(_ cty.Path, v cty.Value) (bool, error) {
		null = null || v.IsNull()
		return !v.IsNull(), nil
	})
	return null
}

// describe names a value for people, showing it only where it is short.
func describe(v cty.Value) string {
	switch t := v.Type(); {
	case v.IsNull():
		return "null"
	case t == cty.String && len(v.AsString()) <= 40:
		return fmt.Sprintf("the text %q", v.AsString())
	case t == cty.Number:
		return "the number " + v.AsBigFloat().Text('g', 20)
	case t == cty.Bool:
		return fmt.Sprintf("%t", v.True())
	case t.IsTupleType() || t.IsListType() || t.IsSetType():
		return "a list"
	case t.IsObjectType() || t.IsMapType():
		return "an object"
	default:
		return "a " + t.FriendlyName()
	}
}

func whole(low, high int64) rule {
	return func(g *given) cty.Value {
		v, ok := g.as(cty.Number, fmt.Sprintf("a whole number from %d to %d", low, high))
		if !ok {
			return v
		}
		f := v.AsBigFloat()
		switch {
		case f.Cmp(big.NewFloat(float64(low))) < 0 || f.Cmp(big.NewFloat(float64(high))) > 0:
			return g.fault(sumOutOfRange, "The attribute %q must be from %d to %d, but this is %s.", g.name, low, high, f.Text('g', 20))
		case !f.IsInt():
			return g.fault(sumNotWhole, "The attribute %q must be a whole number from %d to %d, but this is %s. Round it, with floor or ceil where it is computed.",
				g.name, low, high, f.Text('g', 20))
		}
		return v
	}
}

func duration(low time.Duration) rule {
	return func(g *given) cty.Value {
		v, ok := g.as(cty.String, `a duration such as "30s", "10m" or "4h"`)
		if !ok {
			return v
		}
		t, err := time.ParseDuration(v.AsString())
		switch {
		case err != nil:
			return g.fault(sumBadDuration, "The attribute %q is a duration: numbers with the units ms, s, m and h, such as \"90s\" or \"1h30m\". This is %q.",
				g.name, clip(v.AsString()))
		case t < low || t > maxDuration:
			return g.fault(sumDurationRange, "The attribute %q must be from %s to %s, but this is %s.", g.name, brief(low), brief(maxDuration), brief(t))
		}
		return v
	}
}

// clip keeps what is quoted in a message short.
func clip(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}

// brief writes a duration without units that are zero: 1h and not 1h0m0s.
func brief(t time.Duration) string {
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func text(low, high int) rule {
	return func(g *given) cty.Value {
		v, ok := g.as(cty.String, "text in quotes")
		if !ok {
			return v
		}
		if s := v.AsString(); len(s) < low || len(s) > high || strings.Contains(s, "\x00") {
			return g.fault(sumBadText, "The attribute %q must have %d to %d bytes, none of them zero, but this has %d.", g.name, low, high, len(s))
		}
		return v
	}
}

func yesNo(g *given) cty.Value {
	v, _ := g.as(cty.Bool, "true or false")
	return v
}

// share reads "40%", and keeps the fraction.
func share(g *given) cty.Value {
	v, ok := g.as(cty.String, `a percentage such as "40%"`)
	if !ok {
		return v
	}
	digits, isShare := strings.CutSuffix(v.AsString(), "%")
	f, err := cty.ParseNumberVal(digits)
	if !isShare || err != nil || f.LessThan(cty.Zero).True() || f.GreaterThan(cty.NumberIntVal(100)).True() {
		return g.fault(sumBadShare, "The attribute %q must be a percentage from \"0%%\" to \"100%%\", but this is %q. Write the number with a percent sign, in quotes.",
			g.name, clip(v.AsString()))
	}
	return f.Divide(cty.NumberIntVal(100))
}

var (
	labelKey   = regexp.MustCompile(`^[a-z][a-z0-9_./-]{0,62}$`)
	labelValue = regexp.MustCompile(`^[!-~]([ -~]{0,61}[!-~])?$`)
)

func labels(g *given) cty.Value {
	v, ok := g.as(cty.Map(cty.String), `an object of text, such as { os = "debian-12" }`)
	if !ok {
		return v
	}
	ok = g.keysFit(v)
	for key, value := range v.AsValueMap() {
		if !labelValue.MatchString(value.AsString()) {
			ok = false
			g.faultAt(g.item(key), sumBadLabel, "The label %q has the value %q. A value has 1 to %d printable ASCII characters and no space at its ends.",
				clip(key), clip(value.AsString()), MaxLabelLength)
		}
	}
	return onlyIf(ok, v)
}

func capacity(g *given) cty.Value {
	v, ok := g.as(cty.Map(cty.Number), "an object of numbers, such as { cpus = 2, memory = 2048 }")
	if !ok {
		return v
	}
	ok = g.keysFit(v)
	for key, value := range v.AsValueMap() {
		if value.LessThan(cty.Zero).True() {
			ok = false
			g.faultAt(g.item(key), sumOutOfRange, "The capacity %q must be 0 or more, but this is %s.", clip(key), value.AsBigFloat().Text('g', 20))
		}
	}
	return onlyIf(ok, v)
}

func onlyIf(ok bool, v cty.Value) cty.Value {
	if !ok {
		return cty.DynamicVal
	}
	return v
}

func (g *given) keysFit(v cty.Value) bool {
	ok := true
	if n := v.LengthInt(); n > MaxLabels {
		ok = false
		g.fault(sumBadLabel, "The attribute %q has %d keys, and at most %d are allowed. Keep those that requests match on.", g.name, n, MaxLabels)
	}
	for key := range v.AsValueMap() {
		if !labelKey.MatchString(key) {
			ok = false
			g.faultAt(g.item(key), sumBadLabel, "%q is not a key of %q. A key begins with a lower-case letter and has at most %d lower-case letters, digits and the characters _ . / -",
				clip(key), g.name, MaxLabelLength)
		}
	}
	return ok
}

// reservedVariables are the inputs of every module that Greenroom itself fills in.
var reservedVariables = []string{"guests", "pool", "ssh_authorized_keys"}

func variables(g *given) cty.Value {
	if t := g.value.Type(); !t.IsObjectType() && !t.IsMapType() {
		return g.fault(sumWrongType, "The attribute \"variables\" must be an object, such as { isolation = \"process\" }, but this is %s.", describe(g.value))
	}
	ok := true
	for name := range g.value.AsValueMap() {
		switch {
		case slices.Contains(reservedVariables, name):
			ok = false
			g.faultAt(g.item(name), sumReserved, "The variable %q is filled in by Greenroom for every module; the pool may not set it. Reserved are %s. Take it out.",
				name, quoteAll(reservedVariables))
		case !hclsyntax.ValidIdentifier(name):
			ok = false
			g.faultAt(g.item(name), sumBadName, "%q can't be the name of a Terraform variable. Names have letters, digits, _ and -, and don't begin with a digit.", clip(name))
		}
	}
	return onlyIf(ok, g.value)
}

// poolList keeps the names of the pools in a list of references.
func poolList(g *given) cty.Value {
	if t := g.value.Type(); !t.IsTupleType() && !t.IsListType() && !t.IsSetType() {
		return g.fault(sumWrongType, "The attribute \"pools\" must be a list of pools, such as [pool.local], but this is %s.", describe(g.value))
	}
	var names []cty.Value
	ok := true
	for i, v := range g.value.AsValueSlice() {
		ok = g.poolRef(g.element(i), v, names) && ok
		if ok {
			names = append(names, v.GetAttr("name"))
		}
	}
	switch {
	case !ok:
		return cty.DynamicVal
	case len(names) == 0:
		return g.fault(sumNoPools, "The list is empty, and a cache draws its guests from at least one pool. Add one, such as [pool.local].")
	}
	return cty.ListVal(names)
}

// poolRef checks one element of a list of pools; before are the elements before it.
func (g *given) poolRef(at hcl.Range, v cty.Value, before []cty.Value) bool {
	t := v.Type()
	if v.IsNull() || !t.IsObjectType() || !t.HasAttribute("name") || t.AttributeType("name") != cty.String || v.GetAttr("name").IsNull() {
		g.faultAt(at, sumWrongType, "An element of \"pools\" must be a pool, but this is %s. Write pool.NAME, without quotes.", describe(v))
		return false
	}
	name := v.GetAttr("name").AsString()
	switch {
	case g.blocks["pool"][name] == nil:
		g.faultAt(at, sumUnknownPool, "No pool is called %q; only pools can be listed here. %s", name, hint(name, g.names("pool")))
	case slices.ContainsFunc(before, v.GetAttr("name").RawEquals):
		g.faultAt(at, sumDuplicateRef, "The pool %q is listed more than once. The list is the order of preference; keep it at its first place.", name)
	default:
		return true
	}
	return false
}

func script(g *given) cty.Value {
	v := text(1, maxPathLength)(g)
	if !v.IsKnown() {
		return v
	}
	if _, err := g.readInside(v.AsString()); err != nil {
		g.diags = append(g.diags, pathFault(g.expr.Range(), "script", v.AsString(), err))
		return cty.DynamicVal
	}
	return v
}

func urlPath(g *given) cty.Value {
	v := text(1, maxPathLength)(g)
	if !v.IsKnown() {
		return v
	}
	if s := v.AsString(); !path.IsAbs(s) || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return g.fault(sumBadText, "The attribute %q is the path of a URL: it begins with / and has no spaces. This is %q.", g.name, clip(s))
	}
	return v
}

func command(g *given) cty.Value {
	v, ok := g.as(cty.List(cty.String), `a list of words, such as ["systemctl", "is-system-running"]`)
	if !ok {
		return v
	}
	words := v.AsValueSlice()
	if len(words) == 0 || len(words) > maxCommandWords || words[0].AsString() == "" {
		return g.fault(sumBadText, "The attribute %q must have 1 to %d words, the first of them a program, but this has %d.", g.name, maxCommandWords, len(words))
	}
	return v
}
