// Package gitops is where specs come from. It follows a source and hands each new revision on, good or bad; what is in force
// is the reconciler's business.
package gitops

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"greenroom/modules"
	"greenroom/reconcile/terraform"
	"greenroom/specs"
)

// Directory follows a directory of HCL files.
type Directory struct {
	Path  string        // of the directory
	Every time.Duration // between two looks; default 1s
}

// Revision is what one look at a source found: a fleet, or what is wrong with it.
type Revision struct {
	Fleet *specs.Fleet
	Err   error
}

// Load reads the directory once. The error shows every fault with its source.
func (d Directory) Load() Revision {
	path, err := filepath.Abs(d.Path)
	if err != nil {
		return Revision{Err: err}
	}
	fleet, files, diags := specs.Load(path, specs.Options{Bundled: modules.Names()})
	if !diags.HasErrors() {
		return Revision{Fleet: fleet}
	}
	var text bytes.Buffer
	if err := specs.WriteDiagnostics(&text, files, diags, false, 100); err != nil {
		return Revision{Err: err}
	}
	return Revision{Err: fmt.Errorf("%s: %d faults (greenroom spec validate %s shows them):\n%s", d.Path, len(diags.Errs()), d.Path, &text)}
}

// Follow hands each new revision to offer, the first one at once, until ctx ends. A revision is new when the specs, the
// faults in them or the tree of a module of theirs differ from the last one.
func (d Directory) Follow(ctx context.Context, offer func(*specs.Fleet, error)) error {
	every := d.Every
	if every == 0 {
		every = time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	last := ""
	for {
		r := d.Load()
		if now := r.mark(); now != last {
			last = now
			offer(r.Fleet, r.Err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// mark is what two equal revisions have in common.
func (r Revision) mark() string {
	if r.Err != nil {
		return "bad: " + r.Err.Error()
	}
	var mark strings.Builder
	mark.WriteString(r.Fleet.Revision)
	for _, p := range r.Fleet.Pools {
		if p.ModuleDir != "" {
			digest, err := terraform.Digest(os.DirFS(p.ModuleDir))
			mark.WriteString(fmt.Sprint(" ", digest, err))
		}
	}
	return mark.String()
}
