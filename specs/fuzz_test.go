package specs

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
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
