package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

func TestTheFleetsOfTheDocumentsAreInTheCanonicalStyle(t *testing.T) {
	blocks := regexp.MustCompile("(?s)\n```hcl\n(.*?)\n```\n")
	for _, document := range []string{"README.md", "docs/specs.md"} {
		text, err := os.ReadFile(filepath.Join("../..", document))
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range blocks.FindAllSubmatch(text, -1) {
			file := filepath.Join(t.TempDir(), "fleet.hcl")
			if err := os.WriteFile(file, append(block[1], '\n'), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := execute(t.Context(), "spec", "fmt", "--check", file); got.code != 0 {
				t.Errorf("%s has a fleet that is not: %s%s", document, got.stderr, block[1])
			}
		}
	}
}
