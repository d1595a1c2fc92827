package terraform

import (
	"context"
	"errors"
	"maps"
	"slices"
	"syscall"
	"time"
)

// Detach ends the driver and its previews, and leaves the runners to themselves: they finish, and the next process
// finds them by Recover. It is how a server normally exits.
func (d *Driver) Detach() {
	d.close()
	d.seers.Wait()
	d.stop()
}

// Shutdown ends the driver, its previews and its runs: no new run starts; the live ones have until drain to end;
// then each gets one interrupt, which it passes on to Terraform once, and Budgets.Interrupt to save
// its state; then everything in its session is killed. The outcomes stay for Wait and Recover.
func (d *Driver) Shutdown(ctx context.Context, drain time.Duration) error {
	live := d.close()
	defer d.stop()
	defer d.seers.Wait()
	if await(ctx, live, drain) {
		return nil
	}
	var errs []error
	for _, r := range live {
		errs = append(errs, r.signal(syscall.SIGINT))
	}
	// The runner itself kills Terraform when the interrupt is not heeded; it gets a little longer.
	if await(ctx, live, d.opts.Budgets.Interrupt+10*time.Second) {
		return errors.Join(errs...)
	}
	for _, r := range live {
		errs = append(errs, r.kill())
	}
	await(ctx, live, 10*time.Second)
	return errors.Join(errs...)
}

func (d *Driver) close() []*Running {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.shut()
	return slices.Collect(maps.Values(d.live))
}

// await says whether all runs ended in time.
func await(ctx context.Context, live []*Running, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for _, r := range live {
		select {
		case <-r.done:
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// Interrupt tells the run to stop: Terraform gets one SIGINT, saves its state and ends. The run's
// outcome is then a Fault of kind interrupted.
func (r *Running) Interrupt() error { return r.signal(syscall.SIGINT) }

// signal reaches the runner by the process id in its lock, which is its own as long as it is held.
func (r *Running) signal(sig syscall.Signal) error {
	select {
	case <-r.done:
		return nil
	default:
	}
	pid, err := r.dir.holder()
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

func (r *Running) kill() error {
	select {
	case <-r.done:
		return nil
	default:
	}
	pid, err := r.dir.holder()
	if err == nil {
		killSession(pid)
	}
	return err
}
