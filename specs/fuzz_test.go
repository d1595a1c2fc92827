package specs

import (
	"bytes"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

func addSeeds(f *testing.F) {
	f.Helper()
	names, err := filepath.Glob("testdata/faults/*.hcl")
	if err != nil || len(names) == 0 {
		f.Fatal("no seeds in testdata/faults: ", err)
	}
	for _, name := range append(names, "examples/local/fleet.hcl") {
		f.Add(readFile(f, name))
	}
	f.Add([]byte(strings.Join(everything, "\n")))
}

// FuzzLoad holds that reading ends without a panic and always says the same, that each fault has a place,
// and that a fleet without faults reads as itself when it is written out.
func FuzzLoad(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		fsys := everythingFS()
		fsys["fleet.hcl"] = &fstest.MapFile{Data: src}
		fleet, files, diags := LoadFS(fsys, "/fleet", bundled)
		for _, d := range diags {
			if d.Subject == nil || d.Summary == "" || d.Detail == "" {
				t.Errorf("a fault lacks its place or its words: %+v", d)
			}
		}
		if err := WriteDiagnostics(io.Discard, files, diags, true, 80); err != nil {
			t.Error(err)
		}
		_, _, again := LoadFS(fsys, "/fleet", bundled)
		if diff := cmp.Diff(texts(diags), texts(again)); diff != "" {
			t.Errorf("the second reading said something else:\n%s", diff)
		}
		if (fleet == nil) != diags.HasErrors() {
			t.Fatalf("got the fleet %v together with %v", fleet, diags)
		}
		if fleet != nil {
			fsys["fleet.hcl"] = &fstest.MapFile{Data: fleet.HCL()}
			if diff := cmp.Diff(fleet, mustLoad(t, fsys), unplaced); diff != "" {
				t.Errorf("written out it is another fleet, -want +got:\n%s\n%s", diff, fleet.HCL())
			}
		}
	})
}

func texts(diags hcl.Diagnostics) (all []string) {
	for _, d := range diags {
		all = append(all, d.Error())
	}
	return all
}

func FuzzFormat(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		once := Format(src)
		if twice := Format(once); !bytes.Equal(once, twice) {
			t.Errorf("laid out again it differs:\n%q\n%q", once, twice)
		}
	})
}

// FuzzEdit holds that an edit of any file ends without a panic, that the file parses after it and has the
// value, or nothing, at the place of the edit, and that every other attribute is there byte for byte.
func FuzzEdit(f *testing.F) {
	names, err := filepath.Glob("testdata/faults/*.hcl")
	if err != nil {
		f.Fatal(err)
	}
	seeds := [][]byte{[]byte(messy), []byte("pool a {}"), []byte("cache \"c\" { pools = [] }\n")}
	for _, name := range append(names, "examples/local/fleet.hcl") {
		seeds = append(seeds, readFile(f, name))
	}
	for _, src := range seeds {
		for _, text := range []string{"max=12", "labels.os=\"x", "variables.a.b:=[\n1]", "capacity.cpus=3", "probe.ssh.every=1", "guard.max_retire=5%"} {
			f.Add(src, false, text)
		}
		for _, text := range []string{"lease.ttl=5m", "pools=a,b b", "warm:=1"} {
			f.Add(src, true, text)
		}
	}
	f.Fuzz(func(t *testing.T, src []byte, isCache bool, text string) {
		s := &source{name: "fleet.hcl", kind: map[bool]string{true: "cache", false: "pool"}[isCache]}
		a, err := assignmentOf(s.kind, text)
		if err != nil || s.become(src) != nil || s.block(place{}) == nil {
			return
		}
		before := attributes(s, a.place)
		if s.set(a) != nil {
			return
		}
		if diff := cmp.Diff(before, attributes(s, a.place)); diff != "" {
			t.Errorf("the edit changed more than its place:\n%s\n%s", diff, s.src)
		}
		attr := s.block(a.place).Body.Attributes[a.attr]
		if got := string(attr.Expr.Range().SliceBytes(s.src)); a.key == "" && got != a.hcl(attr.Expr) {
			t.Errorf("%s is %q, want %q:\n%s", a.name, got, a.hcl(attr.Expr), s.src)
		}
		if err := s.unset(a.place); err != nil {
			t.Fatalf("what was set can't be unset: %v\n%s", err, s.src)
		}
		if diff := cmp.Diff(before, attributes(s, a.place)); diff != "" {
			t.Errorf("the edit was not undone:\n%s\n%s", diff, s.src)
		}
	})
}

// attributes are all of the file with the bytes of their expressions, but for those that may be the one at p.
func attributes(s *source, p place) (all []string) {
	var walk func(types, labels string, body *hclsyntax.Body)
	walk = func(types, labels string, body *hclsyntax.Body) {
		for _, attr := range body.Attributes {
			if types+attr.Name != path.Join(s.kind, p.block, p.attr) {
				all = append(all, labels+attr.Name+" = "+string(attr.Expr.Range().SliceBytes(s.src)))
			}
		}
		for _, b := range body.Blocks {
			walk(types+b.Type+"/", labels+b.Type+" "+strings.Join(b.Labels, " ")+"/", b.Body)
		}
	}
	walk("", "", s.body)
	slices.Sort(all)
	return all
}
