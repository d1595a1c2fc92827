package terraform

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// prepare has a runner of the fleet's shard come up.
func (f *fleet) prepare() *Ready {
	f.t.Helper()
	if err := os.MkdirAll(string(f.dir()), 0o700); err != nil {
		f.t.Fatal(err)
	}
	ready := f.driver.Prepare("shard-1")
	if ready == nil {
		f.t.Fatal("no runner has come up")
	}
	return ready
}

func TestARunnerThatHasComeUpTakesTheNextRun(t *testing.T) {
	f := newFleet(t, newDriver(t))
	ready := f.prepare()
	if f.driver.Prepare("shard-1") != nil {
		t.Error("a second runner came up for one run")
	}
	running, err := f.driver.Start(testContext(t), f.job([]string{"p-1"}, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := f.dir().holder(); err != nil || pid != ready.cmd.Process.Pid {
		t.Errorf("the run is carried out by %d, not by %d: %v", pid, ready.cmd.Process.Pid, err)
	}
	out, err := running.Wait(testContext(t))
	if err != nil || out.Err != nil {
		t.Fatal(out.Err, err)
	}
	if diff := cmp.Diff(map[string]string{"p-1": "p/p-1/1"}, ids(out)); diff != "" {
		t.Error(diff)
	}
	f.driver.Dismiss(ready) // it is no more
	if f.driver.Prepare("shard-1") != nil {
		t.Error("a runner came up for a shard whose outcome was not acknowledged")
	}
}

func TestARunnerWithoutARunLeavesTheShardAsItWas(t *testing.T) {
	f := newFleet(t, newDriver(t))
	f.must(f.job([]string{"p-1"}, nil, nil))
	ready := f.prepare()
	if _, _, err := f.driver.Inventory(testContext(t), "shard-1"); !errors.Is(err, ErrBusy) {
		t.Errorf("it holds the lock of its shard: %v", err)
	}
	f.driver.Dismiss(ready)
	f.driver.Dismiss(ready)
	if running, orphans, err := f.driver.Recover(testContext(t)); err != nil || len(running)+len(orphans) > 0 {
		t.Error("it left a run behind:", running, orphans, err)
	}
	if guests, _, err := f.driver.Inventory(testContext(t), "shard-1"); err != nil || !slices.Equal([]string{"p-1"}, slices.Collect(maps.Keys(guests))) {
		t.Error(guests, err)
	}
	f.must(f.job([]string{"p-2"}, nil, nil))
}

func TestNoRunnerComesUpForAShardThatIsGoneOrWhenTheDriverIs(t *testing.T) {
	d := newDriver(t)
	f := newFleet(t, d)
	if d.Prepare("shard-1") != nil || exists(string(f.dir())) {
		t.Error("the directory of a shard that was removed is there again")
	}
	d.Dismiss(nil)
	if err := os.MkdirAll(string(f.dir()), 0o700); err != nil {
		t.Fatal(err)
	}
	d.Detach()
	if d.Prepare("shard-1") != nil {
		t.Error("a runner came up for a driver that takes no runs")
	}
}

func TestARunnerThatDiedBeforeItsRunIsARunThatWasLost(t *testing.T) {
	f := newFleet(t, newDriver(t))
	ready := f.prepare()
	if err := ready.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	job := f.job([]string{"p-1"}, nil, nil)
	if out := f.run(job); kindOf(out) != FaultLost {
		t.Error(out.Err)
	}
	job.Run = "again"
	f.must(job)
}

func TestARunnerWhoseDaemonDiedGoesOnWithItsIntentOrNotAtAll(t *testing.T) {
	for name, ordered := range map[string]bool{"with an intent": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, newDriver(t))
			f.must(f.job(nil, nil, nil))
			ready := f.prepare()
			job := f.job([]string{"p-1"}, nil, nil)
			job.Module = Module{Digest: func() string {
				raw, err := os.ReadFile(filepath.Join(f.dir().work(), "module.digest"))
				if err != nil {
					t.Fatal(err)
				}
				return string(raw)
			}()}
			if ordered {
				if err := f.driver.order(f.dir(), f.driver.newIntent(job)); err != nil {
					t.Fatal(err)
				}
			}
			f.driver.Dismiss(ready) // the end of its standard input is all that it sees of the daemon's
			running, orphans, err := f.driver.Recover(testContext(t))
			if err != nil || len(orphans) > 0 || (len(running) == 1) != ordered {
				t.Fatal(running, orphans, err)
			}
			if !ordered {
				return
			}
			if out, err := running[0].Wait(testContext(t)); err != nil || out.Err != nil || len(out.Guests) != 1 {
				t.Error(out.Guests, out.Err, err)
			}
		})
	}
}

func TestARunnerThatCannotComeUpLeavesNoFileOpen(t *testing.T) {
	f := newFleet(t, newDriver(t))
	f.must(f.job([]string{"p-1"}, nil, nil))
	log := f.dir().log()
	if err := errors.Join(os.Remove(log), os.Mkdir(log, 0o700)); err != nil {
		t.Fatal(err)
	}
	open := func() int {
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	before := open()
	for range 20 {
		if f.driver.Prepare("shard-1") != nil {
			t.Fatal("a runner came up without a log")
		}
	}
	if now := open(); now > before+10 {
		t.Errorf("%d files were open before, %d are now", before, now)
	}
}
