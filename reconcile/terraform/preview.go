package terraform

import (
	"context"
	"errors"

	"greenroom/reconcile/plan"
)

// Preview makes the plan that a run of the job would make, in a directory of its own, and tells it by attribute, with
// sensitive values masked. It reads the shard's state and takes no lock; neither state nor shard directory is written to.
func (d *Driver) Preview(ctx context.Context, dir string, job Job) (plan.Shard, error) {
	return plan.Shard{}, errors.New("not there yet")
}
