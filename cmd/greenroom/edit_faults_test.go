package main

import (
	"bytes"
	"testing"

	"github.com/hashicorp/hcl/v2"
)

func TestLinesThatAnEditLeavesAloneAreFoundWhereTheyAre(t *testing.T) {
	for name, test := range map[string]struct {
		before, after, at string
		line              int // in before; 0: not there
	}{
		"above what is taken out":         {"a\nb\nc\n", "a\nc\n", "a", 1},
		"below it":                        {"a\nb\nc\n", "a\nc\n", "c", 3},
		"below what is alike":             {"ab\nac\nad\n", "ab\nad\n", "ad", 3},
		"below what is put in":            {"a\nc\n", "a\nb\nb\nc\n", "c", 2},
		"what is put in":                  {"a\nc\n", "a\nb\nc\n", "b", 0},
		"the end of a line, not its head": {"x1\nz\n", "y1\nz\n", "1", 0},
		"in a new file":                   {"", "a\n", "a", 0},
		"in a last line without an end":   {"a\nb", "b", "b", 2},
		"in what is as it was":            {"a\n", "a\n", "a", 1},
	} {
		t.Run(name, func(t *testing.T) {
			i := bytes.Index([]byte(test.after), []byte(test.at))
			start := hcl.Pos{Byte: i, Line: 1 + bytes.Count([]byte(test.after[:i]), []byte("\n"))}
			end := start
			end.Byte += len(test.at)
			got, there := unedited(hcl.Range{Start: start, End: end}, []byte(test.before), []byte(test.after))
			if there != (test.line > 0) || there && got.Start.Line != test.line {
				t.Errorf("found %v in line %d, want %d", there, got.Start.Line, test.line)
			}
		})
	}
}
