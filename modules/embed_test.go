package modules_test

import (
	"io/fs"
	"testing"
	"testing/fstest"

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

func TestADigestFollowsContentsAndPathsButNotLeftovers(t *testing.T) {
	base := func() fstest.MapFS {
		return fstest.MapFS{"main.tf": {Data: []byte("a")}, "scripts/x.sh": {Data: []byte("b")}}
	}
	digest := func(change func(fstest.MapFS)) string {
		tree := base()
		change(tree)
		sum, err := modules.Digest(tree)
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	put := func(name, text string) func(fstest.MapFS) {
		return func(tree fstest.MapFS) { tree[name] = &fstest.MapFile{Data: []byte(text)} }
	}
	same := map[string]func(fstest.MapFS){
		"a state":            put("terraform.tfstate", "{}"),
		"a state's backup":   put("terraform.tfstate.backup", "{}"),
		"a plan":             put("x.tfplan", "{}"),
		"Terraform's files":  put(".terraform/providers/x", "x"),
		"the lock file":      put(".terraform.lock.hcl", "x"),
		"reports of a guest": put(".guests/local-1.1.json", "{}"),
	}
	for name, change := range same {
		if digest(change) != digest(func(fstest.MapFS) {}) {
			t.Errorf("%s changed the digest", name)
		}
	}
	seen := map[string]string{digest(func(fstest.MapFS) {}): "the module itself"}
	other := map[string]func(fstest.MapFS){
		"another content":         put("main.tf", "A"),
		"another file":            put("extra.tf", ""),
		"a content that moved":    func(tree fstest.MapFS) { delete(tree, "main.tf"); put("main2.tf", "a")(tree) },
		"a byte moved to a name":  func(tree fstest.MapFS) { delete(tree, "main.tf"); put("main.tfa", "")(tree) },
		"a file that was removed": func(tree fstest.MapFS) { delete(tree, "scripts/x.sh") },
	}
	for name, change := range other {
		sum := digest(change)
		if seen[sum] != "" {
			t.Errorf("%s has the digest of %s", name, seen[sum])
		}
		seen[sum] = name
	}
}
