package specs

import (
	"bytes"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// longNumber is from how many characters on a number may be a secret; shorter ones are sizes and ports.
const longNumber = 6

// Withheld prepares diagnostics for others than their author: a snippet of the source shows text only where it can't be a secret,
// which is in labels and in the attributes of the language other than variables and user_data, and no value of an expression is
// told, nor a hidden text in the words of a function or a rule that it was given to. Text and comments are hidden byte by byte, so
// that everything stays in its place.
func Withheld(files map[string]*hcl.File, diags hcl.Diagnostics) (map[string]*hcl.File, hcl.Diagnostics) {
	shown := shownAttributes()
	out := make(map[string]*hcl.File, len(files))
	var texts []string
	for name, file := range files {
		veiled, v := *file, veil{shown: shown, src: file.Bytes, value: -1, hidden: -1}
		veiled.Bytes = v.draw()
		out[name], texts = &veiled, append(texts, v.texts...)
	}
	leave := leaveOut(texts)
	bare := make(hcl.Diagnostics, len(diags))
	for i, d := range diags {
		one := *d
		one.Expression, one.EvalContext, one.Detail = nil, nil, leave.Replace(d.Detail)
		bare[i] = &one
	}
	return out, bare
}

// leaveOut takes texts out of sentences where they stand in quotes. One of less than four bytes is no secret.
func leaveOut(texts []string) *strings.Replacer {
	slices.Sort(texts)
	var pairs []string
	for _, text := range slices.Compact(texts) {
		if len(text) >= 4 {
			pairs = append(pairs, `"`+text+`"`, `"…"`)
		}
	}
	return strings.NewReplacer(pairs...)
}

// shownAttributes are the names of attributes whose values may be shown; blocks that may have such are in it by their types.
func shownAttributes() map[string]bool {
	shown := map[string]bool{"probe": true}
	for kind, s := range schemas() {
		shown[kind] = true
		for name := range s.attrs {
			shown[name] = name != "variables" && name != "user_data"
		}
	}
	return shown
}

// veil hides text in one file. It works on tokens, because a file with faults may have no syntax tree.
type veil struct {
	shown map[string]bool
	src   []byte
	out   []byte

	depth   int // of brackets
	value   int // depth of the value that we are in; -1: none
	hidden  int // depth of the value or block that is hidden; -1: none
	strings []int
	texts   []string // that were hidden, save for comments
}

func (v *veil) draw() []byte {
	v.out = bytes.Clone(v.src)
	tokens, _ := hclsyntax.LexConfig(v.src, "", hcl.InitialPos)
	fresh := true // here an attribute or a block begins
	for i, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc:
			v.strings = append(v.strings, t.Range.End.Byte)
		case hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc:
			v.strings = v.strings[:max(0, len(v.strings)-1)]
		case hclsyntax.TokenQuotedNewline: // from an open quote on nobody can tell text from names
			v.hide(v.strings[0], len(v.src))
			return v.out
		case hclsyntax.TokenIdent:
			if attribute := tokens[i+1].Type == hclsyntax.TokenEqual; fresh || attribute && v.value == v.depth {
				v.begin(string(t.Bytes), attribute)
			}
		}
		if t.Type == hclsyntax.TokenComment || v.hidden >= 0 && mayBeSecret(t) {
			v.hide(t.Range.Start.Byte, t.Range.End.Byte)
			if t.Type != hclsyntax.TokenComment {
				v.texts = append(v.texts, string(t.Bytes))
			}
		}
		v.nest(t)
		fresh = v.value < 0 && (t.Type == hclsyntax.TokenNewline || t.Type == hclsyntax.TokenComment || t.Type == hclsyntax.TokenOBrace)
	}
	if len(v.strings) > 0 {
		v.hide(v.strings[0], len(v.src))
	}
	return v.out
}

// begin begins an attribute or a block.
func (v *veil) begin(name string, attribute bool) {
	if attribute {
		v.value = v.depth
	}
	if v.hidden == v.depth { // another attribute on the same line
		v.hidden = -1
	}
	if v.hidden < 0 && !v.shown[name] {
		v.hidden = v.depth
	}
}

// nest follows brackets and the ends of values and blocks.
func (v *veil) nest(t hclsyntax.Token) {
	switch t.Type {
	case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
		v.depth++
	case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd:
		v.depth = max(0, v.depth-1)
		v.end(v.depth + 1)
	case hclsyntax.TokenNewline, hclsyntax.TokenComment:
		if bytes.HasSuffix(t.Bytes, []byte("\n")) { // not so a comment within a line
			v.end(v.depth)
		}
	}
}

// end ends the value and the hidden part that began at a depth or further in.
func (v *veil) end(depth int) {
	if v.hidden >= depth {
		v.hidden = -1
	}
	if v.value >= depth {
		v.value = -1
	}
}

func mayBeSecret(t hclsyntax.Token) bool {
	switch t.Type {
	case hclsyntax.TokenQuotedLit, hclsyntax.TokenStringLit:
		return true
	case hclsyntax.TokenNumberLit:
		return len(t.Bytes) >= longNumber
	}
	return false
}

func (v *veil) hide(from, to int) {
	for i := from; i < to; i++ {
		if v.out[i] != '\n' && v.out[i] != '\r' {
			v.out[i] = '*'
		}
	}
}
