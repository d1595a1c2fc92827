package terraform

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestABinaryThatIsNotThereIsSaidWithAHint(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel() // nothing is downloaded
	empty := t.TempDir()
	broken := filepath.Join(empty, "broken")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		ctx  context.Context
		path string
		opts Options
		hint string
	}{
		{"no such file", t.Context(), os.Getenv("PATH"), Options{Binary: "/no/such/terraform"}, "set it to a terraform or tofu that runs"},
		{"a directory", t.Context(), os.Getenv("PATH"), Options{Binary: empty}, "it is a directory"},
		{"one that fails", t.Context(), os.Getenv("PATH"), Options{Binary: broken}, "exit status 3"},
		{"none on PATH, no network", over, empty, Options{}, "install terraform, or configure the path"},
		{"a wrong one on PATH, no network", over, os.Getenv("PATH"), Options{Constraint: "> 900"}, `none on PATH satisfies "> 900"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("PATH", test.path)
			test.opts.StateDir = t.TempDir()
			_, err := New(test.ctx, test.opts)
			if !errors.Is(err, ErrNoBinary) || !strings.Contains(err.Error(), test.hint) {
				t.Error(err)
			}
		})
	}
}

func TestWrongOptionsAndJobsAreRefused(t *testing.T) {
	for fault, opts := range map[string]Options{
		"an absolute path is needed":         {StateDir: "state"},
		"environment variables TF_VAR_x":     {StateDir: t.TempDir(), Env: []string{"TF_VAR_x"}},
		"environment variable \"A=B\"":       {StateDir: t.TempDir(), Env: []string{"A=B"}},
		`"{shard}" in some string`:           {StateDir: t.TempDir(), Backend: json.RawMessage(`{"type":"s3","config":{"key":"x"}}`)},
		`provider mirror "m"`:                {StateDir: t.TempDir(), Mirror: "m"},
		"terraform version constraint \"x\"": {StateDir: t.TempDir(), Constraint: "x"},
	} {
		if _, err := New(t.Context(), opts); err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%q is not in %v", fault, err)
		}
	}
	d := newDriver(t)
	one := map[string]Guest{"a": {}}
	for fault, job := range map[string]Job{
		`shard "../x"`:              {Shard: "../x", Run: "r"},
		`run ""`:                    {Shard: "s"},
		"claimed twice":             {Shard: "s", Run: "r", Guests: one, Create: []string{"a"}, Replace: []string{"a"}},
		"one to create or replace":  {Shard: "s", Run: "r", Create: []string{"a"}},
		"a guest to destroy":        {Shard: "s", Run: "r", Guests: one, Destroy: []string{"a"}},
		"a JSON object is needed":   {Shard: "s", Run: "r", Variables: json.RawMessage(`[]`)},
		`guest "A B"`:               {Shard: "s", Run: "r", Guests: map[string]Guest{"A B": {}}},
		"the job says not where it": {Shard: "s", Run: "r"},
	} {
		if _, err := d.Start(t.Context(), job); err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%q is not in %v", fault, err)
		}
	}
}

func TestADriftCheckPlansAndNeverApplies(t *testing.T) {
	f := newFleet(t, newDriver(t))
	f.must(f.job([]string{"p-1"}, nil, nil))
	job := f.job(nil, nil, nil)
	job.DriftOnly = true
	out := f.must(job)
	if diff := cmp.Diff([]string{"plan ok"}, ops(out)); diff != "" || out.Changed {
		t.Error(diff, out.Changed)
	}
	job.Run, job.Guests = "another", nil
	out = f.must(job)
	if !out.Changed || len(out.Guests) != 1 {
		t.Error("changed:", out.Changed, "guests:", out.Guests)
	}
}

func TestTheDriverCountsAndReportsEachProcess(t *testing.T) {
	var seen []string
	f := newFleet(t, newDriver(t, func(o *Options) {
		o.OnStep = func(pool string, s Step) { seen = append(seen, pool+" "+s.Op+" "+s.Result) }
	}))
	before := f.driver.Started()
	f.must(f.job([]string{"p-1"}, nil, nil))
	if diff := cmp.Diff([]string{"p init ok", "p apply ok"}, seen); diff != "" {
		t.Error(diff)
	}
	if got := f.driver.Started() - before; got != 2 {
		t.Errorf("%d processes", got)
	}
	if _, _, err := f.driver.Inventory(t.Context(), "shard-1"); err != nil || f.driver.Started()-before != 2 {
		t.Error("reading a local state starts no process:", err)
	}
}

func TestConcurrencyIsLimited(t *testing.T) {
	d := newDriver(t, func(o *Options) { o.Concurrency = 1 })
	f := newFleet(t, d)
	reached, free := f.hang("p-1")
	running, err := d.Start(testContext(t), f.job([]string{"p-1"}, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	reached()
	if !d.slots.TryAcquire(1) { // as another run that hangs would
		t.Fatal("a run beside one that may hang finds no place")
	}
	other := f.job(nil, nil, nil)
	other.Shard, other.Guests = "shard-2", nil
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := d.Start(short, other); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a run beyond that was let in: %v", err)
	}
	free()
	if _, err := running.Wait(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if out, err := d.Run(testContext(t), other); err != nil || out.Err != nil {
		t.Error(out.Err, err)
	}
}

func TestAShardsInventoryMetaAndEnd(t *testing.T) {
	f := newFleet(t, newDriver(t))
	d := f.driver
	if _, _, err := d.Inventory(t.Context(), "shard-1"); !errors.Is(err, ErrNoShard) {
		t.Error(err)
	}
	out := f.must(f.job([]string{"p-1", "p-2"}, nil, nil))
	f.flag("fail-p-2")
	f.run(f.job(nil, []string{"p-2"}, nil))

	guests, incarnations, err := d.Inventory(t.Context(), "shard-1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]Output{"p-1": out.Guests["p-1"]}, guests); diff != "" {
		t.Error("the half-made guest is no guest:", diff)
	}
	if diff := cmp.Diff(map[string]int{"p-1": 1, "p-2": 2}, incarnations); diff != "" {
		t.Error("its slot is taken:", diff)
	}

	if err := d.SetMeta("shard-1", json.RawMessage(`{"digest":"x"}`)); err != nil {
		t.Fatal(err)
	}
	if err := d.SetMeta("shard-1", json.RawMessage(`{`)); err == nil {
		t.Error("broken JSON was stored")
	}
	shards, err := d.Shards()
	if diff := cmp.Diff([]Meta{{Shard: "shard-1", JSON: json.RawMessage(`{"digest":"x"}`)}}, shards); diff != "" || err != nil {
		t.Error(diff, err)
	}

	if err := d.Remove(t.Context(), "shard-1"); !errors.Is(err, ErrNotEmpty) {
		t.Error(err)
	}
	f.must(f.job(nil, nil, []string{"p-1", "p-2"}))
	if err := d.Remove(t.Context(), "shard-1"); !errors.Is(err, ErrNotEmpty) { // the shared net is left
		t.Error(err)
	}
}

func TestAnEmptyShardIsRemovedAndItsStatesAreKept(t *testing.T) {
	f := newFleet(t, newDriver(t))
	f.module = variant(t, "resource \"terraform_data\" \"net\" {\n  input = var.pool\n}", "", "net = terraform_data.net.output", "")
	for range 4 {
		f.must(f.job([]string{"p-1"}, nil, nil))
		f.must(f.job(nil, nil, []string{"p-1"}))
	}
	backups, err := os.ReadDir(f.dir().backups())
	if err != nil || len(backups) != keepBackups {
		t.Errorf("%d backups, %v", len(backups), err)
	}
	if err := f.driver.Remove(t.Context(), "shard-1"); err != nil {
		t.Fatal(err)
	}
	archived, err := filepath.Glob(filepath.Join(f.driver.opts.StateDir, "archive", "shard-1-*", "*.tfstate"))
	if err != nil || len(archived) == 0 || exists(string(f.dir())) {
		t.Error(archived, err)
	}
}

func TestStatesMayLiveInAnyBackend(t *testing.T) {
	states := t.TempDir()
	backend, err := json.Marshal(map[string]any{"type": "local", "config": map[string]string{"path": filepath.Join(states, "{shard}.tfstate")}})
	if err != nil {
		t.Fatal(err)
	}
	f := newFleet(t, newDriver(t, func(o *Options) { o.Backend = backend }))
	out := f.must(f.job([]string{"p-1"}, nil, nil))
	if diff := cmp.Diff(map[string]string{"p-1": "p/p-1/1"}, ids(out)); diff != "" {
		t.Error(diff)
	}
	if !exists(filepath.Join(states, "shard-1.tfstate")) || exists(f.dir().state()) {
		t.Error("the state is not in the backend")
	}
	out = f.must(f.job(nil, []string{"p-1"}, nil))
	if out.Guests["p-1"].ID != "p/p-1/2" || slices.Contains(ops(out), "init ok") {
		t.Error(out.Guests, ops(out))
	}
	guests, _, err := f.driver.Inventory(testContext(t), "shard-1")
	if diff := cmp.Diff(out.Guests, guests); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestAPlaceOfTheLogIsBounded(t *testing.T) {
	var got strings.Builder
	w := boundedWriter{w: &got, left: 10}
	for _, text := range []string{"123456", "7890a", "7890"} {
		if n, err := w.Write([]byte(text)); n != len(text) || err != nil {
			t.Error(n, err)
		}
	}
	if got.String() != "1234567890" {
		t.Error(got.String())
	}
}
