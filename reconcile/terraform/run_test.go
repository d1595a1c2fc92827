package terraform

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func ids(out Outcome) map[string]string {
	got := map[string]string{}
	for name, g := range out.Guests {
		got[name] = g.ID
	}
	return got
}

func ops(out Outcome) []string {
	var got []string
	for _, s := range out.Steps {
		got = append(got, s.Op+" "+s.Result)
	}
	return got
}

func TestGuestsAreCreatedReplacedAndDestroyed(t *testing.T) {
	f := newFleet(t, newDriver(t))

	out := f.must(f.job([]string{"p-1", "p-2"}, nil, nil))
	if diff := cmp.Diff(map[string]string{"p-1": "p/p-1/1", "p-2": "p/p-2/1"}, ids(out)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"init ok", "apply ok"}, ops(out)); diff != "" {
		t.Error("the first run:", diff)
	}

	out = f.must(f.job(nil, nil, nil))
	if diff := cmp.Diff([]string{"plan ok"}, ops(out)); diff != "" || out.Changed {
		t.Error("a run without changes neither inits nor applies:", diff, out.Changed)
	}

	out = f.must(f.job(nil, []string{"p-2"}, nil))
	if diff := cmp.Diff(map[string]string{"p-1": "p/p-1/1", "p-2": "p/p-2/2"}, ids(out)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]int{"p-1": 1, "p-2": 2}, out.Incarnations); diff != "" {
		t.Error(diff)
	}

	out = f.must(f.job([]string{"p-3"}, nil, []string{"p-1"}))
	if diff := cmp.Diff(map[string]string{"p-2": "p/p-2/2", "p-3": "p/p-3/1"}, ids(out)); diff != "" {
		t.Error(diff)
	}

	out = f.must(f.job(nil, nil, []string{"p-2", "p-3"}))
	if len(out.Guests)+len(out.Incarnations)+len(out.Failed) != 0 {
		t.Errorf("guests left: %v %v %v", out.Guests, out.Incarnations, out.Failed)
	}
}

func TestTheShardsOfAModuleWithoutProvidersInitializeOnce(t *testing.T) {
	f := newFleet(t, newDriver(t))
	f.must(f.job([]string{"p-1"}, nil, nil))
	other := func(create ...string) Job {
		job := f.job(nil, nil, nil)
		job.Shard, job.Guests, job.Create = "shard-2", map[string]Guest{"p-2": {Incarnation: 1}}, create
		return job
	}

	out := f.must(other("p-2"))
	if diff := cmp.Diff([]string{"apply ok"}, ops(out)); diff != "" {
		t.Error("another shard:", diff)
	}

	list := filepath.Join(f.driver.shard("shard-2").work(), moduleList)
	if err := os.Remove(list); err != nil {
		t.Fatal(err)
	}
	if out := f.run(other()); kindOf(out) != FaultPlan {
		t.Errorf("in a damaged work directory: %v", out.Err)
	}
	if diff := cmp.Diff([]string{"init ok", "plan ok"}, ops(f.must(other()))); diff != "" {
		t.Error("after that:", diff)
	}
}

func TestAFailedGuestDoesNotHideTheHealthyOnes(t *testing.T) {
	f := newFleet(t, newDriver(t))
	f.must(f.job([]string{"p-1"}, nil, nil))
	f.flag("fail-p-3")

	out := f.run(f.job([]string{"p-2", "p-3"}, nil, nil))

	if kindOf(out) != FaultApply || out.Err.Stalled() {
		t.Errorf("fault %v", out.Err)
	}
	if diff := cmp.Diff([]string{"p-1", "p-2"}, slices.Sorted(maps.Keys(out.Guests))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"p-3"}, slices.Sorted(maps.Keys(out.Failed))); diff != "" {
		t.Error(diff)
	}

	out = f.run(f.job([]string{"p-4"}, nil, nil))
	if kindOf(out) != FaultGuard {
		t.Errorf("a half-made guest that nobody claimed must stop the plan: %v", out.Err)
	}
	f.unflag("fail-p-3")
	delete(f.guests, "p-4")
	out = f.must(f.job([]string{"p-4"}, []string{"p-3"}, nil))
	if diff := cmp.Diff([]string{"p-1", "p-2", "p-3", "p-4"}, slices.Sorted(maps.Keys(out.Guests))); diff != "" {
		t.Error(diff)
	}
}
