package reconcile

import (
	"context"
	"errors"

	"greenroom/reconcile/plan"
)

// Preview is a plan of one revision with what is needed to ask Terraform too.
type Preview struct {
	Plan plan.Plan // without ID, Phase, Ref, By and times, which are its keeper's
}

// Preview says what a revision would change if it came into force now. It only reads.
func (l *Loop) Preview(ctx context.Context, head Revision) (*Preview, error) {
	return nil, errors.New("not there yet")
}

// Terraform makes real Terraform plans of every affected shard, in directories of their own under dir, and hands each to
// done as it is ready, from several goroutines. The error is only of what keeps all of them from being made.
func (p *Preview) Terraform(ctx context.Context, dir string, done func(plan.Shard)) error {
	return errors.New("not there yet")
}

// InForce names the revision in force; empty: none is.
func (l *Loop) InForce() string { return l.inForce().Revision }

// Approve lets the revision come into force that a preview with this digest was made of, though it is held: once, and also
// after a restart. A digest that nothing held has waits for its revision.
func (l *Loop) Approve(by, digest string) error {
	return errors.New("not there yet")
}
