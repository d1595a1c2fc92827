package modules_test

import (
	"io/fs"
	"testing"

	"github.com/google/go-cmp/cmp"

	"greenroom/modules"
)

func TestBundledModulesAreFoundByName(t *testing.T) {
	if diff := cmp.Diff([]string{"local"}, modules.Names()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	for name, want := range map[string]bool{"local": true, "": false, ".": false, "local/main.tf": false, "local/../local": false, "gone": false} {
		if _, found := modules.Lookup(name); found != want {
			t.Errorf("Lookup(%q) found %v, want %v", name, found, want)
		}
	}
	tree, _ := modules.Lookup("local")
	for _, name := range []string{"main.tf", "variables.tf", "outputs.tf", "versions.tf", "README.md"} {
		if _, err := fs.Stat(tree, name); err != nil {
			t.Errorf("local: %v", err)
		}
	}
}
