package terraform

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-version"
)

const (
	planFile    = "plan.bin"
	maxStale    = 2
	erroredFile = "errored.tfstate"
)

// errStale means that the state was written between plan and apply; the answer is a new plan.
var errStale = errors.New("the saved plan is stale")

// initJSONSince is the first version whose init speaks JSON.
var initJSONSince = version.Must(version.NewVersion("1.9.0"))

// init runs terraform init when something that it depends on has changed.
func (r *run) init(ctx context.Context) error {
	mark := r.initMark()
	key, err := r.initKey()
	if err != nil {
		return err
	}
	if had, err := os.ReadFile(mark); err != nil || string(had) != key {
		if !r.initAsBefore(key) {
			if err := r.initFrom(ctx, r.providersAtHand(key)); err != nil {
				return err
			}
			// init may have written the lock file, which is part of the key.
			if key, err = r.initKey(); err != nil {
				return err
			}
			r.keepInit(key)
		}
		if err := writeFile(mark, []byte(key)); err != nil {
			return err
		}
	}
	if r.in.Job.Module.Source == "" {
		return nil
	}
	dir, err := r.fetchedModule()
	if err != nil {
		return err
	}
	return r.checkContract(dir)
}

// initFrom takes the providers from a directory that has them, if there is one, or else from wherever
// they come.
func (r *run) initFrom(ctx context.Context, providers string) error {
	if providers != "" {
		err := r.runInit(ctx, providers)
		if err == nil || causeOf(err) != nil {
			return err
		}
		r.log.Info("providers could not be taken from another directory", "path", providers, "err", err)
	}
	return r.runInit(ctx, "")
}

func (r *run) runInit(ctx context.Context, providers string) error {
	s := newStream(r.redact)
	v, err := version.NewVersion(r.in.Version)
	speaksJSON := err == nil && v.Core().GreaterThanOrEqual(initJSONSince)
	err = r.session.do(ctx, "init", nil, func(ctx context.Context) error {
		return r.session.run(ctx, initCommand(s, speaksJSON, providers))
	})
	if err := r.commandFault(FaultInit, s, err); err != nil {
		return err
	}
	return r.shareLockFile()
}

// fetchedModule is where init put a remote module, from the manifest that Terraform keeps.
func (r *run) fetchedModule() (string, error) {
	var manifest struct {
		Modules []struct{ Key, Dir string }
	}
	if err := readJSON(filepath.Join(r.dir.work(), ".terraform", "modules", "modules.json"), &manifest); err != nil {
		return "", err
	}
	for _, m := range manifest.Modules {
		if m.Key == "guests" {
			return filepath.Join(r.dir.work(), m.Dir), nil
		}
	}
	return "", &Fault{Kind: FaultInit, Message: "terraform init fetched no module from " + r.in.Job.Module.Source}
}

// pushErrored saves a state that an earlier run could not write. Planning before that would lose
// track of real machines.
func (r *run) pushErrored(ctx context.Context) error {
	file := filepath.Join(r.dir.work(), erroredFile)
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	err := r.session.do(ctx, "push", nil, func(ctx context.Context) error {
		return r.session.tf.StatePush(ctx, erroredFile)
	})
	if cause := causeOf(err); cause != nil {
		return cause
	}
	if err != nil {
		if _, err := r.readState(ctx); err != nil {
			return err // the backend is away: it is not the state that is wrong
		}
		return &Fault{
			Kind: FaultState, Message: "the state that an apply has left in " + file + " could not be pushed: " + r.said(err),
			Hint: "push it by hand, or remove it if it is of no use; nothing is planned before",
		}
	}
	return os.Rename(file, filepath.Join(r.dir.backups(), fmt.Sprintf("%s-pushed.tfstate", time.Now().UTC().Format("20060102T150405.000000000"))))
}

// reconcile plans and applies, again when the plan went stale.
func (r *run) reconcile(ctx context.Context) error {
	for try := 0; ; try++ {
		err := r.attempt(ctx)
		if !errors.Is(err, errStale) {
			return err
		}
		if try == maxStale {
			return &Fault{Kind: FaultStale, Message: fmt.Sprintf("the state was changed by somebody else between plan and apply, %d times", try+1), Hint: "only Greenroom may write the state of a shard"}
		}
		r.log.Info("the plan went stale; planning again")
	}
}

