package specs

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/hashicorp/hcl/v2"
)

// Action is what an [Edit] does.
type Action string

// The actions of an edit.
const (
	Create Action = "create"
	Set    Action = "set"
	Remove Action = "remove"
)

// Edit is a change to one pool or cache of a spec directory, as it is asked for in one command.
type Edit struct {
	action Action
	kind   string
	name   string
	set    []assignment
	unset  []place
}

// NewEdit reads the arguments of an edit: kind is "pool" or "cache", name that of the block. Each of set is
// NAME=VALUE or NAME:=EXPRESSION, where NAME is an attribute (warm), one of a block inside (lease.ttl,
// probe.http.port), or a key of an object (labels.os); unset are such names, or those of whole blocks
// inside (hold, probe.ssh).
func NewEdit(action Action, kind, name string, set, unset []string) (*Edit, error) {
	e := &Edit{action: action, kind: kind, name: name}
	if action == Create && !validName.MatchString(name) {
		return nil, fmt.Errorf("%q can't be the name of a %s. %s", clip(name), kind, nameRule)
	}
	seen := map[string]bool{}
	once := func(p place) error {
		if seen[p.name] {
			return fmt.Errorf("%q is given more than once: keep one", p.name)
		}
		seen[p.name] = true
		return nil
	}
	for _, text := range set {
		a, err := assignmentOf(kind, text)
		if err = cmp.Or(err, once(a.place)); err != nil {
			return nil, err
		}
		e.set = append(e.set, a)
	}
	for _, name := range unset {
		p, err := placeOf(kind, name)
		if err = cmp.Or(err, once(p)); err != nil {
			return nil, err
		}
		e.unset = append(e.unset, p)
	}
	if action == Set && len(seen) == 0 {
		return nil, fmt.Errorf("there is nothing to set: write NAME=VALUE, such as %s, or --unset NAME", map[string]string{"pool": "max=8", "cache": "warm=2"}[kind])
	}
	return e, nil
}

// String says what the edit does in one line, such as "Set warm=3, unset size of cache ci".
func (e *Edit) String() string {
	block := e.kind + " " + clip(e.name)
	if e.action != Set {
		return oneLine(strings.ToUpper(string(e.action[:1])) + string(e.action[1:]) + " " + block)
	}
	var parts []string
	for _, a := range e.set {
		parts = append(parts, clip(a.text))
	}
	for i, p := range e.unset {
		parts = append(parts, []string{"unset ", ""}[min(i, 1)]+p.name)
	}
	s := "set " + strings.Join(parts, ", ")
	if len(e.set) == 0 {
		s = strings.Join(parts, ", ")
	}
	return oneLine(strings.ToUpper(s[:1]) + s[1:] + " of " + block)
}

func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// Faults is the error of an edit whose result is no spec: everything that is wrong with it, in its own lines.
type Faults struct {
	Files       map[string]*hcl.File
	Diagnostics hcl.Diagnostics
}

func (f *Faults) Error() string {
	n := len(f.Diagnostics.Errs())
	return fmt.Sprintf("the specs would have %d fault%s, so nothing was changed", n, map[bool]string{true: "", false: "s"}[n == 1])
}

// Edited is a spec file with an edit made to it that is not written yet.
type Edited struct {
	// Path of the file, which begins with the directory that was edited unless a symbolic link leads elsewhere in it.
	Path string
	// Created tells that there is no such file yet.
	Created bool
	// Before is what the file has.
	Before []byte
	// After is what it gets. Where both are equal there is nothing to change.
	After []byte
	mode  fs.FileMode
}

// Apply makes the edit to the specs in dir and reads the result as [Load] would, but writes nothing. The error
// is a [Faults] when the specs have faults, before the edit or because of it.
func (e *Edit) Apply(dir string, opts Options) (*Edited, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, fmt.Errorf("the spec directory %s can't be read: %w; name another with --specs", dir, pathCause(err))
	}
	defer root.Close()
	s, err := e.find(root.FS(), abs, opts)
	if err != nil {
		return nil, err
	}
	edited := &Edited{Before: s.src}
	if err := e.change(s); err != nil && !errors.Is(err, errUnparsed) {
		return nil, err
	}
	edited.After = s.src
	if err := edited.locate(dir, s.name); err != nil {
		return nil, err
	}
	if bytes.Equal(edited.Before, edited.After) {
		return edited, nil
	}
	if err := s.validate(newDecoder(root.FS(), abs, opts)); err != nil {
		return nil, err
	}
	return edited, nil
}

