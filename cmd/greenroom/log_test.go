package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestLogLinesHaveTheKeysThatAreDocumentedAndNoOthers reads the sources of the product: who searches the log has to know no
// others than those of docs/operations.md.
func TestLogLinesHaveTheKeysThatAreDocumentedAndNoOthers(t *testing.T) {
	used := map[string][]string{}
	files := token.NewFileSet()
	for _, path := range sources(t) {
		file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				for _, key := range keysOf(call) {
					used[key] = append(used[key], files.Position(call.Pos()).String())
				}
			}
			return true
		})
	}
	documented := documentedKeys(t)
	for _, key := range slices.Sorted(maps.Keys(used)) {
		if !slices.Contains(documented, key) {
			t.Errorf("docs/operations.md explains no key %q of the log: %s", key, strings.Join(used[key], ", "))
		}
	}
	for _, key := range documented {
		if used[key] == nil {
			t.Errorf("no line has the key %q", key)
		}
	}
}

// documentedKeys are the words in the first column of the table of keys.
func documentedKeys(t *testing.T) []string {
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "\n| key | is |\n|---|---|\n")
	if !found {
		t.Fatal("docs/operations.md has no table of the log's keys")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	var keys []string
	for row := range strings.Lines(table) {
		keys = append(keys, strings.FieldsFunc(strings.Split(row, "|")[1], func(r rune) bool { return strings.ContainsRune(" ,`", r) })...)
	}
	return keys
}

// sources are the files of the product that are no tests.
func sources(t *testing.T) []string {
	var out []string
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		name := d.Name()
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == "integration" || name == "tools" || name == "testdata" || name == "bin"):
			return fs.SkipDir
		case strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go"):
			out = append(out, path)
		}
		return nil
	})
	if err != nil || len(out) < 50 {
		t.Fatalf("%d files: %v", len(out), err)
	}
	return out
}

// keysOf are the keys of a call of a logger: what stands at every second place behind the message.
func keysOf(call *ast.CallExpr) []string {
	fun, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !isLogger(fun.X) {
		return nil
	}
	first, ok := map[string]int{
		"Debug": 1, "Info": 1, "Warn": 1, "Error": 1, "With": 0, "DebugContext": 2, "InfoContext": 2, "WarnContext": 2, "ErrorContext": 2,
	}[fun.Sel.Name]
	if !ok {
		return nil
	}
	var keys []string
	for i := first; i < len(call.Args); i += 2 {
		key := "(not a literal)"
		if lit, ok := call.Args[i].(*ast.BasicLit); ok {
			key, _ = strconv.Unquote(lit.Value)
		}
		keys = append(keys, key)
	}
	return keys
}

// isLogger tells by the name what is called: log, p.o.Log, l.o.Log.With(…).
func isLogger(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return strings.EqualFold(x.Name, "log") || x.Name == "slog"
	case *ast.SelectorExpr:
		return strings.EqualFold(x.Sel.Name, "log")
	case *ast.CallExpr:
		fun, ok := x.Fun.(*ast.SelectorExpr)
		return ok && fun.Sel.Name == "With" && isLogger(fun.X)
	}
	return false
}
