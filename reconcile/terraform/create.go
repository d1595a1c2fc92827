package terraform

import (
	"context"
	"errors"
	"slices"
)

// blank says that there is nothing which an apply could touch: a state without resources that nobody but this run may write,
// and no guest, of this run or an earlier one, that is not claimed to be created. All that a plan can hold then is what the guard lets pass:
// creating claimed guests, and what they share. See docs/decisions/012-an-empty-shard-is-applied-at-once.md.
func (r *run) blank(st *state, names []string) bool {
	local := len(r.in.Backend) == 0 // elsewhere nothing of ours keeps others from writing before the apply takes its lock
	return local && !r.in.Job.DriftOnly && len(st.Resources) == 0 && len(names) > 0 &&
		slices.Equal(names, slices.Sorted(slices.Values(r.in.Job.Create)))
}

// create plans and applies in one process, which takes half as long. What it did is held against the guard all the same.
func (r *run) create(ctx context.Context, before *state, names []string) error {
	if err := r.save(before); err != nil {
		return err
	}
	if err := r.announce(); err != nil {
		return err
	}
	s, err := r.runCreate(ctx)
	if err != nil && causeOf(err) == nil && !s.begun && r.unlockOrphan(ctx, s) {
		s, err = r.runCreate(ctx)
	}
	r.out.Changed = err == nil || s.begun
	if !r.out.Changed { // it did not get beyond its plan
		r.forgetInit()
		return r.commandFault(FaultPlan, s, err)
	}
	proof := r.proveCreated(s, names)
	if err != nil {
		r.blame(s, s.changes, names)
		return errors.Join(proof, r.afterFailure(ctx, s, err, names))
	}
	r.settled = true
	r.keepDiagnostics(s, names)
	return proof
}

func (r *run) runCreate(ctx context.Context) (*stream, error) {
	s := newStream(r.redact)
	r.log.Info(ApplyStarts)
	err := r.session.do(ctx, "apply", s, func(ctx context.Context) error {
		return r.tear(r.session.run(ctx, applyCommand(s)))
	})
	return s, err
}

// proveCreated holds what was planned and applied at once against the guard, and more: all of it must create. Anything else is not possible
// as far as Terraform is understood; if it happens nothing more is done here before somebody has looked.
func (r *run) proveCreated(s *stream, names []string) error {
	refused := r.guard(s, names, map[string][]string{})
	for _, c := range s.changes {
		if refused == nil && !slices.Contains([]string{"create", "read", "noop"}, c.Action) {
			refused = &GuardError{[]Violation{{c.Address, c.Action, "there was nothing that it could be done to"}}}
		}
	}
	if !s.whole() && !r.out.Torn {
		refused = errors.Join(errors.New("its plan is not known whole"), refused)
	}
	if refused == nil {
		return nil
	}
	return &Fault{
		Kind: FaultGuard, Message: "what was applied to an empty shard should have been refused: " + firstLines(refused.Error()),
		Hint: "this must not happen: look at what the module has made, and report it",
	}
}