// find reads all files and returns the one that has the pool or cache, or gets it.
func (e *Edit) find(fsys fs.FS, dir string, opts Options) (*source, error) {
	d := newDecoder(fsys, dir, opts)
	names, diags := specNames(fsys)
	if diags.HasErrors() && (e.action != Create || diags[0].Summary != sumNoSpecs) {
		return nil, &Faults{nil, diags}
	}
	for _, name := range names {
		d.readSpec(name)
	}
	if d.partial {
		_, files, diags := LoadFS(fsys, dir, opts)
		return nil, &Faults{files, diags}
	}
	file, err := e.fileOf(d)
	if err != nil {
		return nil, err
	}
	s := &source{name: file, kind: e.kind, what: e.name}
	if f := d.files[file]; f != nil {
		return s, s.become(f.Bytes)
	}
	return s, s.become(nil)
}

// validate reads the specs as they will be: the decoder takes the edited file for one that it has read.
func (s *source) validate(d *decoder) error {
	if len(s.src) > MaxFileSize {
		return fmt.Errorf("%s would be larger than %d bytes, the most that a spec file may have; move blocks to another file first", s.name, MaxFileSize)
	}
	d.files[s.name] = &hcl.File{Bytes: s.src}
	names, diags := specNames(d.fsys, s.name)
	if _, files, diags := d.load(names, diags); diags.HasErrors() {
		return &Faults{files, diags}
	}
	return nil
}

func (e *Edit) fileOf(d *decoder) (string, error) {
	b := d.blocks[e.kind][e.name]
	switch {
	case b != nil && e.action == Create:
		return "", fmt.Errorf("a %s called %q is at %s already: change it with \"greenroom %s set %s\", or choose another name",
			e.kind, e.name, b.src.DefRange(), e.kind, e.name)
	case b != nil:
		return b.src.TypeRange.Filename, nil
	case e.action != Create:
		return "", fmt.Errorf("no %s is called %q. %s", e.kind, clip(e.name), hint(e.name, d.names(e.kind)))
	}
	return fullest(d.blocks[e.kind]), nil
}

// fullest is the file with the most blocks, where one more is expected to be.
func fullest(blocks map[string]*block) string {
	count := map[string]int{}
	for _, b := range blocks {
		count[b.src.TypeRange.Filename]++
	}
	best := "fleet.hcl"
	for name, n := range count {
		if n > count[best] || n == count[best] && name < best {
			best = name
		}
	}
	return best
}

func (e *Edit) change(s *source) error {
	if e.action == Remove {
		return s.unset(place{})
	}
	if e.action == Create {
		if err := s.addOuter(); err != nil {
			return err
		}
	}
	for _, a := range e.set {
		if err := s.set(a); err != nil {
			return err
		}
	}
	for _, p := range e.unset {
		if err := s.unset(p); err != nil {
			return err
		}
	}
	if e.action == Create {
		return s.layOut()
	}
	return nil
}

func (e *Edited) locate(dir, name string) error {
	e.Path, e.mode = filepath.Join(dir, name), 0o644
	info, err := os.Lstat(e.Path)
	if errors.Is(err, fs.ErrNotExist) {
		e.Created = true
		return nil
	}
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		if e.Path, err = filepath.EvalSymlinks(e.Path); err == nil {
			info, err = os.Stat(e.Path)
		}
	}
	if err != nil {
		return err
	}
	e.mode = info.Mode().Perm()
	return nil
}

// Write puts the edited file in the place of the old one at once, unless that has changed since it was read.
func (e *Edited) Write() error {
	now, err := os.ReadFile(e.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !bytes.Equal(now, e.Before) || errors.Is(err, fs.ErrNotExist) != e.Created {
		return fmt.Errorf("%s has changed since it was read, so it is left alone; run the command again", e.Path)
	}
	return replace(e.Path, e.After, e.mode)
}
