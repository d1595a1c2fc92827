package gitops

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"unicode"

	"greenroom/reconcile/condition"
)

// Limits on archives; MaxArchive is that on their own size.
const (
	maxEntries  = 5000
	maxUnpacked = 64 << 20 // bytes of all files together
	maxEntry    = 1000     // bytes of a name
)

// archiveFS is a checked zip as a file system. What is read of it is counted, because a zip may lie about the sizes.
type archiveFS struct {
	*zip.Reader
	left atomic.Int64
}

var errUnpacked = fmt.Errorf("the archive unpacks to more than %d MiB", maxUnpacked>>20)

// checkArchive refuses an archive before anything of it is read.
func checkArchive(z *zip.Reader) (*archiveFS, *condition.Fault) {
	bad := func(reason, format string, args ...any) (*archiveFS, *condition.Fault) {
		return nil, &condition.Fault{Reason: reason, Message: "the archive is refused: " + fmt.Sprintf(format, args...)}
	}
	if len(z.File) > maxEntries {
		return bad(condition.TooLarge, "it has %d entries, and at most %d are read", len(z.File), maxEntries)
	}
	var size uint64
	files, dirs := map[string]bool{}, map[string]bool{}
	for _, f := range z.File {
		name, isDir := strings.CutSuffix(f.Name, "/")
		if err := checkEntry(f, name, isDir); err != nil {
			return bad(condition.SpecInvalid, "%v", err)
		}
		if size += min(f.UncompressedSize64, maxUnpacked+1); size > maxUnpacked {
			return bad(condition.TooLarge, "it unpacks to more than %d MiB", maxUnpacked>>20)
		}
		if files[name] || isDir && dirs[name+"/"] {
			return bad(condition.SpecInvalid, "the name %q is there twice", name)
		}
		if isDir {
			dirs[name+"/"] = true
		} else {
			files[name] = true
		}
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			dirs[dir] = true
		}
	}
	for name := range files {
		if dirs[name] || dirs[name+"/"] {
			return bad(condition.SpecInvalid, "%q is both a file and a directory", name)
		}
	}
	a := &archiveFS{Reader: z}
	a.left.Store(2 * maxUnpacked) // the trees of modules are read twice
	return a, nil
}

func checkEntry(f *zip.File, name string, isDir bool) error {
	mode := f.Mode()
	switch {
	case len(name) > maxEntry:
		return fmt.Errorf("the name %.60q… has more than %d bytes", name, maxEntry)
	case !fs.ValidPath(name), name == ".", strings.ContainsAny(name, `\:`), strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf(`the name %.200q is not one of a file in a directory: relative, with "/", and without "..", "\" and ":"`, f.Name)
	case mode&fs.ModeSymlink != 0:
		return fmt.Errorf("%q is a symbolic link, and no link is followed", name)
	case mode.IsDir() != isDir, !mode.IsDir() && !mode.IsRegular():
		return fmt.Errorf("%q is neither a regular file nor a directory", name)
	case f.Flags&1 != 0:
		return fmt.Errorf("%q is encrypted", name)
	case f.Method != zip.Store && f.Method != zip.Deflate:
		return fmt.Errorf("%q is packed with a method that is not known here; only deflate is", name)
	}
	return nil
}

func (a *archiveFS) Open(name string) (fs.File, error) {
	f, err := a.Reader.Open(name)
	if err != nil {
		return nil, err
	}
	if dir, ok := f.(fs.ReadDirFile); ok {
		return dir, nil
	}
	return &archiveFile{f, a}, nil
}

type archiveFile struct {
	fs.File
	of *archiveFS
}

func (f *archiveFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	if f.of.left.Add(int64(-n)) < 0 {
		return 0, errUnpacked
	}
	return n, err
}

// Zip packs the regular files of a spec directory for [Source.Archive]: without version control, Terraform's own files and
// states, and without links. The same files always make the same bytes.
func Zip(dir string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("pack the specs: %w", err)
	}
	defer root.Close()
	p := packer{fsys: root.FS()}
	p.zip = zip.NewWriter(&p.out)
	err = fs.WalkDir(p.fsys, ".", p.visit)
	if err = errors.Join(err, p.zip.Close()); err != nil {
		return nil, fmt.Errorf("pack %s: %w", dir, err)
	}
	if p.out.Len() > MaxArchive {
		return nil, fmt.Errorf("pack %s: the archive has %d bytes, and %d are allowed; %s", dir, p.out.Len(), MaxArchive, onlySpecs)
	}
	return p.out.Bytes(), nil
}

const onlySpecs = "name the directory that holds the specs alone"

type packer struct {
	fsys  fs.FS
	out   bytes.Buffer
	zip   *zip.Writer
	files int
	size  int64
}

func (p *packer) visit(name string, e fs.DirEntry, err error) error {
	switch {
	case err != nil:
		return err
	case e.IsDir() && (e.Name() == ".git" || e.Name() == ".terraform"):
		return fs.SkipDir
	case !e.Type().IsRegular(), e.Name() == ".git", strings.Contains(e.Name(), ".tfstate"):
		return nil
	}
	if p.files++; p.files > maxEntries {
		return fmt.Errorf("it has more than %d files; %s", maxEntries, onlySpecs)
	}
	return p.add(filepath.ToSlash(name))
}

func (p *packer) add(name string) error {
	f, err := p.fsys.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if p.size += info.Size(); p.size > maxUnpacked {
		return fmt.Errorf("it has more than %d MiB; %s", maxUnpacked>>20, onlySpecs)
	}
	header := &zip.FileHeader{Name: name, Method: zip.Deflate}
	header.SetMode(0o644 | info.Mode().Perm()&0o111)
	w, err := p.zip.CreateHeader(header)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, io.LimitReader(f, info.Size()))
	return err
}

var _ fs.ReadDirFS = (*archiveFS)(nil)

// ReadDir is the zip's own.
func (a *archiveFS) ReadDir(name string) ([]fs.DirEntry, error) {
	list, err := fs.ReadDir(a.Reader, name)
	slices.SortFunc(list, func(x, y fs.DirEntry) int { return strings.Compare(x.Name(), y.Name()) })
	return list, err
}
