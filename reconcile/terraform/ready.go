package terraform

import (
	"errors"
	"io"
	"os"
	"os/exec"
)

// waitsFor is the variable by which a runner knows that its intent comes later: when its standard input ends.
const waitsFor = "GREENROOM_RUNNER_WAITS"

// Ready is a runner that has come up, holding the lock of its shard, before it is known what it shall do. That takes as long as it takes
// to claim the guests.
type Ready struct {
	shard string
	cmd   *exec.Cmd
	lock  *os.File
	gate  io.Closer
}

// Prepare starts the runner of a run that is about to be started, if it can: not in a shard that was removed. Start takes it over; Dismiss
// ends it otherwise, and does nothing when it was taken over.
func (d *Driver) Prepare(shard string) *Ready {
	dir := d.shard(shard)
	d.mu.Lock()
	defer d.mu.Unlock()
	if !safeName.MatchString(shard) || d.closed || d.ready[shard] != nil {
		return nil
	}
	lock, err := d.lockIdle(dir)
	if err != nil {
		return nil
	}
	end, gate, err := os.Pipe()
	if err != nil {
		lock.Close()
		return nil
	}
	defer end.Close() // the runner has it
	r := &Ready{shard: shard, lock: lock, gate: gate, cmd: d.runner(intent{Crowded: d.crowded()}, dir)}
	r.cmd.Env, r.cmd.Stdin = append(r.cmd.Env, waitsFor+"=1"), end
	if err := d.spawn(r.cmd, dir, lock); err != nil {
		gate.Close()
		lock.Close()
		return nil
	}
	d.ready[shard] = r
	return r
}

// take returns the runner that waits for a job of the shard, or nil. The caller holds d.mu.
func (d *Driver) take(shard string) *Ready {
	r := d.ready[shard]
	delete(d.ready, shard)
	return r
}

// Dismiss ends a runner that no run was started with, and frees its shard.
func (d *Driver) Dismiss(r *Ready) {
	if r == nil {
		return
	}
	d.mu.Lock()
	waiting := d.ready[r.shard] == r
	if waiting {
		delete(d.ready, r.shard)
	}
	d.mu.Unlock()
	if waiting {
		r.gate.Close() // and it finds no intent
		_ = r.cmd.Wait()
		r.lock.Close()
	}
}

// lockIdle takes the lock of a shard that has no run, nor an outcome that was not acknowledged.
func (d *Driver) lockIdle(dir shardDir) (*os.File, error) {
	lock, err := dir.tryLock()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir.intent()); err == nil {
		lock.Close()
		return nil, ErrBusy
	}
	return lock, nil
}

// awaitIntent waits, in a runner that was started ahead, until there is an intent; false: there is none to come.
func awaitIntent(dir shardDir) bool {
	if os.Getenv(waitsFor) == "" {
		return true
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // it ends with the daemon at the latest
	_, err := os.Stat(dir.intent())
	return !errors.Is(err, os.ErrNotExist)
}
