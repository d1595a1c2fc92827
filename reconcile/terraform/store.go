package terraform

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

const (
	maxModuleEntries = 10_000 // files and directories
	maxModuleBytes   = 64 << 20
)

// Digest is the digest of a module tree, "sha256-" and 64 hex digits, over the path, the executable
// bit and the content of each file. Version control, Terraform's working files and states don't count.
func Digest(tree fs.FS) (string, error) {
	sum := sha256.New()
	err := walkModule(tree, func(name string, info fs.FileInfo, r io.Reader) error {
		fmt.Fprintf(sum, "%q %t %d\n", name, info.Mode()&0o111 != 0, info.Size())
		_, err := io.Copy(sum, r)
		return err
	})
	if err != nil {
		return "", err
	}
	return "sha256-" + hex.EncodeToString(sum.Sum(nil)), nil
}

// walkModule visits the files of a module tree in order, within the limits.
func walkModule(tree fs.FS, visit func(name string, info fs.FileInfo, r io.Reader) error) error {
	entries, bytes := 0, int64(0)
	return fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("reading the module: %w", err)
		}
		skip, dir := ignored(entry)
		switch {
		case skip && dir:
			return fs.SkipDir
		case skip:
			return nil
		}
		if entries++; entries > maxModuleEntries { // of directories too, because each takes some of the disk
			return fmt.Errorf("the module is too big: it has more than %d files and directories; leave out what is no part of it", maxModuleEntries)
		}
		if dir {
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return fmt.Errorf("reading the module: %w", err)
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("module file %s: only regular files and directories are allowed (links would escape the module's digest)", name)
		}
		if bytes += info.Size(); bytes > maxModuleBytes {
			return fmt.Errorf("the module is too big: its files have more than %d MiB; leave out what is no part of it", maxModuleBytes>>20)
		}
		f, err := tree.Open(name)
		if err != nil {
			return fmt.Errorf("reading the module: %w", err)
		}
		defer f.Close()
		return visit(name, info, f)
	})
}

func ignored(entry fs.DirEntry) (skip, dir bool) {
	name := entry.Name()
	if entry.IsDir() {
		return name == ".git" || name == ".terraform", true
	}
	return strings.Contains(name, ".tfstate"), false
}

func copyTree(tree fs.FS, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return walkModule(tree, func(name string, info fs.FileInfo, r io.Reader) error {
		to := filepath.Join(dir, filepath.FromSlash(path.Clean(name)))
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		mode := fs.FileMode(0o600)
		if info.Mode()&0o111 != 0 {
			mode = 0o700
		}
		f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Close())
	})
}

// storeModule puts the job's module into the content-addressed store and returns it by digest. A
// tree that is there already is not read again.
func (d *Driver) storeModule(m Module) (Module, error) {
	if m.Source != "" {
		return m, nil
	}
	d.mods.Lock()
	defer d.mods.Unlock()
	modules := filepath.Join(d.opts.StateDir, "modules")
	if m.Digest != "" && isStored(modules, m.Digest) {
		return Module{Digest: m.Digest}, nil
	}
	tree := m.FS
	if tree == nil && m.Dir != "" {
		tree = os.DirFS(m.Dir)
	}
	if tree == nil {
		return m, fmt.Errorf("module %q is not in the module store, and the job says not where it comes from", m.Digest)
	}
	digest, err := Digest(tree)
	if err != nil {
		return m, err
	}
	if m.Digest != "" && m.Digest != digest {
		return m, fmt.Errorf("the module has digest %s, not %s: it has changed since it was planned", digest, m.Digest)
	}
	return Module{Digest: digest}, addModule(tree, modules, digest)
}

// KeepModule puts a module into the store, for jobs that will know no more of it than its digest.
func (d *Driver) KeepModule(m Module) error {
	_, err := d.storeModule(m)
	return err
}

func addModule(tree fs.FS, modules, digest string) error {
	if isStored(modules, digest) {
		return nil
	}
	got, err := copyModule(tree, modules)
	if err == nil && got != digest {
		err = fmt.Errorf("it has changed meanwhile: its digest is %s, not %s", got, digest)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	return nil
}

// ErrStore means that a module could not be put into its store, for no fault of the module.
var ErrStore = errors.New("storing the module")

// StoreModule puts a module tree into a directory of trees by digest, such as StateDir/modules, and returns its digest: that of
// the copy, so that a tree which is being written to is stored as what it is by then. Several processes may do so at once. The
// time of a tree is that of its last use.
func StoreModule(tree fs.FS, modules string) (string, error) {
	digest, err := Digest(tree)
	if err != nil || isStored(modules, digest) {
		return digest, err
	}
	if err := os.MkdirAll(modules, 0o700); err != nil {
		return "", fmt.Errorf("%w: %w", ErrStore, err)
	}
	if digest, err = copyModule(tree, modules); err != nil {
		return "", fmt.Errorf("%w: %w", ErrStore, err)
	}
	return digest, nil
}

func copyModule(tree fs.FS, modules string) (digest string, err error) {
	tmp, err := os.MkdirTemp(modules, ".new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := copyTree(tree, tmp); err != nil {
		return "", err
	}
	if digest, err = Digest(os.DirFS(tmp)); err != nil {
		return "", err
	}
	return digest, putTree(tmp, modules, digest)
}
