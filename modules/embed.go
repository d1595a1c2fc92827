// Package modules holds the Terraform modules that come with Greenroom, one per provider. They
// are part of the binary, so that a pool needs no files of ours on the host and so that a module
// and the code that relies on its contract (README.md) always have the same version.
package modules

import (
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

//go:embed all:local
var bundled embed.FS

// FS returns the bundled modules, each in a directory of its name.
func FS() fs.FS { return bundled }

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

// Digest is the SHA-256, in hex, of a module's paths and contents in lexical order. What
// Terraform and people leave in a module's directory does not count: dot files (.terraform and its
// lock file among them), states and their backups, and plans.
func Digest(fsys fs.FS) (string, error) {
	sum := sha256.New()
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == ".":
			return nil
		case strings.HasPrefix(entry.Name(), ".") && entry.IsDir():
			return fs.SkipDir
		case entry.IsDir() || leftover(entry.Name()):
			return nil
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		for _, part := range [][]byte{[]byte(name), text} {
			sum.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
			sum.Write(part)
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("digest of a module: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func leftover(name string) bool {
	for _, suffix := range []string{".tfstate", ".tfstate.backup", ".tfplan"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return strings.HasPrefix(name, ".")
}
