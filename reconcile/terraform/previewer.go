package terraform

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/terraform-exec/tfexec"
	tfjson "github.com/hashicorp/terraform-json"
)

// own is the directory of the shard: for a preview another than the one that it plans in.
func (r *run) own() shardDir {
	if r.in.Preview != "" {
		return r.in.Preview
	}
	return r.dir
}

// whileHeld is a context that ends when the other end of a pipe does.
func whileHeld(ctx context.Context, pipe io.Reader) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, pipe) // however it ends
		cancel()
	}()
	return ctx, cancel
}

// preview is the whole preview, in order.
func (r *run) preview(ctx context.Context) error {
	if _, err := os.Stat(string(r.own())); errors.Is(err, os.ErrNotExist) {
		r.in.Backend = nil // a new shard: there is no state, and some backends would make one when asked
	}
	if err := copyLeavings(r.own().work(), r.dir.work()); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{r.prepare, r.init, r.takeState, r.foresee} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// generated are the files of a work directory that a preview makes itself.
var generated = []string{".terraform", "module", "module.digest", "main.tf.json", "greenroom.auto.tfvars.json", "cli.tfrc", "init.key", planFile, approvedFile}

// copyLeavings copies what a module has left beside its root, where it may read it again, and the lock of the
// providers. A run may be writing there: what is gone is left out, as is what is too big.
func copyLeavings(from, to string) error {
	left := int64(maxModuleBytes)
	return filepath.WalkDir(from, func(file string, entry fs.DirEntry, err error) error {
		name, unrelated := filepath.Rel(from, file)
		if err = cmp.Or(err, unrelated); err != nil {
			return ignoreMissing(err)
		}
		switch {
		case slices.Contains(generated, name) && entry.IsDir():
			return fs.SkipDir
		case entry.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o700)
		case !entry.Type().IsRegular() || slices.Contains(generated, name) || strings.Contains(name, ".tfstate"):
			return nil
		}
		return ignoreMissing(copyBounded(file, filepath.Join(to, name), &left))
	})
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func copyBounded(from, to string, left *int64) error {
	info, err := os.Stat(from)
	if err != nil || info.Size() > *left {
		return err
	}
	*left -= info.Size()
	raw, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, raw, 0o600|info.Mode().Perm()&0o100)
}

// providersAtHand is where a shard has the providers that a preview needs, so that it downloads none. Terraform checks
// them against the lock, and links them.
func (r *run) providersAtHand(key string) string {
	if r.in.Preview == "" || r.in.Mirror != "" {
		return ""
	}
	marks, _ := filepath.Glob(filepath.Join(filepath.Dir(string(r.in.Preview)), "*", "work", "init.key")) // the pattern is well formed
	for _, mark := range marks {
		providers := filepath.Join(filepath.Dir(mark), ".terraform", "providers")
		if had, err := os.ReadFile(mark); err != nil || string(had) != key {
			continue
		}
		if _, err := os.Stat(providers); err == nil {
			return providers
		}
	}
	return ""
}

const (
	readTries = 5
	readPause = 200 * time.Millisecond
)

// takeState makes a copy of the shard's state to plan on. A run may be writing it just now, for which Terraform has no
// other way than in place: what can't be read whole is read again.
func (r *run) takeState(ctx context.Context) error {
	st, err := r.sharedState(ctx)
	for try := 1; err != nil && try < readTries && causeOf(err) == nil; try++ {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(readPause):
		}
		st, err = r.sharedState(ctx)
	}
	if err != nil {
		return r.underWay(err)
	}
	if len(st.raw) > 0 {
		if err := writeFile(r.dir.state(), st.raw); err != nil {
			return err
		}
	}
	if len(r.in.Backend) == 0 {
		return nil
	}
	// From here on the copy is the state. Terraform's note of the backend goes with it, or else it asks for another init.
	r.in.Backend = nil
	if err := removeIfThere(filepath.Join(r.dir.work(), ".terraform", "terraform.tfstate")); err != nil {
		return err
	}
	return r.writeRoot()
}

// underWay says that a state can't be read because of a run, when there is one.
func (r *run) underWay(err error) error {
	fault, ok := errors.AsType[*Fault](err)
	if _, missing := os.Stat(r.own().intent()); !ok || fault.Kind != FaultState || missing != nil {
		return err
	}
	return &Fault{Kind: FaultStale, Message: "a run is under way", Hint: "plan again"}
}

// sharedState reads the shard's state as it is: the one that a run could not write, if there is such, or the local file,
// or the backend's. What was seen of it last is read first, so that the state can only be newer.
func (r *run) sharedState(ctx context.Context) (*state, error) {
	var last seen
	if err := readJSON(r.own().seen(), &last); err != nil {
		return nil, err
	}
	st, err := readStateFile(filepath.Join(r.own().work(), erroredFile))
	switch {
	case !errors.Is(err, os.ErrNotExist):
	case len(r.in.Backend) > 0:
		st, err = r.readState(ctx)
	default:
		if st, err = readStateFile(r.own().state()); errors.Is(err, os.ErrNotExist) {
			st, err = parseState(nil)
		}
	}
	if err != nil {
		return nil, err
	}
	if fault := checkState(st, last, r.own().seen()); fault != nil {
		return nil, fault
	}
	return st, nil
}

// readStateFile reads a local state. An empty file is one that is just being written.
func readStateFile(file string) (*state, error) {
	raw, err := readBounded(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	st := &state{}
	if err == nil {
		st, err = parseState(raw)
	}
	if err == nil && len(raw) == 0 {
		err = errors.New("the file is empty")
	}
	if err != nil {
		return nil, &Fault{Kind: FaultState, Message: "the state can't be read: " + firstLines(err.Error())}
	}
	return st, nil
}

// foresee makes the plan and tells it, also when the guard would refuse it.
func (r *run) foresee(ctx context.Context) error {
	st, err := r.checkedState(ctx)
	if err != nil {
		return err
	}
	names := r.names(st)
	known, _ := st.known(names)
	defer os.Remove(filepath.Join(r.dir.work(), planFile))
	s, err := r.plan(ctx, known)
	if err != nil {
		return err
	}
	var whole *tfjson.Plan
	if err = r.session.ask(ctx); err == nil {
		err = r.session.do(ctx, "show", nil, func(ctx context.Context) (err error) {
			whole, err = r.session.tf.ShowPlanFile(ctx, planFile, tfexec.JSONNumber(true))
			return err
		})
	}
	if cause := causeOf(err); cause != nil {
		return cause
	}
	if err != nil {
		return &Fault{Kind: FaultPlan, Message: "the plan can't be read: " + r.said(err)}
	}
	reasons := map[string]string{}
	for _, c := range s.changes {
		reasons[c.Address] = c.Reason
	}
	r.told = tell(whole, r.secrets(r.module), names, reasons)
	r.keepVanished(s, names)
	return r.guard(s, names, known)
}
