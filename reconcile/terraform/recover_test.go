package terraform

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// hang makes the creation of a guest hang until the returned function is called, and reached wait
// for the moment when it does.
func (f *fleet) hang(guest string) (reached, free func()) {
	f.flag("hang-" + guest)
	reached = func() {
		f.t.Helper()
		eventually(f.t, "the apply of "+guest, func() bool { return exists(filepath.Join(f.flags, "made-"+guest)) })
	}
	return reached, func() { f.unflag("hang-" + guest) }
}

func TestARunOutlivesTheDaemonAndIsFoundAgain(t *testing.T) {
	d := newDriver(t)
	f := newFleet(t, d)
	reached, free := f.hang("p-1")
	job := f.job([]string{"p-1"}, nil, nil)
	module, err := filepath.Abs(f.module)
	if err != nil {
		t.Fatal(err)
	}
	order := filepath.Join(t.TempDir(), "order.json")
	if err := writeJSON(order, daemonJob{StateDir: d.opts.StateDir, ModuleDir: module, Job: job}); err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command(os.Args[0], "daemon", order)
	daemon.Stderr = os.Stderr
	daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	reached()
	if err := syscall.Kill(-daemon.Process.Pid, syscall.SIGKILL); err != nil { // it, and its group
		t.Fatal(err)
	}
	_ = daemon.Wait() // it was killed

	running, orphans, err := d.Recover(testContext(t))
	if err != nil || len(running) != 1 || len(orphans) != 0 {
		t.Fatal(running, orphans, err)
	}
	if _, err := d.Start(testContext(t), f.job(nil, nil, nil)); !errors.Is(err, ErrBusy) {
		t.Errorf("a second run was started beside it: %v", err)
	}
	if _, _, err := d.Inventory(testContext(t), "shard-1"); !errors.Is(err, ErrBusy) {
		t.Errorf("a state was read under a live run: %v", err)
	}
	free()
	out, err := running[0].Wait(testContext(t))
	if err != nil || out.Err != nil {
		t.Fatal(out.Err, err)
	}
	if diff := cmp.Diff(map[string]string{"p-1": "p/p-1/1"}, ids(out)); diff != "" {
		t.Error(diff)
	}

	again, _, err := d.Recover(testContext(t))
	if err != nil || len(again) != 1 {
		t.Fatal("an outcome that was not acknowledged is replayed:", again, err)
	}
	if replay, err := again[0].Wait(testContext(t)); err != nil || !cmp.Equal(out, replay) {
		t.Error(cmp.Diff(out, replay), err)
	}
	if err := d.Ack(job.Shard, job.Run); err != nil {
		t.Fatal(err)
	}
	if again, orphans, err := d.Recover(testContext(t)); err != nil || len(again)+len(orphans) != 0 {
		t.Error("an acknowledged run came back:", again, orphans, err)
	}
}

func TestAGuestThatOutlivesItsRunHoldsNoLock(t *testing.T) {
	f := newFleet(t, newDriver(t))
	f.module = variant(t, `echo "$GUEST" >>`, `setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > "$FLAGS/pid"; echo "$GUEST" >>`)
	f.must(f.job([]string{"p-1"}, nil, nil))
	raw, err := os.ReadFile(filepath.Join(f.flags, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGKILL)
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatal("the guest has not outlived the run:", err)
	}
	f.must(f.job(nil, nil, nil))
}

func TestARunWhoseRunnerIsKilledIsLostAndPlannedAgain(t *testing.T) {
	d := newDriver(t)
	f := newFleet(t, d)
	reached, free := f.hang("p-1")
	job := f.job([]string{"p-1"}, nil, nil)
	running, err := d.Start(testContext(t), job)
	if err != nil {
		t.Fatal(err)
	}
	reached()
	if err := running.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	out, err := running.Wait(testContext(t))
	if err != nil || kindOf(out) != FaultLost || out.Err.Stalled() {
		t.Fatal(out.Err, err)
	}
	_, orphans, err := d.Recover(testContext(t))
	if diff := cmp.Diff([]Orphan{{Shard: "shard-1", Run: job.Run, Pool: "p"}}, orphans); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if err := d.Ack(job.Shard, job.Run); err != nil {
		t.Fatal(err)
	}
	free()
	delete(f.guests, "p-1")
	out = f.must(f.job([]string{"p-1"}, nil, nil))
	if diff := cmp.Diff(map[string]string{"p-1": "p/p-1/1"}, ids(out)); diff != "" {
		t.Error(diff)
	}
	if exists(f.dir().orphan()) {
		t.Error("the orphan is remembered after a good run")
	}
}

