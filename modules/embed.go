// Package modules holds the Terraform modules that come with Greenroom, one per provider. They
// are part of the binary, so that a pool needs no files of ours on the host and so that a module
// and the code that relies on its contract (README.md) always have the same version.
package modules

import (
	"embed"
	"io/fs"
	"slices"
)

//go:embed all:local
var bundled embed.FS

// Names lists the bundled modules in alphabetical order.
func Names() []string {
	entries, err := fs.ReadDir(bundled, ".")
	if err != nil {
		return nil
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// Lookup returns the tree of one bundled module.
func Lookup(name string) (fs.FS, bool) {
	if !slices.Contains(Names(), name) {
		return nil, false
	}
	tree, err := fs.Sub(bundled, name)
	return tree, err == nil
}
