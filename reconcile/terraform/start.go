package terraform

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
)

// pollEvery is how often the lock of a runner that is not our child is looked at.
const pollEvery = 100 * time.Millisecond

// Running is a run whose runner lives, or has ended and waits for its outcome to be read.
type Running struct {
	Shard, Run, Pool string

	driver  *Driver
	dir     shardDir
	intent  intent
	done    chan struct{} // closed when the runner has ended, or is no longer watched
	gone    bool          // the runner has ended; read after done
	reading sync.Mutex    // of what follows
	known   bool
	out     Outcome
}

// Run starts a job and waits for its outcome. The error tells that there is no outcome; what
// went wrong within the run is Outcome.Err.
func (d *Driver) Run(ctx context.Context, job Job) (Outcome, error) {
	running, err := d.Start(ctx, job)
	if err != nil {
		return Outcome{}, err
	}
	return running.Wait(ctx)
}

// Start writes the intent of a run and starts its runner, which then needs nobody: neither this
// process nor ctx. It waits while Concurrency runs are live. A shard whose last outcome was not
// acknowledged is ErrBusy.
func (d *Driver) Start(ctx context.Context, job Job) (*Running, error) {
	if err := job.check(); err != nil {
		return nil, err
	}
	if err := d.slots.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("waiting for a run to end: %w", err)
	}
	running, err := d.start(job)
	if err != nil {
		d.slots.Release(1)
		return nil, fmt.Errorf("starting run %s of shard %s: %w", job.Run, job.Shard, err)
	}
	return running, nil
}

func (d *Driver) start(job Job) (*Running, error) {
	module, err := d.storeModule(job.Module)
	if err != nil {
		return nil, err
	}
	job.Module = module
	dir, in := d.shard(job.Shard), d.newIntent(job)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, ErrClosed
	}
	in.Crowded = d.crowded()
	if ready := d.take(job.Shard); ready != nil {
		defer ready.lock.Close()
		defer ready.gate.Close() // the runner goes on, to its intent or to its end
		if err := d.order(dir, in); err != nil {
			go func() { _ = ready.cmd.Wait() }()
			return nil, errors.Join(err, removeIfThere(dir.intent()))
		}
		return d.watchChild(dir, in, ready.cmd), nil
	}
	if err := os.MkdirAll(string(dir), 0o700); err != nil {
		return nil, err
	}
	lock, err := d.lockIdle(dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close() // the runner has inherited it by then
	if err := d.order(dir, in); err != nil {
		return nil, err
	}
	cmd := d.runner(in, dir)
	if err := d.spawn(cmd, dir, lock); err != nil {
		return nil, errors.Join(err, os.Remove(dir.intent()))
	}
	return d.watchChild(dir, in, cmd), nil
}

// order writes down what a runner shall do. It has room for its result from the start: on a full disk it could not say why it failed.
func (d *Driver) order(dir shardDir, in intent) error {
	if err := removeIfThere(dir.result()); err != nil {
		return err
	}
	err := dir.reserve()
	if err == nil {
		err = writeJSON(dir.intent(), in)
	}
	if err != nil {
		return errors.Join(err, removeIfThere(dir.file("reserve")))
	}
	return nil
}

// crowded says whether one run more is as many as there are processors, or more. The caller holds d.mu.
func (d *Driver) crowded() bool { return len(d.live)+1 >= runtime.GOMAXPROCS(0) }

func (d *Driver) newIntent(job Job) intent {
	path, version := d.identify()
	in := intent{
		Job: job, Binary: path, Version: version, Self: d.opts.Self, Mirror: d.opts.Mirror, Env: d.opts.Env,
		Modules: filepath.Join(d.opts.StateDir, "modules"), GuestsDir: d.guestsDir(), Budgets: d.opts.Budgets,
		Who: whoami(), Created: time.Now().UTC(),
	}
	if d.backend != nil {
		in.Backend = d.opts.Backend
	}
	return in
}

