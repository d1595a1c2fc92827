package terraform

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

const inputs = `
variable "guests" {}
variable "pool" {}
variable "ssh_authorized_keys" {}
output "guests" { value = {} }
`

func TestModulesAreHeldAgainstTheContract(t *testing.T) {
	for _, test := range []struct {
		name, file, text string
		vars             string
		faults           []string
	}{
		{name: "a good module", file: "main.tf", text: inputs},
		{name: "a good module in JSON", file: "main.tf.json", text: `{"variable":{"guests":{},"pool":{},"ssh_authorized_keys":{}},"output":{"guests":{"value":"x"}}}`},
		{name: "no input and no output", file: "main.tf", text: `resource "x" "y" {}`, faults: []string{`variable "guests"`, `variable "pool"`, `variable "ssh_authorized_keys"`, `output "guests"`}},
		{name: "no file", file: "README", faults: []string{"there is no *.tf file"}},
		{name: "broken syntax", file: "main.tf", text: "variable {", faults: []string{"main.tf:1"}},
		{name: "an unknown variable", file: "main.tf", text: inputs + `variable "size" { default = 1 }`, vars: `{"sise": 2}`, faults: []string{`"sise", which the module does not declare; it declares size`}},
		{name: "a variable of Greenroom's own", file: "main.tf", text: inputs, vars: `{"pool": "x"}`, faults: []string{`"pool" is Greenroom's own`}},
		{name: "a needed variable", file: "main.tf", text: inputs + `variable "image" {}`, faults: []string{`needs variable "image"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, test.file), []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			err := checkDir(dir, json.RawMessage(test.vars))
			if (err == nil) != (len(test.faults) == 0) {
				t.Fatalf("error %v", err)
			}
			for _, fault := range test.faults {
				if !strings.Contains(err.Error(), fault) {
					t.Errorf("%q is not in %v", fault, err)
				}
			}
		})
	}
}

func TestOutputsAreHeldAgainstTheContract(t *testing.T) {
	for _, test := range []struct{ name, output, fault string }{
		{"a good guest", `{"id":"i","host":"h","port":22,"user":"u","host_key":"","attributes":{"a":1}}`, ""},
		{"null attributes", `{"id":"i","host":"h","port":22,"user":"u","host_key":"","attributes":null}`, ""},
		{"no object", `"x"`, "an object is needed"},
		{"null", `null`, "an object is needed"},
		{"an attribute is missing", `{"id":"i","host":"h","port":22,"user":"u","attributes":{}}`, `attribute "host_key" is missing`},
		{"a port as text", `{"id":"i","host":"h","port":"22","user":"u","host_key":"","attributes":{}}`, `attribute "port": a int is needed, not a string`},
		{"no port", `{"id":"i","host":"h","port":0,"user":"u","host_key":"","attributes":{}}`, `the guest is not usable: "port" is 0; allowed are 1 to 65535`},
		{"a key with a line end", `{"id":"i","host":"h","port":22,"user":"u","host_key":"ssh-ed25519 A\n","attributes":{}}`, ""},
		{"a host in two lines", `{"id":"i","host":"h\ni","port":22,"user":"u","host_key":"","attributes":{}}`, `attribute "host": a text of at most 4096 bytes in one line is needed`},
		{"a long id", `{"id":"` + strings.Repeat("i", 5000) + `","host":"h","port":22,"user":"u","host_key":"","attributes":{}}`, `attribute "id": a text of at most 4096 bytes in one line is needed`},
		{
			"much to tell", `{"id":"i","host":"h","port":22,"user":"u","host_key":"","attributes":{"a":"` + strings.Repeat("a", 65529) + `"}}`,
			`attribute "attributes" has 65537 bytes; allowed are 65536: it is for what is worth telling each holder`,
		},
		{"no host", `{"id":"i","host":"","port":22,"user":"u","host_key":"","attributes":{}}`, `the guest is not usable: "id", "host" and "user" must not be empty`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var fault string
			if _, err := checkOutput(json.RawMessage(test.output)); err != nil {
				fault = err.Error()
			}
			if diff := cmp.Diff(test.fault, fault); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAModulesDigestCoversItsFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		digest, err := Digest(os.DirFS(dir))
		if err != nil {
			t.Fatal(err)
		}
		return digest
	}
	first := write("main.tf", "a", 0o600)
	for _, ignored := range []string{".git/config", ".terraform/x", "terraform.tfstate"} {
		if write(ignored, "x", 0o600) != first {
			t.Errorf("%s is no part of the module", ignored)
		}
	}
	seen := map[string]bool{first: true}
	for _, digest := range []string{write("main.tf", "b", 0o600), write("main.tf", "b", 0o700), write("sub/x.sh", "b", 0o600), write(lockFile, "b", 0o600)} {
		if seen[digest] {
			t.Error("a change did not change the digest")
		}
		seen[digest] = true
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := Digest(os.DirFS(dir)); err == nil {
		t.Error("a link out of the module was taken")
	}
}

func TestTheDirectoriesOfAModuleCountToo(t *testing.T) {
	tree := fstest.MapFS{}
	for i := range 100 { // few files, but deep down
		tree[fmt.Sprintf("%d%s/main.tf", i, strings.Repeat("/d", 97))] = &fstest.MapFile{}
	}
	if _, err := Digest(tree); err != nil {
		t.Fatal(err)
	}
	tree["more"+strings.Repeat("/d", 100)+"/main.tf"] = &fstest.MapFile{}
	if _, err := Digest(tree); err == nil || !strings.Contains(err.Error(), "more than 10000 files and directories") {
		t.Error(err)
	}
}
