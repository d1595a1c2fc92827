package specs

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
)

var update = flag.Bool("update", false, "write the golden files anew")

var bundled = Options{Bundled: []string{"local", "libvirt"}}

// TestEachFaultIsShownWithItsSource renders the faults of each spec in testdata/faults, and of the specs that
// are made here because they are too large, too many or too odd to be kept in a repository.
func TestEachFaultIsShownWithItsSource(t *testing.T) {
	for name, load := range faultySpecs(t) {
		t.Run(name, func(t *testing.T) {
			fleet, files, diags := load(t)
			if fleet != nil {
				t.Errorf("a faulty spec gave the fleet %+v", fleet)
			}
			for _, d := range diags {
				if d.Subject == nil {
					t.Errorf("%q has no subject", d.Summary)
				}
			}
			var got bytes.Buffer
			if err := WriteDiagnostics(&got, files, diags, false, 100); err != nil {
				t.Fatal(err)
			}
			compareGolden(t, filepath.Join("testdata", "faults", name+".golden"), got.String())
		})
	}
}

type loader func(*testing.T) (*Fleet, map[string]*hcl.File, hcl.Diagnostics)

func faultySpecs(t *testing.T) map[string]loader {
	t.Helper()
	entries, err := os.ReadDir("testdata/faults")
	if err != nil {
		t.Fatal(err)
	}
	all := generatedFaults()
	for _, e := range entries {
		name, isFile := strings.CutSuffix(e.Name(), ".hcl")
		switch {
		case e.IsDir():
			all[name] = func(*testing.T) (*Fleet, map[string]*hcl.File, hcl.Diagnostics) {
				return Load(filepath.Join("testdata", "faults", name), bundled)
			}
		case isFile:
			all[name] = func(t *testing.T) (*Fleet, map[string]*hcl.File, hcl.Diagnostics) {
				src := readFile(t, filepath.Join("testdata", "faults", name+".hcl"))
				return LoadFS(fstest.MapFS{name + ".hcl": {Data: src}}, "", bundled)
			}
		}
	}
	return all
}

const onePool = "pool \"a\" {\n  module = \"local\"\n  max    = 4\n}\n"

func generatedFaults() map[string]loader {
	cache := onePool + "cache \"c\" {\n  pools   = [pool.a]\n  prepare = \"prepare.sh\"\n}\n"
	chain := "locals {\n"
	for i := range 300 {
		chain += fmt.Sprintf("  l%03d = local.l%03d\n", i, i+1)
	}
	many := fstest.MapFS{}
	for i := range MaxFiles + 1 {
		many[fmt.Sprintf("%04d.hcl", i)] = &fstest.MapFile{}
	}
	large := bytes.Repeat([]byte("#"), MaxFileSize+1)
	return map[string]loader{
		"no-specs":         inMemory(fstest.MapFS{"README": {}, ".hidden.hcl": {}}),
		"too-many-files":   inMemory(many),
		"file-too-large":   inMemory(fstest.MapFS{"fleet.hcl": {Data: large}, "other.hcl": {Data: []byte("pol \"a\" {\n}\n")}}),
		"script-too-large": inMemory(fstest.MapFS{"fleet.hcl": {Data: []byte(cache)}, "prepare.sh": {Data: large}}),
		"too-deep":         inMemory(fstest.MapFS{"fleet.hcl": {Data: []byte("locals {\n  a = (1" + strings.Repeat(" +\n  1", 1100) + ")\n}\n")}}),
		"too-deep-chain":   inMemory(fstest.MapFS{"fleet.hcl": {Data: []byte(chain + "  l300 = 1\n}\n")}}),
		"not-text":         inMemory(fstest.MapFS{"fleet.hcl": {Data: []byte("locals {\n  a = file(\"b\")\n}\n")}, "b": {Data: []byte{0xff}}}),
		"module-not-allowed": func(*testing.T) (*Fleet, map[string]*hcl.File, hcl.Diagnostics) {
			src := ""
			for i, source := range []string{"/srv/modules/../secret", "file::/srv/secret", "git::file:///srv/secret", "git::/srv/secret", "hg::~/secret"} {
				src += fmt.Sprintf("pool \"p%da\" {\n  module = %q\n  max    = 1\n}\n", i, source)
			}
			return LoadFS(spec(src), "", Options{Absolute: []string{"/srv/modules"}})
		},
		"unreadable": func(*testing.T) (*Fleet, map[string]*hcl.File, hcl.Diagnostics) {
			return Load("testdata/no-such-directory", bundled)
		},
		"symlink-leaves": func(t *testing.T) (*Fleet, map[string]*hcl.File, hcl.Diagnostics) {
			outer := t.TempDir()
			dir := filepath.Join(outer, "specs")
			writeFile(t, filepath.Join(dir, "fleet.hcl"), cache)
			writeFile(t, filepath.Join(outer, "secret"), "hush")
			for _, link := range []string{"prepare.sh", "more.hcl"} {
				if err := os.Symlink("../secret", filepath.Join(dir, link)); err != nil {
					t.Fatal(err)
				}
			}
			return Load(dir, bundled)
		},
	}
}

func inMemory(fsys fstest.MapFS) loader {
	return func(*testing.T) (*Fleet, map[string]*hcl.File, hcl.Diagnostics) { return LoadFS(fsys, "", bundled) }
}

func TestEverySummaryHasAGoldenFile(t *testing.T) {
	names, err := filepath.Glob("testdata/faults/*.golden")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	known := faultySpecs(t)
	for _, name := range names {
		all.Write(readFile(t, name))
		if spec := strings.TrimSuffix(filepath.Base(name), ".golden"); known[spec] == nil {
			t.Errorf("%s belongs to no spec", name)
		}
	}
	for name, summary := range summaries(t) {
		if !strings.Contains(all.String(), "Error: "+summary+"\n") {
			t.Errorf("no golden file shows %s, %q", name, summary)
		}
	}
}

// summaries are the constants of the package whose names begin with "sum".
func summaries(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "diagnostics.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(spec.Names[0].Name, "sum") {
			s, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			found[spec.Names[0].Name] = s
		}
		return true
	})
	if len(found) < 40 {
		t.Fatalf("found only %d summaries in diagnostics.go", len(found))
	}
	return found
}

func compareGolden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		writeFile(t, name, got)
	}
	if diff := cmp.Diff(string(readFile(t, name)), got); diff != "" {
		t.Errorf("%s differs (-want +got; -update writes it anew):\n%s", name, diff)
	}
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeFile(t *testing.T, name, body string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
}
