package specs

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// form is how the value of an attribute is written in HCL.
type form int

const (
	quoted    form = iota // text, durations, shares and paths
	bare                  // numbers, true and false
	free                  // whichever of these two the value looks like
	poolRefs              // [pool.a, pool.b]
	words                 // ["a", "b"]
	textMap               // { key = "text" }
	numberMap             // { key = 1 }
	freeMap               // { key = whatever }
)

// ofKey is how the value of one key of an object is written; false for what is no object.
func (f form) ofKey() (form, bool) {
	one, ok := map[form]form{textMap: quoted, numberMap: bare, freeMap: free}[f]
	return one, ok
}

// place is what can be set: an attribute of a pool or cache or of a block inside it, or one key of an object.
// A place without an attribute is the inner block itself, which can only be unset.
type place struct {
	name              string // as it was asked for, such as "lease.ttl"
	block, label, key string
	attr              string
	form              form
}

// placeOf finds what name means in a pool or cache.
func placeOf(kind, name string) (place, error) {
	all := schemas()
	p := place{name: name}
	s, attr := all[kind], name
	if first, rest, _ := strings.Cut(name, "."); slices.Contains(s.blocks, first) {
		s, p.block, attr = all[first], first, rest
		if first == "probe" {
			p.label, attr, _ = strings.Cut(rest, ".")
			s = all["probe "+p.label]
		}
	}
	if s == nil || !p.find(s, attr) {
		return place{}, fmt.Errorf("a %s has no attribute %q. %s", kind, clip(name), hint(name, placeNames(kind, all)))
	}
	return p, nil
}

func (p *place) find(s *schema, name string) bool {
	if p.block != "" && name == "" {
		return true
	}
	var keyed bool
	p.attr, p.key, keyed = strings.Cut(name, ".")
	a, ok := s.attrs[p.attr]
	p.form = a.form
	if keyed {
		p.form, keyed = a.form.ofKey()
		return keyed && p.key != ""
	}
	return ok
}

// placeNames are the attributes of a pool or cache and of the blocks inside it.
func placeNames(kind string, all map[string]*schema) []string {
	names := all[kind].attrNames()
	for inner, s := range all {
		block, _, _ := strings.Cut(inner, " ")
		if slices.Contains(all[kind].blocks, block) {
			for attr := range s.attrs {
				names = append(names, strings.ReplaceAll(inner, " ", ".")+"."+attr)
			}
		}
	}
	for i, name := range names {
		if _, hasKeys := all[kind].attrs[name].form.ofKey(); hasKeys {
			names[i] += ".KEY"
		}
	}
	return names
}

// assignment gives a place a value.
type assignment struct {
	place
	text string // as it was given: "warm=3"
	// value is HCL when isExpr is set, and plain words when it is not.
	value  string
	isExpr bool
}

// assignmentOf reads NAME=VALUE or NAME:=EXPRESSION.
func assignmentOf(kind, text string) (assignment, error) {
	name, value, ok := strings.Cut(text, "=")
	if !ok || name == "" {
		return assignment{}, fmt.Errorf("%q is no assignment: write NAME=VALUE, such as lease.ttl=10m, or NAME:=EXPRESSION, such as warm:=local.warm", clip(text))
	}
	name, isExpr := strings.CutSuffix(name, ":")
	p, err := placeOf(kind, name)
	if err != nil {
		return assignment{}, err
	}
	a := assignment{place: p, text: text, value: value, isExpr: isExpr}
	_, hasKeys := p.form.ofKey()
	switch {
	case p.attr == "":
		return a, fmt.Errorf("%q is a block: set an attribute of it, such as %s", name, strings.Join(inside(kind, name), " or "))
	case isExpr:
		return a, a.checkExpr()
	case hasKeys:
		return a, fmt.Errorf("%q is an object: set one of its keys with %s.KEY=VALUE, or all of it with %s:={ KEY = VALUE }", name, name, name)
	case p.form == words:
		return a, fmt.Errorf("%q is a list: write it as an expression, %s:=[\"WORD\", \"WORD\"]", name, name)
	}
	return a, nil
}

// inside are the attributes of a block of a pool or cache.
func inside(kind, block string) (names []string) {
	for _, name := range slices.Sorted(slices.Values(placeNames(kind, schemas()))) {
		if strings.HasPrefix(name, block+".") {
			names = append(names, name)
		}
	}
	return names
}

// checkExpr says early, and in one line, what the file would say in many.
func (a assignment) checkExpr() error {
	src := []byte(a.value)
	if _, deep := tooDeep(src, ""); deep {
		return fmt.Errorf("the expression of %q has more than %d parts", a.name, maxParts)
	}
	_, diags := hclsyntax.ParseExpression(src, "", hcl.InitialPos)
	tokens, _ := hclsyntax.LexExpression(src, "", hcl.InitialPos)
	switch {
	case slices.ContainsFunc(tokens, func(t hclsyntax.Token) bool { return t.Type == hclsyntax.TokenComment }):
		return fmt.Errorf("the expression of %q has a comment: write that into the file, where it can't hide what stands behind it", a.name)
	case diags.HasErrors():
		return fmt.Errorf("%q is no expression for %q: %s: %s", clip(a.value), a.name, diags[0].Summary, diags[0].Detail)
	}
	return nil
}

var (
	plainNumber = regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?$`)
	// exactNumber is a number that reads the same when it is written again: 2 and 1.5, but not 007 and 1.10, which
	// may be part of a version.
	exactNumber = regexp.MustCompile(`^(0|-?[1-9][0-9]*|-?(0|[1-9][0-9]*)\.[0-9]*[1-9])$`)
)

// hcl is the value as it is written; was is the present value, nil for none. What no number is goes in
// quotes, and the rule of the attribute says what is wrong with it.
func (a assignment) hcl(was hclsyntax.Expression) string {
	isTruth := a.value == "true" || a.value == "false"
	switch {
	case a.isExpr:
		return strings.TrimSpace(a.value)
	case a.form == poolRefs:
		return refs(a.value)
	case a.form == bare && (isTruth || plainNumber.MatchString(a.value)):
		return a.value
	case a.form == free && !isQuoted(was) && (isTruth || exactNumber.MatchString(a.value)):
		return a.value
	}
	return textHCL(a.value)
}

// isQuoted keeps the version "12" text when it becomes 13.
func isQuoted(expr hclsyntax.Expression) bool {
	_, ok := expr.(*hclsyntax.TemplateExpr)
	return ok
}

func refs(list string) string {
	var out []string
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); hclsyntax.ValidIdentifier(name) {
			out = append(out, "pool."+name)
		} else if name != "" {
			out = append(out, "pool["+textHCL(name)+"]")
		}
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// keywords are the names that mean something else at the start of an object.
var keywords = []string{"for", "null", "true", "false"}

func keyHCL(key string) string {
	if hclsyntax.ValidIdentifier(key) && !slices.Contains(keywords, key) {
		return key
	}
	return textHCL(key)
}

func textHCL(s string) string { return string(hclwrite.TokensForValue(cty.StringVal(s)).Bytes()) }
