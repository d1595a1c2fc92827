package terraform

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"greenroom/reconcile/plan"
)

const (
	previewTotal     = 5 * time.Minute
	previewInterrupt = 10 * time.Second // a plan has nothing to save
	previewGrace     = 5 * time.Second  // then its runner is killed
)

// Preview makes the plan that a run of the job would make, in a directory of its own, and tells it by attribute, with
// sensitive values masked. It reads the shard's state and takes no lock; neither state nor shard directory is written to.
//
// The plan is made by a runner that ends with ctx, with the driver and with this process. Its directory, dir/<shard>,
// holds secrets and is removed at the end; what a killed process has left there is the caller's to remove. The error is
// only of what is not about this shard: ctx, or ErrClosed. All else is in the answer's Error. A run that would be refused
// is told with its resources and the reason. Paths that a module makes absolute are those of the directory.
func (d *Driver) Preview(ctx context.Context, dir string, job Job) (plan.Shard, error) {
	ctx, end, err := d.beginPreview(ctx)
	if err != nil {
		return plan.Shard{}, fmt.Errorf("previewing shard %s: %w", job.Shard, err)
	}
	defer end()
	began := time.Now()
	told, err := d.preview(ctx, dir, job)
	if ctx.Err() != nil {
		return plan.Shard{}, fmt.Errorf("previewing shard %s: %w", job.Shard, context.Cause(ctx))
	}
	if err != nil {
		told.Error = err.Error()
	}
	if told.Resources == nil {
		told.Resources = []plan.Resource{}
	}
	told.Shard, told.Pool, told.Seconds = job.Shard, job.Pool, time.Since(began).Seconds()
	return told, nil
}

// beginPreview waits for one of the places for previews. The context that it returns ends with the driver too.
func (d *Driver) beginPreview(ctx context.Context) (context.Context, func(), error) {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil, nil, ErrClosed
	}
	d.seers.Add(1)
	d.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(d.open, func() { cancel(ErrClosed) })
	end := func() {
		stop()
		cancel(nil)
		d.seers.Done()
	}
	if d.previews.Acquire(ctx, 1) != nil {
		defer end()
		return nil, nil, context.Cause(ctx)
	}
	return ctx, func() { d.previews.Release(1); end() }, nil
}

func (d *Driver) preview(ctx context.Context, dir string, job Job) (plan.Shard, error) {
	var told plan.Shard
	job.Run, job.DriftOnly = cmp.Or(job.Run, "preview"), false
	if err := job.check(); err != nil {
		return told, err
	}
	module, err := d.storeModule(job.Module)
	if err != nil {
		return told, err
	}
	job.Module = module
	dir, err = filepath.Abs(filepath.Join(dir, job.Shard))
	if err == nil {
		err = os.MkdirAll(filepath.Dir(dir), 0o700)
	}
	if err == nil {
		err = os.Mkdir(dir, 0o700) // not that of another preview of the shard
	}
	if err != nil {
		return told, fmt.Errorf("making the preview's directory: %w", err)
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			d.opts.Log.Error("the directory of a preview, which holds secrets, can't be removed", "path", dir, "err", err)
		}
	}()
	in := d.newIntent(job)
	in.Preview = d.shard(job.Shard)
	in.Budgets.Total = min(in.Budgets.Total, previewTotal)
	in.Budgets.Interrupt = min(in.Budgets.Interrupt, previewInterrupt)
	if err := d.runPreview(ctx, shardDir(dir), in); err != nil {
		return told, err
	}
	return d.readPreview(shardDir(dir), in)
}

// runPreview runs the runner, which lives as long as its standard input is held open: it ends in order with ctx and
// with this process. When that fails its session is killed.
func (d *Driver) runPreview(ctx context.Context, dir shardDir, in intent) error {
	if err := writeJSON(dir.intent(), in); err != nil {
		return err
	}
	cmd := d.runner(in, dir)
	held, err := cmd.StdinPipe()
	if err == nil {
		err = startLogged(cmd, dir)
	}
	if err != nil {
		return err
	}
	over, cancel := context.WithTimeout(ctx, in.Budgets.Total+in.Budgets.Interrupt+previewGrace)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-over.Done():
		held.Close()
		grace := time.NewTimer(in.Budgets.Interrupt + previewGrace)
		defer grace.Stop()
		select {
		case err = <-ended:
		case <-grace.C:
			killSession(cmd.Process.Pid)
			err = <-ended
		}
	}
	killSession(cmd.Process.Pid) // what the runner could not end; as long as there is any, nobody else gets the session's id
	if err != nil {
		d.opts.Log.Warn("the runner of a preview failed", "shard", in.Job.Shard, "err", err)
	}
	return nil
}

// readPreview takes the answer in. A runner that left none has died.
func (d *Driver) readPreview(dir shardDir, in intent) (plan.Shard, error) {
	raw, err := readBounded(dir.result())
	var a answer
	if err == nil {
		err = json.Unmarshal(raw, &a)
	}
	if err != nil {
		d.started.Add(1)
		return plan.Shard{}, &Fault{Kind: FaultLost, Message: "the runner died without a result", Hint: "plan again"}
	}
	for i := range a.Steps {
		a.Steps[i].Op = "preview-" + a.Steps[i].Op
	}
	d.count(in.Job.Pool, a.Steps)
	switch {
	case a.Err == nil:
		return a.Plan, nil
	case a.Plan.Error != "":
		return a.Plan, errors.New(a.Err.Error() + "; " + a.Plan.Error)
	}
	return a.Plan, a.Err
}