// attempt is one plan, its guard and its apply.
func (r *run) attempt(ctx context.Context) error {
	st, err := r.checkedState(ctx)
	if err != nil {
		return err
	}
	names := r.names(st)
	if r.session.alone = !r.module.calls; r.blank(st, names) {
		return r.create(ctx, st, names)
	}
	known, _ := st.known(names)
	defer os.Remove(filepath.Join(r.dir.work(), planFile)) // a plan holds secrets
	defer r.dismiss()
	var ready error
	plan, err := r.plan(ctx, known, func() { ready = r.makeReady(st) })
	if err = cmp.Or(err, ready); err != nil {
		return err
	}
	r.keepVanished(plan, names)
	if r.in.Job.DriftOnly {
		r.keepDiagnostics(plan, names)
		return nil
	}
	if err := r.guard(plan, names, known); err != nil {
		return err
	}
	if !r.out.Changed {
		r.settled = true
		return nil
	}
	return r.apply(ctx, st, plan, names)
}

// checkedState reads the state and refuses one that is not what this shard left.
func (r *run) checkedState(ctx context.Context) (*state, error) {
	st, err := r.readState(ctx)
	if err != nil {
		return nil, err
	}
	var last seen
	if err := readJSON(r.dir.seen(), &last); err != nil {
		return nil, err
	}
	if fault := checkState(st, last, r.dir.seen()); fault != nil {
		return nil, fault
	}
	return st, nil
}

// readState reads the state: a local one straight from its file, with no process.
func (r *run) readState(ctx context.Context) (*state, error) {
	var raw []byte
	var err error
	if len(r.in.Backend) == 0 {
		if raw, err = readBounded(r.dir.state()); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	} else {
		err = r.session.do(ctx, "output", nil, func(ctx context.Context) error {
			text, err := r.session.tf.StatePull(ctx)
			raw = []byte(strings.TrimSpace(text))
			return err
		})
	}
	if cause := causeOf(err); cause != nil {
		return nil, cause
	}
	if err != nil {
		return nil, &Fault{Kind: FaultBackend, Message: "the state can't be read: " + r.said(err)}
	}
	st, err := parseState(raw)
	if err != nil {
		return nil, &Fault{Kind: FaultState, Message: "the state can't be read: " + r.said(err)}
	}
	return st, nil
}

// plan makes the plan file and returns its stream. A lock left by our own dead run is broken, once.
func (r *run) plan(ctx context.Context, known map[string][]string, beside ...func()) (*stream, error) {
	file := planFile
	if r.in.Job.DriftOnly {
		file = ""
	}
	var options []string
	if r.in.Preview != "" {
		options = append(options, "-lock=false")
	}
	for _, guest := range r.in.Job.Replace {
		for _, address := range known[guest] {
			options = append(options, "-replace="+address)
		}
	}
	s, err := r.runPlan(ctx, file, options, beside...)
	if err != nil && causeOf(err) == nil && r.unlockOrphan(ctx, s) {
		s, err = r.runPlan(ctx, file, options)
	}
	if err != nil {
		r.forgetInit() // a damaged work directory is mended by the init of the next run
		return nil, r.commandFault(FaultPlan, s, err)
	}
	if !s.whole() {
		return nil, &Fault{Kind: FaultPlan, Message: fmt.Sprintf("terraform's own summary does not agree with the %d changes seen (%d lines were cut); a plan that is not known whole is not applied", len(s.changes), s.truncated)}
	}
	return s, nil
}

func (r *run) runPlan(ctx context.Context, file string, options []string, beside ...func()) (*stream, error) {
	s := newStream(r.redact)
	err := r.session.do(ctx, "plan", s, func(ctx context.Context) (err error) {
		r.out.Changed, err = foundChanges(r.session.run(ctx, planCommand(s, file, options...), beside...))
		return err
	})
	return s, err
}

