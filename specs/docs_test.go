package specs

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestTheReferenceNamesEveryBlockAttributeAndFunction(t *testing.T) {
	doc := string(readFile(t, "../docs/specs.md"))
	d := newDecoder(fstest.MapFS{}, "", Options{})
	var words []string
	for _, s := range d.schemas {
		words = slices.Concat(words, s.attrNames(), s.blocks)
	}
	for name := range d.funcs {
		words = append(words, name)
	}
	for _, w := range words {
		if !strings.Contains(doc, "`"+w+"`") && !strings.Contains(doc, "`"+w+" \"") {
			t.Errorf("docs/specs.md does not name %q", w)
		}
	}
}

func TestExpressionsUseTheFunctionsOfTheLanguage(t *testing.T) {
	for expr, want := range map[string]string{
		`max(1, length([1, 2, 3]))`:                              "3",
		`join("-", sort(distinct(["b", "a", "b"])))`:             `"a-b"`,
		`merge({ a = 1 }, { b = tonumber("2") })`:                `{"a":1,"b":2}`,
		`[for n in range(3) : format("vm%02d", n)]`:              `["vm00","vm01","vm02"]`,
		`jsondecode(jsonencode({ a = [true, null] }))`:           `{"a":[true,null]}`,
		`try(jsondecode("{"), lookup({ a = "x" }, "b", "none"))`: `"none"`,
		`can(tonumber("x")) ? 1 : 2`:                             "2",
		`flatten([["a"], split(",", "b,c")])`:                    `["a","b","c"]`,
		`replace(trimspace(" a.b "), ".", upper("x"))`:           `"aXb"`,
	} {
		t.Run(expr, func(t *testing.T) {
			fleet := mustLoad(t, spec("pool \"a\" {\n  module = \"local\"\n  max = 1\n  variables = { v = "+expr+" }\n}\n"))
			if got := string(fleet.Pool("a").Variables); got != `{"v":`+want+`}` {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}
