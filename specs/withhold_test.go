package specs

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
)

func veiled(t testing.TB, src string) string {
	t.Helper()
	files, _ := Withheld(map[string]*hcl.File{"f": {Bytes: []byte(src)}}, nil)
	return string(files["f"].Bytes)
}

func TestWhatMayBeSecretIsHiddenInTheSource(t *testing.T) {
	for _, c := range []struct{ name, src, want string }{
		{"labels and attributes of the language", "pool \"a\" {\n  module = \"local\"\n  max = \"many\"\n}\n", "pool \"a\" {\n  module = \"local\"\n  max = \"many\"\n}\n"},
		{"variables, however deep", "variables = {\n  a = { b = [\"one\", \"t${x}o\"] }\n}\nmodule = \"m\"\n", "variables = {\n  a = { b = [\"***\", \"*${x}*\"] }\n}\nmodule = \"m\"\n"},
		{"keys and long numbers of variables", "variables = { \"a\" = 12345, b = 123456 }\n", "variables = { \"*\" = 12345, b = ****** }\n"},
		{"user data", "user_data = <<EOT\n#!/bin/sh\nsecret\nEOT\nmodule = \"m\"\n", "user_data = <<EOT\n*********\n******\nEOT\nmodule = \"m\"\n"},
		{"local values, whatever they are called", "locals {\n  owner = \"secret\"\n}\nowner = \"web\"\n", "locals {\n  owner = \"******\"\n}\nowner = \"web\"\n"},
		{"an attribute that is unknown", "pool \"a\" {\n  api_token = \"secret\"\n  spare = \"x\"\n}\n", "pool \"a\" {\n  api_token = \"******\"\n  spare = \"x\"\n}\n"},
		{"a block that is unknown", "variables {\n  max = \"secret\"\n}\nbrake { max_unhealthy = \"x\" }\n", "variables {\n  max = \"******\"\n}\nbrake { max_unhealthy = \"x\" }\n"},
		{"what follows on the same line", "lease { ttl = \"x\" token = \"secret\" max = \"y\" }\n", "lease { ttl = \"x\" token = \"******\" max = \"y\" }\n"},
		{"comments", "max = 1 # secret\n/* secret */ spare = \"x\"\n", "max = 1 ********\n************ spare = \"x\"\n"},
		{"all that follows a quote that is open", "owner = \"web\ntoken = \"secret\"\n", "owner = \"***\n****************\n"},
		{"all that follows a heredoc that is open", "owner = <<EOT\ntoken = \"secret\"\n", "owner = <<EOT\n****************\n"},
		{"brackets that nothing opened", "}}\nuser_data = \"secret\"\nmodule = \"m\"\n", "}}\nuser_data = \"******\"\nmodule = \"m\"\n"},
		{"brackets that nothing closes", "user_data = [\"secret\"\nmodule = \"m\"\n", "user_data = [\"******\"\nmodule = \"*\"\n"},
		{"a name at the end", "owner", "owner"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, veiled(t, c.src)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFaultsAreToldToOthersWithoutValues(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "fleet.hcl"), "locals {\n  word = \"secret-1\"\n}\npool \"a\" {\n  module = \"local\"\n  max = \"many\"\n"+
		"  variables = { token = \"secret-2\", n = local.word + 1, other = local.nowhere }\n}\n"+
		"pool \"b\" {\n  module = local.word\n  max = local.word\n  spare = parseint(local.word, 10)\n  variables = \"secret-3\"\n}\n")
	_, files, diags := Load(dir, Options{})
	var text bytes.Buffer
	files, diags = Withheld(files, diags)
	if err := WriteDiagnostics(&text, files, diags, false, 0); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`max = "many"`, `variables = { token = "********", n = local.word + 1, other = local.nowhere }`, "fleet.hcl line 7"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, &text)
		}
	}
	if strings.Contains(text.String(), "secret-") {
		t.Errorf("a secret is in\n%s", &text)
	}
}

// FuzzWithheld: whatever a file is, what is hidden leaves everything else in its place.
func FuzzWithheld(f *testing.F) {
	for _, src := range []string{"owner = \"web\ntoken = \"x\"", "}${", "a = <<E\n${\"x\ny\"}\nE\n", "x = \"%{ if \"", "a { b = \"c\" } /*", "\xff\"\n\""} {
		f.Add([]byte(src))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		got := []byte(veiled(t, string(src)))
		if len(got) != len(src) {
			t.Fatalf("%d bytes have become %d", len(src), len(got))
		}
		for i, b := range got {
			if b != src[i] && (b != '*' || src[i] == '\n') {
				t.Fatalf("byte %d, %q, has become %q", i, src[i], b)
			}
		}
	})
}
