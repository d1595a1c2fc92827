package specs

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// source is one spec file that is being edited. The parser says where things stand, and just those bytes are
// replaced, because the files of hclwrite are laid out anew whenever they are written.
type source struct {
	name       string
	kind, what string // the pool or cache that is edited
	src        []byte
	body       *hclsyntax.Body
	tokens     hclsyntax.Tokens
}

// errUnparsed ends an edit after which the file does not parse; what is wrong is said when the edit is validated.
var errUnparsed = errors.New("the file does not parse after the edit")

func (s *source) become(src []byte) error {
	s.src = src
	file, diags := parse(src, s.name)
	if diags.HasErrors() {
		return errUnparsed
	}
	s.body = file.Body.(*hclsyntax.Body)
	s.tokens, _ = hclsyntax.LexConfig(src, s.name, hcl.InitialPos)
	return nil
}

func (s *source) splice(from, to int, text string) error {
	return s.become(slices.Concat(s.src[:from], []byte(text), s.src[to:]))
}

// lines writes lines as this file ends them.
func (s *source) lines(lines ...string) string {
	end := "\n"
	if first, _, ok := bytes.Cut(s.src, []byte("\n")); ok && bytes.HasSuffix(first, []byte("\r")) {
		end = "\r\n"
	}
	return strings.Join(lines, end) + end
}

// unit is one step of indentation, as the pool or cache has it.
func (s *source) unit() string {
	outer := s.block(place{})
	for _, a := range bySource(outer.Body.Attributes) {
		if s.isFirst(a.NameRange.Start.Byte) {
			return strings.TrimPrefix(s.indent(a.NameRange.Start.Byte), s.indent(outer.TypeRange.Start.Byte))
		}
	}
	return "  "
}

// block finds the pool or cache, or the block inside it, in which a place is; nil where there is none.
func (s *source) block(p place) *hclsyntax.Block {
	outer := blockOf(s.body.Blocks, s.kind, s.what)
	if p.block == "" || outer == nil {
		return outer
	}
	return blockOf(outer.Body.Blocks, p.block, p.label)
}

func blockOf(blocks hclsyntax.Blocks, kind, label string) *hclsyntax.Block {
	for _, b := range blocks {
		if b.Type == kind && (label == "" || len(b.Labels) == 1 && b.Labels[0] == label) {
			return b
		}
	}
	return nil
}

// next is the index of the first token that begins at a place or after it.
func (s *source) next(at int) int {
	i, _ := slices.BinarySearchFunc(s.tokens, at, func(t hclsyntax.Token, at int) int { return t.Range.Start.Byte - at })
	return i
}

func endsLine(t hclsyntax.Token) bool {
	return t.Type == hclsyntax.TokenNewline || t.Type == hclsyntax.TokenEOF || t.Type == hclsyntax.TokenComment && bytes.HasSuffix(t.Bytes, []byte("\n"))
}

// lineEnd is where the line ends on which something ends, behind its comment and its line break.
func (s *source) lineEnd(at int) int {
	for _, t := range s.tokens[s.next(at):] {
		if endsLine(t) {
			return t.Range.End.Byte
		}
	}
	return len(s.src)
}

func (s *source) lineStart(at int) int { return bytes.LastIndexByte(s.src[:at], '\n') + 1 }

// indent is the white space that the line of a place begins with.
func (s *source) indent(at int) string {
	line := s.src[s.lineStart(at):at]
	return string(line[:len(line)-len(bytes.TrimLeft(line, " \t"))])
}

// isFirst tells whether only white space stands before a place in its line.
func (s *source) isFirst(at int) bool { return len(s.indent(at)) == at-s.lineStart(at) }

// isLast tells whether only a comma and comments stand behind a place in its line; comma is whether one does.
func (s *source) isLast(at int) (last, comma bool) {
	for _, t := range s.tokens[s.next(at):] {
		switch {
		case endsLine(t):
			return true, comma
		case t.Type == hclsyntax.TokenComma && !comma:
			comma = true
		case t.Type != hclsyntax.TokenComment:
			return false, comma
		}
	}
	return true, comma
}

// lead is where the lines of comment begin that stand right above the line at a place.
func (s *source) lead(at int) int {
	for i := s.next(at) - 1; i >= 0; i-- {
		t := s.tokens[i]
		gap := string(s.src[t.Range.End.Byte:at])
		own := endsLine(t) || strings.Count(gap, "\n") == 1
		switch {
		case t.Type == hclsyntax.TokenNewline && gap == "" && s.tokens[max(i-1, 0)].Type == hclsyntax.TokenComment:
			continue // what ends the line of a comment between /* and */
		case t.Type != hclsyntax.TokenComment || !own || strings.TrimSpace(gap) != "" || endsLine(t) && gap != "" || !s.isFirst(t.Range.Start.Byte):
			return at
		}
		at = s.lineStart(t.Range.Start.Byte)
	}
	return at
}

// cut removes whole lines with the comment above them, and the empty lines that would be left over.
func (s *source) cut(from, to int) error {
	from, to = s.lead(s.lineStart(from)), s.lineEnd(to)
	head, tail := s.src[:from], s.src[to:]
	rest := withoutEmptyLines(tail)
	before := bytes.TrimRight(head, " \t\r\n")
	switch after := bytes.TrimSpace(rest); {
	case len(after) == 0 || after[0] == '}':
		from, to = len(before), len(s.src)-len(rest)
		if len(before) > 0 {
			from += bytes.IndexByte(head[len(before):], '\n') + 1
		}
	case len(before) == 0, before[len(before)-1] == '{', bytes.Count(head[len(before):], []byte("\n")) > 1:
		to = len(s.src) - len(rest)
	}
	return s.splice(from, to, "")
}

func withoutEmptyLines(src []byte) []byte {
	for {
		line, rest, ok := bytes.Cut(src, []byte("\n"))
		if len(bytes.TrimSpace(line)) > 0 || !ok {
			return src
		}
		src = rest
	}
}