// whoami is how Terraform's lock info names its holder: user@host.
func whoami() string {
	var name string
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, _ := os.Hostname() // as Terraform does: empty when unknown
	return name + "@" + host
}

// spawn starts the runner, holding the shard's lock, tied to nothing of ours.
func (d *Driver) spawn(cmd *exec.Cmd, dir shardDir, lock *os.File) error {
	cmd.ExtraFiles = []*os.File{lock} // becomes inheritedLock
	if err := startLogged(cmd, dir); err != nil {
		return err
	}
	if err := sign(lock, cmd.Process.Pid); err != nil {
		d.opts.Log.Warn("the runner's process id could not be written", "path", string(dir), "err", err)
	}
	return nil
}

// runner is the command of a runner, in a session of its own.
func (d *Driver) runner(in intent, dir shardDir) *exec.Cmd {
	args := append(append([]string{}, d.opts.RunnerArgs...), string(dir))
	cmd := exec.Command(d.opts.Self, args...)
	cmd.Dir = string(dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = slices.Clone(in.thrifty())
	for name, value := range d.env() {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

func startLogged(cmd *exec.Cmd, dir shardDir) error {
	log, err := os.OpenFile(dir.log(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the runner %s: %w", cmd.Path, err)
	}
	return nil
}

func (d *Driver) newRunning(dir shardDir, in intent) *Running {
	r := &Running{
		Shard: in.Job.Shard, Run: in.Job.Run, Pool: in.Job.Pool,
		driver: d, dir: dir, intent: in, done: make(chan struct{}),
	}
	d.live[r.Shard] = r
	return r
}

// watchChild reaps the runner. The caller holds d.mu and a slot.
func (d *Driver) watchChild(dir shardDir, in intent, cmd *exec.Cmd) *Running {
	r := d.newRunning(dir, in)
	go func() {
		if err := cmd.Wait(); err != nil {
			d.opts.Log.Warn("the runner failed", "shard", r.Shard, "run", r.Run, "err", err)
		}
		r.end(true)
		d.slots.Release(1)
	}()
	return r
}

func (r *Running) end(gone bool) {
	r.gone = gone
	r.driver.mu.Lock()
	defer r.driver.mu.Unlock()
	if r.driver.live[r.Shard] == r {
		delete(r.driver.live, r.Shard)
	}
	close(r.done)
}

// Job is what the run was asked to do.
func (r *Running) Job() Job { return r.intent.Job }

// Wait waits for the runner to end and returns its outcome. The same outcome is returned until
// Ack, also after a restart.
func (r *Running) Wait(ctx context.Context) (Outcome, error) {
	select {
	case <-r.done:
	case <-ctx.Done():
		return Outcome{}, fmt.Errorf("waiting for run %s of shard %s, which goes on: %w", r.Run, r.Shard, context.Cause(ctx))
	}
	if !r.gone {
		return Outcome{}, fmt.Errorf("run %s of shard %s goes on: %w", r.Run, r.Shard, ErrClosed)
	}
	r.reading.Lock()
	defer r.reading.Unlock()
	if !r.known {
		if err := r.read(); err != nil {
			return Outcome{}, err
		}
		r.known = true
	}
	return r.out, nil
}

// read takes the result in. A runner that left none has died: the outcome is unknown.
func (r *Running) read() error {
	raw, err := readBounded(r.dir.result())
	if err == nil {
		err = json.Unmarshal(raw, &r.out)
	}
	if err != nil || r.out.Run != r.Run {
		r.out = Outcome{Run: r.Run, Started: r.intent.Created, Ended: time.Now().UTC()}
		r.out.Err = &Fault{Kind: FaultLost, Message: "the runner died without a result", Hint: "its outcome is unknown: plan again"}
		if err := r.dir.markOrphan(r.intent, r.out.Ended); err != nil {
			return err
		}
		r.driver.started.Add(1)
		return nil
	}
	r.driver.count(r.Pool, r.out.Steps)
	return nil
}

// count books the Terraform processes of a runner.
func (d *Driver) count(pool string, steps []Step) {
	d.started.Add(int64(len(steps)))
	if d.opts.OnStep == nil {
		return
	}
	for _, step := range steps {
		d.opts.OnStep(pool, step)
	}
}

// markOrphan remembers that a run died, so that its lock can be told from anybody else's.
func (s shardDir) markOrphan(in intent, now time.Time) error {
	mark := orphan{Run: in.Job.Run, Who: in.Who, Since: in.Created, Until: now}
	var before orphan
	if err := readJSON(s.orphan(), &before); err != nil {
		return err
	}
	if before.Run != "" && before.Since.Before(mark.Since) {
		mark.Since = before.Since // an older lock may still stand
	}
	return writeJSON(s.orphan(), mark)
}

// Orphan is a run that died: its runner is gone and left no result. Its outcome is unknown, so
// that the caller plans the shard again, after an Ack.
type Orphan struct{ Shard, Run, Pool string }

// Recover finds the runs that an earlier process has left: those live or finished, to be waited
// for as if just started, and those that died. Errors: BrokenError, with the others.
func (d *Driver) Recover(_ context.Context) ([]*Running, []Orphan, error) {
	shards, err := d.Shards()
	broken, some := errors.AsType[BrokenError](err)
	if err != nil && !some {
		return nil, nil, err
	}
	if broken == nil {
		broken = BrokenError{}
	}
	var found []*Running
	var orphans []Orphan
	for _, s := range shards {
		running, dead, err := d.recoverShard(s.Shard)
		if err != nil {
			broken[s.Shard] = err
			continue
		}
		if running != nil {
			found = append(found, running)
		}
		if dead != nil {
			orphans = append(orphans, *dead)
		}
	}
	return found, orphans, broken.or()
}

func (d *Driver) recoverShard(name string) (*Running, *Orphan, error) {
	dir := d.shard(name)
	var in intent
	if err := readJSON(dir.intent(), &in); err != nil || in.Job.Run == "" {
		return nil, nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.live[name] != nil {
		return nil, nil, nil // of this very process
	}
	lock, err := dir.tryLock()
	if errors.Is(err, ErrBusy) {
		return d.adopt(dir, in), nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer lock.Close()
	var out struct{ Run string }
	if err := readJSON(dir.result(), &out); err == nil && out.Run == in.Job.Run {
		r := d.newRunning(dir, in)
		delete(d.live, name)
		r.gone = true
		close(r.done)
		return r, nil, nil
	}
	return nil, &Orphan{Shard: name, Run: in.Job.Run, Pool: in.Job.Pool}, dir.markOrphan(in, time.Now().UTC())
}

// adopt watches a live runner that is not our child by its lock. It takes a slot when one is free.
// The caller holds d.mu.
func (d *Driver) adopt(dir shardDir, in intent) *Running {
	r := d.newRunning(dir, in)
	slot := d.slots.TryAcquire(1)
	go func() {
		r.end(r.pollLock(d.ctx))
		if slot {
			d.slots.Release(1)
		}
	}()
	return r
}

// pollLock returns true when the runner has ended, false when the watching has.
func (r *Running) pollLock(ctx context.Context) bool {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if lock, err := r.dir.tryLock(); err == nil {
			lock.Close()
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}

// Ack says that the outcome of a run was taken in for good: it is forgotten, and the shard is free
// for the next run. An unknown run is no error, so that an Ack can be repeated.
func (d *Driver) Ack(shard, run string) error {
	dir := d.shard(shard)
	if !safeName.MatchString(shard) {
		return fmt.Errorf("shard %q: %w", shard, ErrNoShard)
	}
	var in intent
	if err := readJSON(dir.intent(), &in); err != nil || in.Job.Run != run {
		return err
	}
	lock, err := dir.tryLock()
	if err != nil {
		return fmt.Errorf("acknowledging run %s of shard %s: %w", run, shard, err)
	}
	defer lock.Close()
	return cmp.Or(removeIfThere(dir.intent()), removeIfThere(dir.result()))
}

func removeIfThere(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
