package specs

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
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Limits on what is read.
const (
	// MaxFileSize is the most bytes of one spec file, script, or file read by an expression.
	MaxFileSize = 1 << 20
	// MaxFiles is the most spec files in a directory.
	MaxFiles = 1000
	// maxNesting is how deep brackets and references may nest; deeper ones would exhaust the parser's stack.
	maxNesting = 200
)

// Options tell what a spec may use. The zero value is useful.
type Options struct {
	// Bundled are the names of the modules that come with the binary; nil accepts any name.
	Bundled []string
}

// Load reads the *.hcl files of dir, not of its subdirectories, leaving out names that begin with a dot.
// The fleet is nil when the diagnostics have errors, so that a bad spec can't pass for an empty fleet.
// The files are all those that were read, by their names in dir: hand them to [WriteDiagnostics] for source
// snippets, and to [Revision] for the revision of a spec that has errors. Nothing outside of dir is
// read, not even through symbolic links, but for modules at absolute paths, which are only looked at.
func Load(dir string, opts Options) (*Fleet, map[string]*hcl.File, hcl.Diagnostics) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, nil, unreadable(dir, err)
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, nil, unreadable(dir, err)
	}
	defer root.Close()
	return LoadFS(root.FS(), abs, opts)
}

// LoadFS is [Load] for any file system whose top is the spec directory. dir is the absolute directory at which
// that tree is found by whoever uses the fleet; it goes into [Fleet.Dir] and [Pool.ModuleDir] and is not read.
func LoadFS(fsys fs.FS, dir string, opts Options) (*Fleet, map[string]*hcl.File, hcl.Diagnostics) {
	d := newDecoder(fsys, dir, opts)
	names, diags := specNames(fsys)
	d.diags = diags
	for _, name := range names {
		d.readSpec(name)
	}
	fleet := d.fleet()
	sortDiagnostics(d.diags)
	if d.diags.HasErrors() {
		return nil, d.files, d.diags
	}
	fleet.Revision = Revision(d.files)
	fleet.Dir = dir
	return fleet, d.files, d.diags
}

// Revision is "dir:" and the first 16 hexadecimal digits of a SHA-256 over the files' names and contents.
func Revision(files map[string]*hcl.File) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(h, "%d %s %d ", len(name), name, len(files[name].Bytes))
		h.Write(files[name].Bytes)
	}
	return "dir:" + hex.EncodeToString(h.Sum(nil))[:16]
}

func specNames(fsys fs.FS) ([]string, hcl.Diagnostics) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, unreadable(".", err)
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() && path.Ext(e.Name()) == ".hcl" && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	switch {
	case len(names) == 0:
		return nil, hcl.Diagnostics{fault(fileStart("."), sumNoSpecs,
			"The directory has no file whose name ends in .hcl. An empty fleet would retire every guest, so it has to be "+
				"said: with an empty .hcl file. For a starter fleet run \"greenroom spec init DIR\".")}
	case len(names) > MaxFiles:
		return nil, hcl.Diagnostics{fault(fileStart(names[MaxFiles]), sumTooManyFiles,
			"The directory has %d files that end in .hcl, and at most %d are read. Put more blocks into each file.", len(names), MaxFiles)}
	}
	return names, nil
}

// readSpec parses one file. The blocks of a file that does not parse are left out, and so is any complaint
// elsewhere about names that may be among them.
func (d *decoder) readSpec(name string) {
	src, err := d.read(name)
	if err != nil {
		d.partial = true
		d.diags = append(d.diags, pathFault(fileStart(name), "spec file", name, err))
		return
	}
	if at, deep := tooDeep(src, name); deep {
		d.partial = true
		d.report(at, sumTooDeep, "Brackets and templates nest more than %d deep here. Move the inner parts into locals.", maxNesting)
		return
	}
	file, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	d.diags = append(d.diags, diags...)
	if diags.HasErrors() {
		d.partial = true
		return
	}
	d.files[name] = file
	d.collect(file.Body.(*hclsyntax.Body))
}

// tooDeep finds where a file nests deeper than the parser, which recurses, should be trusted with.
func tooDeep(src []byte, name string) (hcl.Range, bool) {
	tokens, _ := hclsyntax.LexConfig(src, name, hcl.InitialPos)
	depth, run := 0, 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd:
			depth--
		case hclsyntax.TokenBang, hclsyntax.TokenMinus, hclsyntax.TokenQuestion, hclsyntax.TokenPlus, hclsyntax.TokenStar,
			hclsyntax.TokenSlash, hclsyntax.TokenPercent, hclsyntax.TokenAnd, hclsyntax.TokenOr, hclsyntax.TokenDot:
			run++
		case hclsyntax.TokenNewline, hclsyntax.TokenComma:
			run = 0
		}
		if depth > maxNesting || run > 10*maxNesting {
			return t.Range, true
		}
	}
	return hcl.Range{}, false
}

var (
	errTooLarge   = errors.New("file is too large")
	errNotRegular = errors.New("not a regular file")
	errLeaves     = errors.New("path leaves the spec directory")
)

// read returns a file of the spec directory and remembers it as part of the revision.
func (d *decoder) read(name string) ([]byte, error) {
	if !fs.ValidPath(name) {
		return nil, errLeaves
	}
	if f, ok := d.files[name]; ok {
		return f.Bytes, nil
	}
	f, err := d.fsys.Open(name)
	if err != nil {
		return nil, d.leaving(name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	src, err := io.ReadAll(io.LimitReader(f, MaxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(src) > MaxFileSize {
		return nil, errTooLarge
	}
	d.files[name] = &hcl.File{Bytes: src}
	return src, nil
}

// leaving tells a symbolic link that leads out of the directory, which os.Root refuses with an error
// that has no name, from a file that is missing or may not be read.
func (d *decoder) leaving(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return err
	}
	for p := name; p != "."; p = path.Dir(p) {
		if info, lerr := fs.Lstat(d.fsys, p); lerr == nil && info.Mode()&fs.ModeSymlink != 0 {
			return errLeaves
		}
	}
	return err
}
