package gitops

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"

	"greenroom/specs"
)

// maxBlob is the most bytes of a file that are read from a repository: those that a whole module may have.
const maxBlob = 64 << 20

// treeFS is the tree of a commit as a file system. Only what is asked for is read from the repository. No link is followed,
// neither of files nor of directories, and no submodule, so that nothing outside of the tree is reached.
type treeFS struct {
	objects storer.EncodedObjectStorer
	top     plumbing.Hash
	trees   map[plumbing.Hash][]object.TreeEntry
	damage  error // the first error that is the repository's and not the caller's
}

func newTreeFS(objects storer.EncodedObjectStorer, top plumbing.Hash) *treeFS {
	return &treeFS{objects: objects, top: top, trees: map[plumbing.Hash][]object.TreeEntry{}}
}

var errSubmodule = errors.New("it is a submodule, and those are not read")

// sub is the file system of a directory in it.
func (t *treeFS) sub(name string) (*treeFS, error) {
	e, err := t.find("open", name)
	if err != nil {
		return nil, err
	}
	if e.Mode != filemode.Dir {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("it is no directory")}
	}
	return newTreeFS(t.objects, e.Hash), nil
}

// find walks to an entry. A path that goes through a link or a submodule ends there.
func (t *treeFS) find(op, name string) (object.TreeEntry, error) {
	e, err := t.walk(name)
	if err != nil {
		err = &fs.PathError{Op: op, Path: name, Err: err}
	}
	return e, err
}

func (t *treeFS) walk(name string) (at object.TreeEntry, err error) {
	if !fs.ValidPath(name) {
		return at, fs.ErrInvalid
	}
	at = object.TreeEntry{Name: ".", Mode: filemode.Dir, Hash: t.top}
	if name == "." {
		return at, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		switch at.Mode {
		case filemode.Dir:
		case filemode.Symlink:
			return at, specs.ErrLink
		case filemode.Submodule:
			return at, errSubmodule
		default:
			return at, fs.ErrNotExist
		}
		entries, err := t.entries(at.Hash)
		if err != nil {
			return at, err
		}
		i := slices.IndexFunc(entries, func(e object.TreeEntry) bool { return e.Name == part })
		if i < 0 {
			return at, fs.ErrNotExist
		}
		at = entries[i]
	}
	return at, nil
}

// entries reads a tree. One with names that no file system has is refused as a whole: they would lead out of where it is copied.
func (t *treeFS) entries(hash plumbing.Hash) ([]object.TreeEntry, error) {
	if list, ok := t.trees[hash]; ok {
		return list, nil
	}
	tree, err := object.GetTree(t.objects, hash)
	if errors.Is(err, object.ErrMalformedTree) {
		return nil, err // so it was committed
	}
	if err != nil {
		return nil, t.broken(err)
	}
	for _, e := range tree.Entries {
		if e.Name == "." || strings.Contains(e.Name, "/") || !fs.ValidPath(e.Name) {
			return nil, fmt.Errorf("the commit has an entry with the name %q, which leads elsewhere", e.Name)
		}
	}
	list := slices.SortedFunc(slices.Values(tree.Entries), func(a, b object.TreeEntry) int { return strings.Compare(a.Name, b.Name) })
	t.trees[hash] = list
	return list, nil
}

func (t *treeFS) broken(err error) error {
	if t.damage == nil {
		t.damage = err
	}
	return err
}

func (t *treeFS) Open(name string) (fs.File, error) {
	e, err := t.find("open", name)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (fs.File, error) { return nil, &fs.PathError{Op: "open", Path: name, Err: err} }
	switch e.Mode {
	case filemode.Dir:
		return &treeDir{treeInfo{name: path.Base(name), mode: fs.ModeDir | 0o555}}, nil
	case filemode.Symlink:
		return fail(specs.ErrLink)
	case filemode.Submodule:
		return fail(errSubmodule)
	}
	info, err := t.info(e)
	if err != nil {
		return fail(err)
	}
	return &treeFile{fs: t, hash: e.Hash, treeInfo: info}, nil
}

func (t *treeFS) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := t.find("readdir", name)
	if err != nil {
		return nil, err
	}
	if e.Mode == filemode.Symlink {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: specs.ErrLink}
	}
	if e.Mode != filemode.Dir {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("it is no directory")}
	}
	entries, err := t.entries(e.Hash)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	list := make([]fs.DirEntry, len(entries))
	for i, e := range entries {
		list[i] = treeEntry{t, e}
	}
	return list, nil
}

// Stat does not follow links: there are none to be followed.
func (t *treeFS) Stat(name string) (fs.FileInfo, error) {
	e, err := t.find("stat", name)
	if err != nil {
		return nil, err
	}
	return t.info(e)
}

// info asks for the size of a file without reading it.
func (t *treeFS) info(e object.TreeEntry) (treeInfo, error) {
	info := treeInfo{name: e.Name, mode: modeOf(e.Mode)}
	if info.mode.IsRegular() {
		var err error
		if info.size, err = t.objects.EncodedObjectSize(e.Hash); err != nil {
			return info, t.broken(err)
		}
	}
	return info, nil
}

func modeOf(m filemode.FileMode) fs.FileMode {
	switch m {
	case filemode.Dir:
		return fs.ModeDir | 0o555
	case filemode.Regular, filemode.Deprecated:
		return 0o444
	case filemode.Executable:
		return 0o555
	case filemode.Symlink:
		return fs.ModeSymlink | 0o777
	}
	return fs.ModeIrregular
}

type treeEntry struct {
	fs *treeFS
	e  object.TreeEntry
}

func (d treeEntry) Name() string               { return d.e.Name }
func (d treeEntry) IsDir() bool                { return d.e.Mode == filemode.Dir }
func (d treeEntry) Type() fs.FileMode          { return modeOf(d.e.Mode).Type() }
func (d treeEntry) Info() (fs.FileInfo, error) { return d.fs.info(d.e) }

type treeInfo struct {
	name string
	mode fs.FileMode
	size int64
}

func (i treeInfo) Name() string       { return i.name }
func (i treeInfo) Size() int64        { return i.size }
func (i treeInfo) Mode() fs.FileMode  { return i.mode }
func (i treeInfo) ModTime() time.Time { return time.Time{} }
func (i treeInfo) IsDir() bool        { return i.mode.IsDir() }
func (i treeInfo) Sys() any           { return nil }

// treeFile reads its blob with the first read, when it is known to be small enough.
type treeFile struct {
	treeInfo
	fs   *treeFS
	hash plumbing.Hash
	body io.ReadCloser
}

func (f *treeFile) Stat() (fs.FileInfo, error) { return f.treeInfo, nil }

func (f *treeFile) Read(p []byte) (int, error) {
	if f.body == nil {
		if f.size > maxBlob {
			return 0, fmt.Errorf("it has %d bytes, and at most %d are read", f.size, maxBlob)
		}
		blob, err := object.GetBlob(f.fs.objects, f.hash)
		if err == nil {
			f.body, err = blob.Reader()
		}
		if err != nil {
			return 0, f.fs.broken(err)
		}
	}
	n, err := f.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = f.fs.broken(err)
	}
	return n, err
}

func (f *treeFile) Close() error {
	if f.body == nil {
		return nil
	}
	return f.body.Close()
}

// treeDir is a directory that was opened as a file; its entries are had from ReadDir.
type treeDir struct{ treeInfo }

func (d *treeDir) Stat() (fs.FileInfo, error) { return d.treeInfo, nil }
func (d *treeDir) Read([]byte) (int, error)   { return 0, errors.New("it is a directory") }
func (d *treeDir) Close() error               { return nil }