func TestShutdownInterruptsOnceAndTheNextRunMends(t *testing.T) {
	d := newDriver(t)
	f := newFleet(t, d)
	f.must(f.job([]string{"p-1"}, nil, nil))
	reached, free := f.hang("p-2")
	job := f.job([]string{"p-2"}, nil, nil)
	running, err := d.Start(testContext(t), job)
	if err != nil {
		t.Fatal(err)
	}
	reached()
	if err := d.Shutdown(testContext(t), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Start(testContext(t), job); !errors.Is(err, ErrClosed) && !errors.Is(err, ErrBusy) {
		t.Errorf("a run was started after the shutdown: %v", err)
	}
	out, err := running.Wait(testContext(t))
	if err != nil || kindOf(out) != FaultInterrupted {
		t.Fatal(out.Err, err)
	}
	if diff := cmp.Diff(map[string]string{"p-1": "p/p-1/1"}, ids(out)); diff != "" {
		t.Error("the healthy guest stays known:", diff)
	}
	if _, failed := out.Failed["p-2"]; !failed {
		t.Errorf("failed: %v", out.Failed)
	}
	free()

	f.driver = newDriver(t, func(o *Options) { o.StateDir = d.opts.StateDir })
	if err := f.driver.Ack(job.Shard, job.Run); err != nil {
		t.Fatal(err)
	}
	out = f.must(f.job(nil, []string{"p-2"}, nil))
	if diff := cmp.Diff(map[string]string{"p-1": "p/p-1/1", "p-2": "p/p-2/2"}, ids(out)); diff != "" {
		t.Error(diff)
	}
}

func TestAReplacedGuestIsNotTakenForItsPredecessor(t *testing.T) {
	f := newFleet(t, newDriver(t))
	f.must(f.job([]string{"p-1", "p-2", "p-3"}, nil, nil))
	if err := os.Remove(filepath.Join(f.flags, "made-p-2")); err != nil {
		t.Fatal(err)
	}
	reached, free := f.hang("p-2")
	job := f.job(nil, []string{"p-1", "p-2"}, nil)
	running, err := f.driver.Start(testContext(t), job)
	if err != nil {
		t.Fatal(err)
	}
	reached()
	eventually(t, "the end of p-1", func() bool {
		raw, err := os.ReadFile(filepath.Join(f.flags, "made-p-1"))
		return err == nil && strings.Count(string(raw), "p-1") == 2
	})
	if err := running.Interrupt(); err != nil {
		t.Fatal(err)
	}
	out, err := running.Wait(testContext(t))
	if err != nil || kindOf(out) != FaultInterrupted {
		t.Fatal(out.Err, err)
	}
	want := map[string]string{"p-3": "p/p-3/1"}
	if diff := cmp.Diff(want, ids(out)); diff != "" {
		t.Error("the state's output is of the old machines:", diff)
	}
	if err := f.driver.Ack(job.Shard, job.Run); err != nil {
		t.Fatal(err)
	}
	guests, incarnations, err := f.driver.Inventory(testContext(t), "shard-1")
	if diff := cmp.Diff(want, ids(Outcome{Guests: guests})); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if diff := cmp.Diff(map[string]int{"p-1": 2, "p-2": 2, "p-3": 1}, incarnations); diff != "" {
		t.Error(diff)
	}
	free()
	drift := f.job(nil, nil, nil)
	drift.DriftOnly = true
	if diff := cmp.Diff(want, ids(f.must(drift))); diff != "" {
		t.Error("a plan alone does not settle the outputs:", diff)
	}
	out = f.must(f.job(nil, []string{"p-2"}, nil))
	if diff := cmp.Diff(map[string]string{"p-1": "p/p-1/2", "p-2": "p/p-2/3", "p-3": "p/p-3/1"}, ids(out)); diff != "" {
		t.Error(diff)
	}
}

func TestDetachLeavesTheRunnersToThemselves(t *testing.T) {
	d := newDriver(t)
	f := newFleet(t, d)
	reached, free := f.hang("p-1")
	job := f.job([]string{"p-1"}, nil, nil)
	if _, err := d.Start(testContext(t), job); err != nil {
		t.Fatal(err)
	}
	reached()
	d.Detach()
	free()
	next := newDriver(t, func(o *Options) { o.StateDir = d.opts.StateDir })
	running, _, err := next.Recover(testContext(t))
	if err != nil || len(running) != 1 {
		t.Fatal(running, err)
	}
	if out, err := running[0].Wait(testContext(t)); err != nil || out.Err != nil {
		t.Error(out.Err, err)
	}
}

// editState rewrites the shard's state as an outsider would.
func (f *fleet) editState(pairs ...string) {
	f.t.Helper()
	raw, err := os.ReadFile(f.dir().state())
	if err != nil {
		f.t.Fatal(err)
	}
	text := strings.NewReplacer(pairs...).Replace(string(raw))
	if text == string(raw) {
		f.t.Fatal("nothing to edit")
	}
	if err := os.WriteFile(f.dir().state(), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func TestTheOutputOfAnEarlierRootIsReadAndReplaced(t *testing.T) {
	f := newFleet(t, newDriver(t))
	want := ids(f.must(f.job([]string{"p-1", "p-2"}, nil, nil)))
	root := filepath.Join(f.dir().work(), "main.tf.json")
	text, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	earlier := strings.Replace(string(text), "jsonencode(module.guests.guests)", "module.guests.guests", 1)
	if err := os.WriteFile(root, []byte(earlier), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(testContext(t), "terraform", "apply", "-input=false", "-auto-approve")
	cmd.Env = append(os.Environ(), "CHECKPOINT_DISABLE=1", "TF_CLI_CONFIG_FILE="+filepath.Join(f.dir().work(), "cli.tfrc"))
	if cmd.Dir = f.dir().work(); earlier == string(text) {
		t.Fatal("the root has no text to replace")
	}
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	look := f.job(nil, nil, nil)
	look.DriftOnly = true
	if diff := cmp.Diff(want, ids(f.must(look))); diff != "" {
		t.Error("the map itself is not read:", diff)
	}
	out := f.must(f.job(nil, []string{"p-2"}, nil))
	if now := ids(out); now["p-1"] != want["p-1"] || now["p-2"] == want["p-2"] {
		t.Errorf("were %v, are %v", want, now)
	}
	f.editState(`"type": "string"`, `"type": "number"`) // the output is a text now
}

func TestAStateThatIsNotTheShardsOwnStopsIt(t *testing.T) {
	f := newFleet(t, newDriver(t))
	f.must(f.job([]string{"p-1"}, nil, nil))
	good, err := os.ReadFile(f.dir().state())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		damage  func()
		message string
	}{
		{"another lineage", func() { f.editState(`"lineage": "`, `"lineage": "0`) }, "lineage"},
		{"an older serial", func() { f.editState(`"serial": `, `"serial": -`) }, "went back"},
		{"no state", func() { _ = os.Remove(f.dir().state()) }, "the state is gone"},
		{"no JSON", func() { f.editState("{", "[") }, "can't be read"},
		{"another format", func() { f.editState(`"version": 4`, `"version": 5`) }, "format 5"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.damage()
			out := f.run(f.job(nil, nil, nil))
			if kindOf(out) != FaultState || !out.Err.Stalled() || !strings.Contains(out.Err.Message, test.message) {
				t.Error(out.Err)
			}
			if len(out.Guests) != 0 {
				t.Error("guests were told on the word of a foreign state")
			}
			if _, _, err := f.driver.Inventory(testContext(t), "shard-1"); err == nil {
				t.Error("an inventory was made of it")
			}
			if err := os.WriteFile(f.dir().state(), good, 0o600); err != nil {
				t.Fatal(err)
			}
		})
	}
	f.must(f.job(nil, nil, nil))
}

func TestAStateThatCouldNotBeWrittenIsPushedBeforeAPlan(t *testing.T) {
	f := newFleet(t, newDriver(t))
	f.must(f.job([]string{"p-1"}, nil, nil))
	old, err := os.ReadFile(f.dir().state())
	if err != nil {
		t.Fatal(err)
	}
	f.must(f.job([]string{"p-2"}, nil, nil))
	errored := filepath.Join(f.dir().work(), erroredFile)
	if err := os.Rename(f.dir().state(), errored); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.dir().state(), old, 0o600); err != nil {
		t.Fatal(err)
	}

	out := f.must(f.job(nil, nil, nil))

	if diff := cmp.Diff([]string{"push ok", "plan ok"}, ops(out)); diff != "" || out.Changed {
		t.Error(diff, out.Changed)
	}
	if diff := cmp.Diff([]string{"p-1", "p-2"}, slices.Sorted(maps.Keys(out.Guests))); diff != "" {
		t.Error(diff)
	}

	foreign := strings.Replace(string(old), `"lineage": "`, `"lineage": "0`, 1)
	if err := os.WriteFile(errored, []byte(foreign), 0o600); err != nil {
		t.Fatal(err)
	}
	out = f.run(f.job(nil, nil, nil))
	if kindOf(out) != FaultState || !exists(errored) {
		t.Errorf("a state that can't be pushed stops the shard: %v", out.Err)
	}
	if diff := cmp.Diff([]string{"push failed"}, ops(out)); diff != "" {
		t.Error("nothing is planned before:", diff)
	}
}

func TestADeadRunIsRememberedBeforeItsOutcomeIsTold(t *testing.T) {
	f := newFleet(t, newDriver(t))
	f.must(f.job([]string{"p-1"}, nil, nil))
	reached, free := f.hang("p-2")
	defer free()
	running, err := f.driver.Start(testContext(t), f.job([]string{"p-2"}, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	reached()
	if err := os.Mkdir(f.dir().orphan(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := running.kill(); err != nil {
		t.Fatal(err)
	}
	if out, err := running.Wait(testContext(t)); err == nil {
		t.Errorf("its lock would never be broken: %+v", out)
	}
	if err := os.Remove(f.dir().orphan()); err != nil {
		t.Fatal(err)
	}
	if out, err := running.Wait(testContext(t)); err != nil || kindOf(out) != FaultLost || !exists(f.dir().orphan()) {
		t.Errorf("%+v, %v", out, err)
	}
}
