package specs

import (
	"bytes"
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
	// maxParts is how many tokens may be open at one place; the parser's stack bears some hundred times more.
	maxParts = 2000
	// maxChain is how long a chain of references may be.
	maxChain = 200
)

// Options tell what a spec may use. The zero value is useful.
type Options struct {
	// Bundled are the names of the modules that come with the binary; nil accepts any name.
	Bundled []string
	// Absolute are the clean paths of the directories outside of the spec directory that may be named as modules;
	// nil accepts any. With it no other is even looked at, so that specs of a stranger can't search the host.
	Absolute []string
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
	names, diags := specNames(fsys)
	return newDecoder(fsys, dir, opts).load(names, diags)
}

func (d *decoder) load(names []string, diags hcl.Diagnostics) (*Fleet, map[string]*hcl.File, hcl.Diagnostics) {
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
	fleet.Dir = d.dir
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

// specNames are the spec files at the top of fsys, together with more that are about to be there.
func specNames(fsys fs.FS, more ...string) ([]string, hcl.Diagnostics) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, unreadable(".", err)
	}
	names := more
	for _, e := range entries {
		if !e.IsDir() && path.Ext(e.Name()) == ".hcl" && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
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
	file, diags := parse(src, name)
	d.diags = append(d.diags, diags...)
	if diags.HasErrors() {
		d.partial = true
		return
	}
	d.files[name] = file
	d.collect(file.Body.(*hclsyntax.Body))
}

func parse(src []byte, name string) (*hcl.File, hcl.Diagnostics) {
	if at, deep := tooDeep(src, name); deep {
		return nil, hcl.Diagnostics{fault(at, sumTooDeep,
			"The expression or block that goes on here has more than %d parts. Move some of them into locals.", maxParts)}
	}
	return hclsyntax.ParseConfig(src, name, hcl.InitialPos)
}

// tooDeep finds an expression with more parts than the parser, which recurses over them, should be trusted
// with. What counts are the tokens that are open at one place: those of the innermost brackets since the last
// item began, and of all brackets around them.
func tooDeep(src []byte, name string) (hcl.Range, bool) {
	tokens, _ := hclsyntax.LexConfig(src, name, hcl.InitialPos)
	open := []level{{lines: true}}
	total := 0
	for _, t := range tokens {
		top := &open[len(open)-1]
		switch {
		case top.ends(t):
			total -= top.parts
			top.parts = 0
			continue
		case isText(t):
			continue
		case isClosing(t) && len(open) > 1:
			total -= top.parts
			open = open[:len(open)-1]
			top = &open[len(open)-1]
		}
		top.parts++
		total++
		if total > maxParts {
			return t.Range, true
		}
		open = append(open, opened(t)...)
	}
	return hcl.Range{}, false
}

// level is one pair of brackets: whether a new line begins a new item in it, and how many tokens the present
// item has.
type level struct {
	lines bool
	parts int
}

func (l *level) ends(t hclsyntax.Token) bool {
	newLine := t.Type == hclsyntax.TokenNewline || t.Type == hclsyntax.TokenComment && bytes.HasSuffix(t.Bytes, []byte("\n"))
	return t.Type == hclsyntax.TokenComma || newLine && l.lines
}

func isText(t hclsyntax.Token) bool {
	return t.Type == hclsyntax.TokenStringLit || t.Type == hclsyntax.TokenQuotedLit || t.Type == hclsyntax.TokenComment
}

func isClosing(t hclsyntax.Token) bool {
	switch t.Type {
	case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd:
		return true
	}
	return false
}

func opened(t hclsyntax.Token) []level {
	switch t.Type {
	case hclsyntax.TokenOBrace:
		return []level{{lines: true}}
	case hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
		return []level{{}}
	}
	return nil
}

var (
	errTooLarge   = errors.New("file is too large")
	errNotRegular = errors.New("not a regular file")
	errLeaves     = errors.New("path leaves the spec directory")
)

// ErrLink is for file systems that refuse symbolic links altogether.
var ErrLink = errors.New("symbolic links are not followed here")

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
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, ErrLink) {
		return err
	}
	for p := name; p != "."; p = path.Dir(p) {
		if info, lerr := fs.Lstat(d.fsys, p); lerr == nil && info.Mode()&fs.ModeSymlink != 0 {
			return errLeaves
		}
	}
	return err
}
