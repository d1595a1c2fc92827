package gitops

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"golang.org/x/sys/unix"

	"greenroom/reconcile/terraform"
	"greenroom/specs"
)

// inputs are what a fleet was read from, apart from its spec files: what to look at to see whether it would be read differently now.
type inputs struct {
	Files   []string // that were opened, also in vain, by their names in the spec directory
	Modules []string // directories of modules: names in the spec directory, or absolute
}

// unreadable stands in a digest for what is not there, or can't be read as it is.
const unreadable = "unreadable"

// sums are the digests of everything that a fleet is read from, by name.
type sums struct{ files, modules map[string]string }

// digest is 16 hexadecimal digits over all of it.
func (s sums) digest() string {
	h := sha256.New()
	for kind, names := range []map[string]string{s.files, s.modules} {
		for _, name := range slices.Sorted(maps.Keys(names)) {
			fmt.Fprintf(h, "%d %q %s\n", kind, name, names[name])
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

func sum(body []byte) string {
	s := sha256.Sum256(body)
	return hex.EncodeToString(s[:])
}

// look computes the sums of a directory as it is now. What it reads is bounded by the limits on specs and modules.
func (in inputs) look(root *os.Root) (sums, error) {
	names, err := specNames(root)
	if err != nil {
		return sums{}, err
	}
	s := sums{files: map[string]string{}, modules: map[string]string{}}
	for _, name := range append(names, in.Files...) {
		if _, done := s.files[name]; !done {
			s.files[name] = sumFile(root, name)
		}
	}
	for _, name := range in.Modules {
		s.modules[name] = sumModule(moduleFS(root.FS(), name))
	}
	return s, nil
}

// specNames lists the spec files, as specs.Load finds them, without keeping a long directory in memory.
func specNames(root *os.Root) ([]string, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var names []string
	for len(names) <= specs.MaxFiles {
		entries, err := dir.ReadDir(1000)
		for _, e := range entries {
			if !e.IsDir() && path.Ext(e.Name()) == ".hcl" && !strings.HasPrefix(e.Name(), ".") {
				names = append(names, e.Name())
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return names, nil
}

func sumFile(root *os.Root, name string) string {
	f, err := root.OpenFile(filepath.FromSlash(name), os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe would make us wait
	if err != nil {
		return unreadable
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return unreadable
	}
	h := sha256.New()
	if n, err := io.Copy(h, io.LimitReader(f, specs.MaxFileSize+1)); err != nil || n > specs.MaxFileSize {
		return unreadable
	}
	return hex.EncodeToString(h.Sum(nil))
}

func sumModule(tree fs.FS) string {
	digest, err := terraform.Digest(tree)
	if err != nil {
		return unreadable
	}
	return digest
}

// moduleFS is the tree of a module, by its name in inputs.
func moduleFS(fsys fs.FS, name string) fs.FS {
	if filepath.IsAbs(name) {
		return os.DirFS(name)
	}
	sub, err := fs.Sub(fsys, name)
	if err != nil { // the name is valid, because specs checks it
		return os.DirFS(os.DevNull)
	}
	return sub
}

// recorder is a file system that remembers what was asked of it.
type recorder struct {
	fs.FS
	files, dirs map[string]bool
}

func record(fsys fs.FS) *recorder {
	return &recorder{FS: fsys, files: map[string]bool{}, dirs: map[string]bool{}}
}

func (r *recorder) Open(name string) (fs.File, error) {
	r.files[name] = true
	return r.FS.Open(name)
}

func (r *recorder) ReadDir(name string) ([]fs.DirEntry, error) {
	if name != "." {
		r.dirs[name] = true
	}
	return fs.ReadDir(r.FS, name)
}

func (r *recorder) Lstat(name string) (fs.FileInfo, error) { return fs.Lstat(r.FS, name) }

func (r *recorder) ReadLink(name string) (string, error) { return fs.ReadLink(r.FS, name) }

// seen gives the inputs and the sums of the files, whose contents are those that the fleet was made of.
func (r *recorder) seen(files map[string]*hcl.File) (inputs, sums) {
	s := sums{files: map[string]string{}, modules: map[string]string{}}
	for name := range r.files {
		s.files[name] = unreadable
	}
	for name, f := range files {
		s.files[name] = sum(f.Bytes)
	}
	return inputs{Files: slices.Sorted(maps.Keys(s.files)), Modules: slices.Sorted(maps.Keys(r.dirs))}, s
}
