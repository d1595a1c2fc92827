package gitops

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/hashicorp/hcl/v2"

	"greenroom/modules"
	"greenroom/reconcile"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/terraform"
	"greenroom/specs"
)

// reading is how the specs in a file system are to be read.
type reading struct {
	what     string   // is read, for people
	kind     string   // "dir" or "zip": the revision is that and the digest
	commit   string   // the revision, where there is one
	dir      string   // absolute directory of the specs; empty: none
	absolute []string // module directories that may be named by an absolute path; nil: any
	store    string   // where the trees of modules are kept by digest; empty: they stay where they are
	shelf    *shelf   // the store, where its size is bounded; nil: it is not
}

// load reads the specs at the top of a file system.
func (o reading) load(fsys fs.FS) (reconcile.Revision, inputs, sums) {
	rec := record(fsys)
	at := o.dir
	if at == "" {
		at = "/" // is never looked at: the modules are put into the store
	}
	fleet, files, diags := specs.LoadFS(rec, at, o.options())
	in, seen := rec.seen(files)
	var unstored *condition.Fault
	if fleet != nil {
		for _, p := range fleet.Pools {
			err := o.module(fsys, p, &in, seen)
			if ours := storing(err); ours != nil {
				unstored = ours
			} else if err != nil {
				diags = append(diags, unusable(p, err))
			}
		}
	} else {
		for _, name := range in.Modules {
			seen.modules[name] = sumModule(moduleFS(fsys, name))
		}
	}
	name := o.commit
	if name == "" {
		name = o.kind + ":" + seen.digest()
	}
	if diags.HasErrors() {
		return reconcile.Revision{Name: name, Fault: o.invalid(name, files, diags)}, in, seen
	}
	if unstored != nil {
		unstored.Revision = name
		return reconcile.Revision{Name: name, Fault: unstored}, in, seen
	}
	fleet.Revision, fleet.Dir = name, o.dir
	return reconcile.Revision{Name: name, Fleet: fleet}, in, seen
}

func (o reading) options() specs.Options {
	return specs.Options{Bundled: modules.Names(), Absolute: o.absolute}
}

// module puts the tree of a pool's module where nothing changes it any more, and makes it part of the revision. A module at
// an absolute path belongs to a directory source only, whose revision covers it.
func (o reading) module(fsys fs.FS, p *specs.Pool, in *inputs, seen sums) error {
	if p.ModuleDir == "" {
		return nil
	}
	name := p.Module
	if filepath.IsAbs(name) {
		if name = filepath.Clean(name); o.dir == "" {
			return nil
		}
	} else {
		name = path.Clean(name)
	}
	if digest, done := seen.modules[name]; done && o.store != "" && digest != unreadable {
		p.ModuleDir = filepath.Join(o.store, digest)
		return nil
	}
	if !slices.Contains(in.Modules, name) {
		in.Modules = append(in.Modules, name)
	}
	digest, err := o.keep(moduleFS(fsys, name))
	if err != nil {
		seen.modules[name] = unreadable
		return err
	}
	seen.modules[name] = digest
	if o.store != "" {
		p.ModuleDir = filepath.Join(o.store, digest)
	}
	return nil
}

// storing is why a module could not be stored, where that is no fault of the specs: then the same revision may do later.
func storing(err error) *condition.Fault {
	switch {
	case errors.Is(err, errShelfFull):
		return &condition.Fault{Reason: condition.TooLarge, Message: err.Error()}
	case errors.Is(err, terraform.ErrStore) && !errors.Is(err, errUnpacked):
		return &condition.Fault{Reason: condition.Unreachable, Message: fmt.Sprintf("%v; it is tried again: is there room in the state directory?", err)}
	}
	return nil
}

func unusable(p *specs.Pool, err error) *hcl.Diagnostic {
	return &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: "Module cannot be used", Subject: &p.Range,
		Detail: fmt.Sprintf("The module %q of pool %s: %v.", p.Module, p.Name, err),
	}
}

func (o reading) keep(tree fs.FS) (digest string, err error) {
	if o.store == "" {
		return terraform.Digest(tree)
	}
	if o.shelf != nil {
		release, err := o.shelf.reserve(tree)
		if err != nil {
			return "", err
		}
		defer release()
	}
	return terraform.StoreModule(tree, o.store)
}

const (
	maxFaults    = 50
	maxFaultText = 64 << 10
)

// invalid shows the faults with their source, but without what may be secret in it: everybody who has a token may read them.
func (o reading) invalid(revision string, files map[string]*hcl.File, diags hcl.Diagnostics) *condition.Fault {
	files, faults := specs.Withheld(files, diags)
	faults = slices.DeleteFunc(faults, func(d *hcl.Diagnostic) bool { return d.Severity != hcl.DiagError })
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s: %d %s:\n", o.what, len(faults), plural(len(faults), "fault"))
	if err := specs.WriteDiagnostics(&text, files, faults[:min(len(faults), maxFaults)], false, 100); err != nil {
		fmt.Fprintf(&text, "%v (the faults cannot be shown: %v)", faults[0], err)
	}
	if len(faults) > maxFaults {
		fmt.Fprintf(&text, "and %d more\n", len(faults)-maxFaults)
	}
	if text.Len() > maxFaultText {
		text.Truncate(maxFaultText)
		text.WriteString("…\n")
	}
	return &condition.Fault{Reason: condition.SpecInvalid, Revision: revision, Message: strings.Map(visible, text.String())}
}

// visible takes away what would steer the terminal on which a fault is shown.
func visible(r rune) rune {
	if unicode.IsPrint(r) || r == '\n' || r == '\t' {
		return r
	}
	return unicode.ReplacementChar
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

// Load reads a directory once, in this process, and gives the revision that a server which follows the directory has of it.
// The fleet's modules are where the directory has them. It is for directories of the caller's own.
func Load(dir string) reconcile.Revision {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return faulty(condition.Unreachable, err)
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return faulty(condition.Unreachable, fmt.Errorf("the specs cannot be read: %w", err))
	}
	defer root.Close()
	r, _, _ := directoryReading(abs, "").load(root.FS())
	return r
}

func directoryReading(dir, store string) reading {
	return reading{
		what: fmt.Sprintf("%s (greenroom spec validate %s shows its faults)", dir, dir),
		kind: "dir", dir: dir, store: store,
	}
}

func faulty(reason string, err error) reconcile.Revision {
	return reconcile.Revision{Fault: &condition.Fault{Reason: reason, Message: err.Error()}}
}
