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
	"greenroom/reconcile"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/terraform"
	"greenroom/specs"
)

// Directory follows a directory of HCL files.
type Directory struct {
	Path  string        // of the directory
	Every time.Duration // between two looks; default 1s
}

// Load reads the directory once. The error shows every fault with its source.
func (d Directory) Load() reconcile.Revision {
	path, err := filepath.Abs(d.Path)
	if err != nil {
		return faulty(condition.Unreachable, err)
	}
	fleet, files, diags := specs.Load(path, specs.Options{Bundled: modules.Names()})
	if !diags.HasErrors() {
		return reconcile.Revision{Name: fleet.Revision, Fleet: fleet}
	}
	var text bytes.Buffer
	if err := specs.WriteDiagnostics(&text, files, diags, false, 100); err != nil {
		return faulty(condition.SpecInvalid, err)
	}
	return faulty(condition.SpecInvalid, fmt.Errorf("%s: %d faults (greenroom spec validate %s shows them):\n%s", d.Path, len(diags.Errs()), d.Path, &text))
}

func faulty(reason string, err error) reconcile.Revision {
	return reconcile.Revision{Fault: &condition.Fault{Reason: reason, Message: err.Error()}}
}

// Follow hands each new revision to offer, the first one at once, until ctx ends. A revision is new when the specs, the
// faults in them or the tree of a module of theirs differ from the last one.
func (d Directory) Follow(ctx context.Context, offer func(reconcile.Revision)) error {
	every := d.Every
	if every == 0 {
		every = time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	last := ""
	for {
		r := d.Load()
		if now := mark(r); now != last {
			last = now
			offer(r)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// mark is what two equal revisions have in common.
func mark(r reconcile.Revision) string {
	if r.Fault != nil {
		return "bad: " + r.Fault.Message
	}
	var text strings.Builder
	text.WriteString(r.Fleet.Revision)
	for _, p := range r.Fleet.Pools {
		if p.ModuleDir != "" {
			digest, err := terraform.Digest(os.DirFS(p.ModuleDir))
			text.WriteString(fmt.Sprint(" ", digest, err))
		}
	}
	return text.String()
}
