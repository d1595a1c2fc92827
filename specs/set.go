package specs

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// set gives a place its value, in the block inside the pool or cache that is made where it is missing.
func (s *source) set(a assignment) error {
	if s.block(a.place) == nil {
		if err := s.addBlock(a.place); err != nil {
			return err
		}
	}
	attr := s.block(a.place).Body.Attributes[a.attr]
	switch {
	case a.key != "" && attr != nil:
		return s.setKey(attr, a)
	case a.key != "":
		return s.setAttr(a.place, fmt.Sprintf("{ %s = %s }", keyHCL(a.key), a.hcl(nil)))
	case attr != nil:
		return s.splice(attr.Expr.Range().Start.Byte, attr.Expr.Range().End.Byte, a.hcl(attr.Expr))
	}
	return s.setAttr(a.place, a.hcl(nil))
}

// addOuter adds the empty pool or cache at the end of the file.
func (s *source) addOuter() error {
	text := s.lines(s.kind+" "+textHCL(s.what)+" {", "}")
	switch src := string(s.src); {
	case strings.TrimSpace(src) == "" || strings.HasSuffix(src, "\n"+s.lines()):
	case strings.HasSuffix(src, "\n"):
		text = s.lines() + text
	default:
		text = s.lines("", "") + text
	}
	return s.splice(len(s.src), len(s.src), text)
}

// layOut brings the pool or cache, which is new, in the canonical style.
func (s *source) layOut() error {
	b := s.block(place{})
	from, to := b.TypeRange.Start.Byte, b.CloseBraceRange.End.Byte
	return s.splice(from, to, string(hclwrite.Format(s.src[from:to])))
}

// addBlock adds an empty block at the end of the pool or cache.
func (s *source) addBlock(p place) error {
	outer := place{}
	if err := s.openUp(outer); err != nil {
		return err
	}
	b := s.block(outer)
	indent := s.indent(b.TypeRange.Start.Byte) + s.unit()
	lines := []string{indent + strings.Join(append([]string{p.block}, p.quotedLabel()...), " ") + " {", indent + "}"}
	if len(b.Body.Attributes)+len(b.Body.Blocks) > 0 {
		lines = slices.Insert(lines, 0, "")
	}
	at := s.lineStart(b.CloseBraceRange.Start.Byte)
	return s.splice(at, at, s.lines(lines...))
}

func (p place) quotedLabel() []string {
	if p.label == "" {
		return nil
	}
	return []string{textHCL(p.label)}
}

// openUp gives a block that stands on one line a line for each of its parts.
func (s *source) openUp(p place) error {
	b := s.block(p)
	from, to := b.OpenBraceRange.End.Byte, b.CloseBraceRange.Start.Byte
	if last, _ := s.isLast(from); last {
		return nil
	}
	indent := s.indent(b.TypeRange.Start.Byte)
	parts := []string{""}
	if inner := strings.TrimSpace(string(s.src[from:to])); inner != "" {
		parts = append(parts, indent+s.unit()+inner)
	}
	return s.splice(from, to, s.lines(parts...)+indent)
}

// setAttr adds an attribute that its block does not have.
func (s *source) setAttr(p place, expr string) error {
	if err := s.openUp(p); err != nil {
		return err
	}
	b := s.block(p)
	above := lastAttr(b)
	if above == nil {
		at := s.lineEnd(b.OpenBraceRange.End.Byte)
		return s.splice(at, at, s.lines(s.indent(b.TypeRange.Start.Byte)+s.unit()+p.attr+" = "+expr))
	}
	at := s.lineEnd(above.SrcRange.End.Byte)
	return s.splice(at, at, s.lines(s.indent(above.NameRange.Start.Byte)+aligned(p.attr, above.SrcRange, above.EqualsRange)+expr))
}

// lastAttr is the last of the attributes that stand above the blocks inside b, or else of all.
func lastAttr(b *hclsyntax.Block) (last *hclsyntax.Attribute) {
	for _, a := range bySource(b.Body.Attributes) {
		if last != nil && len(b.Body.Blocks) > 0 && a.NameRange.Start.Byte > b.Body.Blocks[0].TypeRange.Start.Byte {
			break
		}
		last = a
	}
	return last
}

// aligned is "name = " with the equals sign below the one of the item above, where it fits.
func aligned(name string, above, equals hcl.Range) string {
	width := len(name)
	if above.Start.Line == above.End.Line {
		width = max(width, equals.Start.Byte-above.Start.Byte-1)
	}
	return name + strings.Repeat(" ", width-len(name)) + " = "
}

// computed is about an object whose keys only an evaluation would tell.
func (s *source) computed(attr *hclsyntax.Attribute, at hcl.Range) error {
	return fmt.Errorf("%s is computed in line %d of %s, and only an object that is written out can be edited key by key: edit it there by hand, or replace it with \"%s:=EXPRESSION\"",
		attr.Name, at.Start.Line, s.name, attr.Name)
}