// ApplyStarts is what the runner's log says at the moment in which an apply, whose plan the guard has passed, is let go.
const ApplyStarts = "apply starts"

// runApply applies the plan, which whoever calls it has approved.
func (r *run) runApply(ctx context.Context) (*stream, error) {
	s, ready := newStream(r.redact), r.waiting != nil && r.waiting.up()
	if ready {
		s = r.waiting.stream
	}
	approved := filepath.Join(r.dir.work(), approvedFile)
	defer os.Remove(approved)
	if err := os.Rename(filepath.Join(r.dir.work(), planFile), approved); err != nil {
		return s, err
	}
	r.log.Info(ApplyStarts)
	err := r.session.do(ctx, "apply", s, func(ctx context.Context) error {
		if b := r.waiting; ready {
			r.waiting = nil
			return r.tear(b.goOn(ctx, cliConfig(r.in.Mirror)))
		}
		return r.tear(r.session.run(ctx, applyCommand(s, approvedFile)))
	})
	return s, err
}

// makeReady does beside the plan what an apply needs, where there will be one: it keeps the state, and has the apply come up
// where that is worth it. Providers take longer than Terraform.
func (r *run) makeReady(st *state) error {
	r.saved = false
	if len(r.claimed()) == 0 || r.in.Job.DriftOnly {
		return nil
	}
	if err := removeIfThere(filepath.Join(r.dir.work(), approvedFile)); err != nil {
		return err
	}
	if !r.session.hasProviders() {
		r.waiting = r.session.standBy(newStream(r.redact))
	}
	return r.save(st)
}

// save keeps a copy of the state from before a write, once.
func (r *run) save(st *state) error {
	if r.saved {
		return nil
	}
	r.saved = true
	return r.dir.backup(st, time.Now())
}

// dismiss ends an apply for which there was no plan.
func (r *run) dismiss() {
	if r.waiting == nil {
		return
	}
	r.waiting.end()
	r.session.steps = append(r.session.steps, Step{Op: "apply", Seconds: time.Since(r.waiting.began).Seconds(), Result: "unused"})
	r.waiting = nil
}

// guard refuses a plan that would do what the run has no claim to.
func (r *run) guard(plan *stream, names []string, known map[string][]string) error {
	expect := r.in.Job.expect()
	for _, c := range plan.drift {
		if c.Action == "delete" {
			expect.Vanished = append(expect.Vanished, c.Address)
		}
	}
	claimed := r.claimed()
	lost := slices.DeleteFunc(slices.Clone(r.out.Vanished), func(g string) bool { return slices.Contains(claimed, g) })
	if len(lost) > 0 {
		return &Fault{Kind: FaultDrift, Message: "their provider took away " + quoted(lost) + "; nothing was applied", Hint: "claim them to be replaced"}
	}
	for _, name := range names {
		if _, ok := known[name]; !ok {
			known[name] = nil
		}
	}
	return Guard(expect, known, plan.changes)
}

func (r *run) keepVanished(s *stream, names []string) {
	for _, c := range s.drift {
		owner := ownerOf(c.Address, names)
		if c.Action == "delete" && owner != "" && !slices.Contains(r.out.Vanished, owner) {
			r.out.Vanished = append(r.out.Vanished, owner)
		}
	}
	slices.Sort(r.out.Vanished)
}

func (r *run) claimed() []string {
	return slices.Concat(r.in.Job.Create, r.in.Job.Replace, r.in.Job.Destroy)
}

// apply carries out the very plan that the guard has passed.
func (r *run) apply(ctx context.Context, before *state, plan *stream, names []string) error {
	if err := r.save(before); err != nil {
		return err
	}
	if err := r.announce(); err != nil {
		return err
	}
	s, err := r.runApply(ctx)
	if err == nil {
		r.settled = true
		r.keepDiagnostics(s, names)
		return nil
	}
	if causeOf(err) == nil && !s.begun && r.moved(ctx, before) {
		return errStale
	}
	r.blame(s, plan.changes, names)
	return r.afterFailure(ctx, s, err, names)
}

// tear notes whether an apply was killed, by whomever, and returns its error. Else it has written down all that it did.
func (r *run) tear(err error) error {
	r.out.Torn = r.out.Torn || killed(err)
	return err
}

