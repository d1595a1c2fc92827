package terraform

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestOnlyAShardInWhichNothingCanBeTouchedIsAppliedAtOnce(t *testing.T) {
	made := stateResource{Mode: "managed", Type: "x", Name: "g", Instances: []stateInstance{{Key: json.RawMessage(`"p-1"`)}}}
	for name, test := range map[string]struct {
		change func(*run, *state)
		want   bool
	}{
		"a new one":                          {func(*run, *state) {}, true},
		"one that was emptied":               {func(_ *run, s *state) { s.Lineage, s.Serial = "l", 7 }, true},
		"with a resource":                    {func(_ *run, s *state) { s.Resources = append(s.Resources, made) }, false},
		"with something that was read":       {func(_ *run, s *state) { s.Resources = []stateResource{{Mode: "data"}} }, false},
		"with a guest in its output":         {func(_ *run, s *state) { s.Outputs = stateOutputs{"guests": {Value: json.RawMessage(`{"p-9":{}}`)}} }, false},
		"with a guest that was applied once": {func(r *run, _ *state) { r.applied["p-9"] = 1 }, false},
		"with a guest that nobody claims":    {func(r *run, _ *state) { r.in.Job.Guests["p-3"] = Guest{} }, false},
		"with a guest to be replaced":        {func(r *run, _ *state) { r.in.Job.Create, r.in.Job.Replace = []string{"p-1"}, []string{"p-2"} }, false},
		"with a guest to be destroyed":       {func(r *run, _ *state) { r.in.Job.Destroy = []string{"p-4"} }, false},
		"that nobody wants anything of":      {func(r *run, _ *state) { r.in.Job.Guests, r.in.Job.Create = nil, nil }, false},
		"that is only looked at":             {func(r *run, _ *state) { r.in.Job.DriftOnly = true }, false},
		"whose state is elsewhere":           {func(r *run, _ *state) { r.in.Backend = json.RawMessage(`{"type":"http"}`) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			r, st := &run{applied: map[string]int{}}, &state{}
			r.in.Job = Job{Guests: map[string]Guest{"p-1": {}, "p-2": {}}, Create: []string{"p-2", "p-1"}}
			test.change(r, st)
			if got := r.blank(st, r.names(st)); got != test.want {
				t.Error(got)
			}
		})
	}
}

func TestOneGuestOfManyThatFailsInAnEmptyShardHidesNoOther(t *testing.T) {
	f := newFleet(t, newDriver(t))
	f.flag("fail-p-7")
	var all []string
	for n := range 25 {
		all = append(all, fmt.Sprintf("p-%d", n+1))
	}

	out := f.run(f.job(all, nil, nil))

	if kindOf(out) != FaultApply || out.Err.Stalled() || !out.Changed {
		t.Errorf("fault %v, changed %v", out.Err, out.Changed)
	}
	if !strings.Contains(out.Failed["p-7"], "local-exec") || len(out.Failed) != 1 {
		t.Errorf("failed: %v", out.Failed)
	}
	healthy := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return name == "p-7" })
	if diff := cmp.Diff(slices.Sorted(slices.Values(healthy)), slices.Sorted(maps.Keys(out.Guests))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"init ok", "apply failed", "plan ok", "apply ok"}, ops(out)); diff != "" {
		t.Error(diff)
	}
	f.unflag("fail-p-7")
	if out = f.must(f.job(nil, []string{"p-7"}, nil)); len(out.Guests) != 25 || out.Incarnations["p-7"] != 2 {
		t.Errorf("after the next run: %d guests, %v", len(out.Guests), out.Incarnations)
	}
}

// halfWay starts a run of an empty shard and returns when one of its two guests is made and the other is being made.
func (f *fleet) halfWay() (running *Running, job Job, free func()) {
	f.t.Helper()
	reached, free := f.hang("p-2")
	job = f.job([]string{"p-1", "p-2"}, nil, nil)
	running, err := f.driver.Start(testContext(f.t), job)
	if err != nil {
		f.t.Fatal(err)
	}
	reached()
	eventually(f.t, "p-1 in the state", func() bool {
		raw, err := readBounded(f.dir().state())
		if err != nil {
			return false
		}
		st, err := parseState(raw)
		return err == nil && slices.ContainsFunc(st.instances(), func(i instance) bool { return strings.Contains(i.address, `"p-1"`) && !i.tainted })
	})
	return running, job, free
}

func TestAnInterruptedRunOfAnEmptyShardTellsNoHalfMadeGuestAndIsMended(t *testing.T) {
	f := newFleet(t, newDriver(t))
	running, job, free := f.halfWay()
	if err := running.Interrupt(); err != nil {
		t.Fatal(err)
	}
	out, err := running.Wait(testContext(t))
	if err != nil || kindOf(out) != FaultInterrupted {
		t.Fatal(out.Err, err)
	}
	if _, there := out.Guests["p-2"]; there || out.Failed["p-2"] == "" || out.Incarnations["p-2"] != 1 {
		t.Errorf("guests %v, failed %v, incarnations %v", ids(out), out.Failed, out.Incarnations)
	}
	if err := f.driver.Ack(job.Shard, job.Run); err != nil {
		t.Fatal(err)
	}
	free()
	out = f.must(f.job(nil, []string{"p-1", "p-2"}, nil))
	if diff := cmp.Diff(map[string]string{"p-1": "p/p-1/2", "p-2": "p/p-2/2"}, ids(out)); diff != "" {
		t.Error(diff)
	}
}