// item finds the item of an object that has a key, -1 where none has; the last of several is the one that counts.
func (s *source) item(attr *hclsyntax.Attribute, key string) (object *hclsyntax.ObjectConsExpr, index int, err error) {
	object, ok := attr.Expr.(*hclsyntax.ObjectConsExpr)
	if !ok {
		return nil, 0, s.computed(attr, attr.Expr.Range())
	}
	index = -1
	for i, item := range object.Items {
		k, diags := item.KeyExpr.Value(nil)
		if diags.HasErrors() || !known(k) {
			return nil, 0, s.computed(attr, item.KeyExpr.Range())
		}
		if k.RawEquals(cty.StringVal(key)) {
			index = i
		}
	}
	return object, index, nil
}

func (s *source) setKey(attr *hclsyntax.Attribute, a assignment) error {
	object, i, err := s.item(attr, a.key)
	if err != nil {
		return err
	}
	if i >= 0 {
		value := object.Items[i].ValueExpr
		return s.splice(value.Range().Start.Byte, value.Range().End.Byte, a.hcl(value))
	}
	if len(object.Items) == 0 {
		return s.firstItem(attr, object.SrcRange, keyHCL(a.key)+" = "+a.hcl(nil))
	}
	return s.addItem(object.Items[len(object.Items)-1], keyHCL(a.key), a.hcl(nil))
}

func (s *source) firstItem(attr *hclsyntax.Attribute, braces hcl.Range, item string) error {
	from, to := braces.Start.Byte, braces.End.Byte
	switch inner := s.src[from+1 : to-1]; {
	case len(bytes.TrimSpace(inner)) == 0:
		return s.splice(from, to, "{ "+item+" }")
	case s.isFirst(to - 1):
		at := s.lineStart(to - 1)
		return s.splice(at, at, s.lines(s.indent(attr.NameRange.Start.Byte)+s.unit()+item))
	}
	return s.splice(to-1, to-1, item+" ")
}

// addItem adds an item behind the last one of an object, in the same way.
func (s *source) addItem(above hclsyntax.ObjectConsItem, key, value string) error {
	head := above.KeyExpr.Range()
	at := above.ValueExpr.Range().End.Byte
	ends, comma := s.isLast(at)
	if !ends {
		return s.splice(at, at, ", "+key+" = "+value)
	}
	if comma {
		value += ","
	}
	equals := s.tokens[s.next(head.End.Byte)].Range
	line := s.indent(head.Start.Byte) + aligned(key, hcl.RangeBetween(head, above.ValueExpr.Range()), equals) + value
	return s.splice(s.lineEnd(at), s.lineEnd(at), s.lines(line))
}

// unset removes what is at a place: a pool or cache, a block inside it, an attribute or a key. A block that
// is left empty goes along, but for probes, which mean something without attributes.
func (s *source) unset(p place) error {
	b := s.block(p)
	if b == nil {
		return nil
	}
	attr := b.Body.Attributes[p.attr]
	below, _ := s.isLast(b.OpenBraceRange.End.Byte)
	switch only := len(b.Body.Attributes)+len(b.Body.Blocks) == 1; {
	case p.attr == "", attr != nil && p.key == "" && only && p.block != "" && p.label == "":
		return s.cut(b.TypeRange.Start.Byte, b.CloseBraceRange.End.Byte)
	case attr == nil:
		return nil
	case p.key != "":
		return s.unsetKey(p)
	case !below:
		return s.splice(b.OpenBraceRange.End.Byte, b.CloseBraceRange.Start.Byte, "")
	}
	return s.cut(attr.NameRange.Start.Byte, attr.SrcRange.End.Byte)
}

// unsetKey removes every item with the key, because of several the one before would count then.
func (s *source) unsetKey(p place) error {
	for {
		object, i, err := s.item(s.block(p).Body.Attributes[p.attr], p.key)
		if err != nil || i < 0 {
			return err
		}
		if err := s.cutItem(object, i); err != nil {
			return err
		}
	}
}

func (s *source) cutItem(object *hclsyntax.ObjectConsExpr, i int) error {
	from, to := object.Items[i].KeyExpr.Range().Start.Byte, object.Items[i].ValueExpr.Range().End.Byte
	if last, _ := s.isLast(to); last && s.isFirst(from) {
		return s.cut(from, to)
	}
	if i+1 < len(object.Items) {
		return s.splice(from, object.Items[i+1].KeyExpr.Range().Start.Byte, "")
	}
	if next := s.tokens[s.next(to)]; i == 0 && next.Type == hclsyntax.TokenComma {
		to = next.Range.End.Byte
	}
	before := s.next(from) - 1
	for i > 0 && (s.tokens[before].Type == hclsyntax.TokenComma || s.tokens[before].Type == hclsyntax.TokenNewline) {
		before--
	}
	return s.splice(s.tokens[before].Range.End.Byte, to, "")
}