// announce writes down what an apply may change, before it does: the outputs of the claimed guests
// in the state are those of earlier machines until an apply has ended well.
func (r *run) announce() error {
	for name, g := range r.in.Job.Guests {
		r.applied[name] = g.Incarnation
	}
	var before []string
	if err := readJSON(r.dir.unsettled(), &before); err != nil {
		return err
	}
	if err := writeJSON(r.dir.unsettled(), slices.Concat(before, r.claimed())); err != nil {
		return err
	}
	return writeJSON(r.dir.applied(), r.applied) // last: it says of whom the outputs are
}

// moved says whether somebody else has written the state since it was read.
func (r *run) moved(ctx context.Context, before *state) bool {
	now, err := r.readState(ctx)
	return err == nil && (now.Serial != before.Serial || now.Lineage != before.Lineage)
}

// blame says of each claimed guest whose changes were not all completed why it failed. Where each error is of a guest, one without
// an error has not failed: Terraform makes no resource that refers to others as long as one of those is missing. The next run goes on
// with it.
func (r *run) blame(s *stream, planned []Change, names []string) {
	if r.out.Torn {
		return // nobody knows
	}
	general, own := "the apply ended before it was done", map[string]string{}
	for i, d := range s.errors() {
		if i == 0 {
			general = d.text()
		}
		if owner := ownerOf(d.Address, names); own[owner] == "" {
			own[owner] = d.text()
		}
	}
	others := len(own) == 0 || own[""] != "" || len(s.diags) >= maxDiagnostics || s.truncated > 0 // or errors that nobody has seen
	for _, c := range planned {
		owner := ownerOf(c.Address, names)
		switch {
		case owner == "" || s.completed(c) || r.out.Failed[owner] != "":
		case own[owner] != "" || others:
			r.out.Failed[owner] = cmp.Or(own[owner], general)
		default:
			r.unfinished = append(r.unfinished, owner)
		}
	}
}

// afterFailure saves what can be saved of a failed apply: the state, and the outputs of the guests
// that did come out right. Terraform leaves all outputs as they were when any instance failed.
func (r *run) afterFailure(ctx context.Context, s *stream, err error, names []string) error {
	fault, ordered := r.commandFault(FaultApply, s, err), causeOf(err) != nil
	switch {
	case r.out.Torn:
		if !ordered {
			fault = &Fault{Kind: FaultLost, Message: "terraform was killed while it applied: " + r.said(err), Hint: "what it was making may exist: plan again"}
		}
		return errors.Join(fault, r.dir.markOrphan(r.in, time.Now().UTC())) // its lock may be left
	case ordered:
		return fault
	}
	if push := r.pushErrored(ctx); push != nil {
		if r.diskFull() {
			return &Fault{Kind: FaultDisk, Message: "the disk is full: the new state could not be written, and is kept in " + erroredFile, Hint: "free some space; the next run pushes it first"}
		}
		return push
	}
	if err := r.settle(ctx, names); err != nil {
		r.log.Warn("the outputs could not be brought up to date", "err", err)
	}
	return fault
}

// settle recomputes the outputs without changing any resource. When a guest has vanished in the
// meantime it stays in the state, so that the next plan can tell.
func (r *run) settle(ctx context.Context, names []string) error {
	changed := r.out.Changed
	defer func() { r.out.Changed = changed }()
	s, err := r.runPlan(ctx, planFile, []string{"-refresh-only"})
	if err != nil {
		return r.commandFault(FaultPlan, s, err)
	}
	before := len(r.out.Vanished)
	r.keepVanished(s, names)
	if len(r.out.Vanished) > before {
		return nil
	}
	s, err = r.runApply(ctx)
	r.settled = err == nil
	return r.commandFault(FaultApply, s, err)
}

// diskFull says whether less than a mebibyte is left where the shard lives.
func (r *run) diskFull() bool {
	var fs syscall.Statfs_t
	return syscall.Statfs(r.dir.work(), &fs) == nil && fs.Bavail*uint64(fs.Bsize) < 1<<20
}