func TestTheShardOfARunnerKilledAtItsFirstApplyIsPlanned(t *testing.T) {
	f := newFleet(t, newDriver(t))
	running, job, free := f.halfWay()
	if err := running.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if out, err := running.Wait(testContext(t)); err != nil || kindOf(out) != FaultLost {
		t.Fatal(out.Err, err)
	}
	if err := f.driver.Ack(job.Shard, job.Run); err != nil {
		t.Fatal(err)
	}
	free()
	job.Run = "again" // the guests are claimed still
	out := f.must(job)
	if diff := cmp.Diff(map[string]string{"p-1": "p/p-1/1", "p-2": "p/p-2/1"}, ids(out)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"plan ok", "apply ok"}, ops(out)); diff != "" {
		t.Error("what is there is planned and guarded:", diff)
	}
	if made, err := os.ReadFile(filepath.Join(f.flags, "made-p-1")); err != nil || string(made) != "p-1\n" {
		t.Errorf("a guest that was made is not made again: %q %v", made, err)
	}
}

func TestAnEmptyShardThatDoesNotPlanFailsAsAPlan(t *testing.T) {
	f := newFleet(t, newDriver(t))
	f.module = variant(t, `output "guests" {`, `output "guests" {
  precondition {
    condition     = var.pool == "another"
    error_message = "not this pool"
  }`)
	out := f.run(f.job([]string{"p-1"}, nil, nil))
	if kindOf(out) != FaultPlan || !strings.Contains(out.Err.Message, "not this pool") || out.Changed || len(out.Failed)+len(out.Incarnations) != 0 {
		t.Errorf("%v, changed %v, failed %v, incarnations %v", out.Err, out.Changed, out.Failed, out.Incarnations)
	}
	if exists(filepath.Join(f.flags, "made-p-1")) {
		t.Error("a guest was made")
	}
}

func TestWhatTheGuardWouldHaveRefusedInAnEmptyShardStopsIt(t *testing.T) {
	for name, test := range map[string]struct{ body, message string }{
		"a deletion":           {`change delete p-1; summary 0 1; state 1 p-1`, "nothing that it could be done to"},
		"an unknown action":    {`change create p-1; change conjure p-1; summary 1 0; state 1 p-1`, "does not know"},
		"a change not told":    {`change create p-1; summary 2 0; state 1 p-1`, "not known whole"},
		"no plan at all":       {`state 1 p-1`, "not known whole"},
		"a failed one as well": {`change delete p-1; summary 0 1; hook apply_start delete p-1; state 1 p-1; exit 1`, "nothing that it could be done to"},
	} {
		t.Run(name, func(t *testing.T) {
			d, dir := fakeTerraform(t, `case "$*" in plan*) summary 0 0 ;; apply*approve) `+test.body+` ;; esac`)
			if err := os.WriteFile(filepath.Join(dir, "blank"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			f := newFleet(t, d)
			out := f.run(f.job([]string{"p-1"}, nil, nil))
			if kindOf(out) != FaultGuard || !out.Err.Stalled() || !strings.Contains(out.Err.Message, test.message) {
				t.Error(out.Err)
			}
		})
	}
}

func TestALockOnAnEmptyShardIsBrokenOnlyWhenItIsThatOfOurOwnDeadRun(t *testing.T) {
	for name, test := range map[string]struct {
		who, kind string
		calls     []string
	}{
		"ours":       {whoami(), "", []string{"init", "apply", "force-unlock", "apply"}},
		"of another": {"eve@elsewhere", FaultLocked, []string{"init", "apply"}},
	} {
		t.Run(name, func(t *testing.T) {
			created := time.Now().UTC()
			d, dir := fakeTerraform(t, fmt.Sprintf(`
[ "$1" = force-unlock ] && { touch "$DIR/unlocked"; exit 0; }
[ -e "$DIR/unlocked" ] && { change create p-1; summary 1 0; state 1 p-1; exit 0; }
WHO=%q; CREATED=%q
`, test.who, created.String())+lockDiagnostic)
			if err := os.WriteFile(filepath.Join(dir, "blank"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			f := newFleet(t, d)
			job := f.job([]string{"p-1"}, nil, nil)
			if err := os.MkdirAll(string(f.dir()), 0o700); err != nil {
				t.Fatal(err)
			}
			dead := orphan{Run: "dead", Who: whoami(), Since: created.Add(-time.Hour), Until: created.Add(time.Hour)}
			if err := writeJSON(f.dir().orphan(), dead); err != nil {
				t.Fatal(err)
			}
			if out := f.run(job); kindOf(out) != test.kind {
				t.Error(out.Err)
			}
			if diff := cmp.Diff(test.calls, calls(t, dir)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
