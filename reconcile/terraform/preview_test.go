package terraform

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"greenroom/modules"
	"greenroom/reconcile/plan"
)

// tree is every file below a directory with its content, mode and time.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		raw := []byte{}
		if info.Mode().IsRegular() {
			if raw, err = os.ReadFile(file); err != nil {
				return err
			}
		}
		all[file] = fmt.Sprintf("%s %s %x", info.Mode(), info.ModTime(), sha256.Sum256(raw))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// preview previews a job. The shards' directories must be the same before and after, and nothing may be left.
func (f *fleet) preview(job Job) plan.Shard {
	f.t.Helper()
	shards, dir := filepath.Join(f.driver.opts.StateDir, "shards"), f.t.TempDir()
	before := tree(f.t, shards)
	told, err := f.driver.Preview(testContext(f.t), dir, job)
	if err != nil {
		f.t.Fatal(err)
	}
	if diff := cmp.Diff(before, tree(f.t, shards)); diff != "" {
		f.t.Error("the preview has touched a shard:", diff)
	}
	f.mustBeEmpty(dir)
	if told.Seconds <= 0 || told.Shard != job.Shard || told.Pool != job.Pool || told.Resources == nil {
		f.t.Errorf("%+v", told)
	}
	return told
}

func (f *fleet) mustBeEmpty(dir string) {
	f.t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		f.t.Error("left behind:", left, err)
	}
}

// foreseen previews a job that has to be fine, and returns the actions by address.
func (f *fleet) foreseen(job Job) map[string]string {
	f.t.Helper()
	told := f.preview(job)
	if told.Error != "" {
		f.t.Fatal(told.Error)
	}
	actions := map[string]string{}
	for _, r := range told.Resources {
		actions[r.Address] = r.Action
	}
	return actions
}

// machines are the attributes of the resource instances in the state, by address.
func (f *fleet) machines() map[string]map[string]any {
	f.t.Helper()
	var st struct {
		Resources []struct {
			stateResource
			Instances []struct {
				Key        json.RawMessage `json:"index_key"`
				Attributes map[string]any  `json:"attributes"`
			} `json:"instances"`
		} `json:"resources"`
	}
	if err := readJSON(f.dir().state(), &st); err != nil {
		f.t.Fatal(err)
	}
	all := map[string]map[string]any{}
	for _, r := range st.Resources {
		for _, i := range r.Instances {
			all[r.address(i.Key)] = i.Attributes
		}
	}
	return all
}

// happened runs a job and returns what it did, from the states before and after it.
func (f *fleet) happened(job Job) map[string]string {
	f.t.Helper()
	before := f.machines()
	f.must(job)
	after, actions := f.machines(), map[string]string{}
	for address, now := range after {
		was, there := before[address]
		switch {
		case !there:
			actions[address] = "create"
		case was["id"] != now["id"]:
			actions[address] = "replace"
		case !cmp.Equal(was, now):
			actions[address] = "update"
		}
	}
	for address := range before {
		if after[address] == nil {
			actions[address] = "delete"
		}
	}
	return actions
}

func TestAPreviewSaysWhatARunThenDoes(t *testing.T) {
	local, _ := modules.Lookup("local")
	good := "module.guests.terraform_data.guest"
	address := func(names ...string) string { return fmt.Sprintf("%s[%q]", names[0], names[1]) }
	for _, test := range []struct {
		name      string
		module    Module
		resources []string // of each guest
		shared    string
	}{
		{"a module that is given as a directory", Module{Dir: "testdata/good"}, []string{good}, "module.guests.terraform_data.net"},
		{"the bundled module for local guests", Module{FS: local}, []string{good, "module.guests.terraform_data.facts"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFleet(t, newDriver(t))
			if test.shared == "" {
				f.vars = map[string]any{}
			}
			for i, step := range []struct {
				create, replace, destroy []string
				want                     map[string]string
			}{
				{create: []string{"p-1", "p-2", "p-3"}, want: map[string]string{"p-1": "create", "p-2": "create", "p-3": "create", "": "create"}},
				{replace: []string{"p-2"}, want: map[string]string{"p-2": "replace"}},
				{want: map[string]string{}},
				{create: []string{"p-4"}, replace: []string{"p-1"}, destroy: []string{"p-3"}, want: map[string]string{"p-4": "create", "p-1": "replace", "p-3": "delete"}},
				{destroy: []string{"p-1", "p-2", "p-4"}, want: map[string]string{"p-1": "delete", "p-2": "delete", "p-4": "delete"}},
			} {
				job := f.job(step.create, step.replace, step.destroy)
				job.Module = test.module
				want := map[string]string{}
				for guest, action := range step.want {
					if guest == "" && test.shared != "" {
						want[test.shared] = action
					}
					for _, resource := range test.resources {
						if guest != "" {
							want[address(resource, guest)] = action
						}
					}
				}
				foreseen := f.foreseen(job)
				if diff := cmp.Diff(want, foreseen); diff != "" {
					t.Errorf("step %d was foreseen otherwise: %s", i, diff)
				}
				if diff := cmp.Diff(foreseen, f.happened(job)); diff != "" {
					t.Errorf("step %d went otherwise: %s", i, diff)
				}
			}
		})
	}
}

func TestAPreviewTellsAttributes(t *testing.T) {
	var steps []string
	f := newFleet(t, newDriver(t, func(o *Options) {
		o.OnStep = func(pool string, s Step) { steps = append(steps, pool+" "+s.Op+" "+s.Result) }
	}))
	f.must(f.job([]string{"p-1", "p-2"}, nil, nil))
	steps = nil
	before := f.driver.Started()
	f.module = variant(t, "keys = length(var.ssh_authorized_keys)", "keys = length(var.ssh_authorized_keys) + each.value.incarnation - 1",
		"input = var.pool", `input = "net of ${var.pool}"`)
	job := f.job([]string{"p-3"}, []string{"p-2"}, nil)
	told := f.preview(job)
	want := plan.Shard{Shard: "shard-1", Pool: "p", Kept: 1, Resources: []plan.Resource{
		{Address: `module.guests.terraform_data.guest["p-2"]`, Guest: "p-2", Action: "replace", Reason: "requested", Attributes: []plan.Attribute{
			{Path: "id", Unknown: true},
			{Path: "input.id", Before: `"p/p-2/1"`, After: `"p/p-2/2"`},
			{Path: "input.keys", Before: "0", After: "1"},
			{Path: "output", Before: `{"id":"p/p-2/1","keys":0}`, Unknown: true},
			{Path: "triggers_replace[0]", Before: "1", After: "2", Replaces: true},
		}},
		{Address: `module.guests.terraform_data.guest["p-3"]`, Guest: "p-3", Action: "create", Attributes: []plan.Attribute{
			{Path: "id", Unknown: true},
			{Path: "input.id", After: `"p/p-3/1"`},
			{Path: "input.keys", After: "0"},
			{Path: "output", Unknown: true},
			{Path: "triggers_replace[0]", After: "1"},
		}},
		{Address: "module.guests.terraform_data.net", Action: "update", Attributes: []plan.Attribute{
			{Path: "input", Before: `"p"`, After: `"net of p"`}, {Path: "output", Before: `"p"`, Unknown: true},
		}},
	}}
	for i, r := range told.Resources {
		if r.Action == "replace" && r.Attributes[0].Path == "id" {
			told.Resources[i].Attributes[0].Before = "" // Terraform's own choice
		}
	}
	if diff := cmp.Diff(want, told, cmpopts.IgnoreFields(plan.Shard{}, "Seconds")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"p preview-init ok", "p preview-plan ok", "p preview-version ok", "p preview-show ok"}, steps); diff != "" {
		t.Error(diff)
	}
	if got := f.driver.Started() - before; got != 4 {
		t.Errorf("%d processes", got)
	}
	f.must(job)
}

func TestARunThatWouldBeRefusedIsToldWithTheReason(t *testing.T) {
	f := newFleet(t, newDriver(t))
	f.must(f.job([]string{"p-1", "p-2"}, nil, nil))
	f.module = variant(t, "keys = length(var.ssh_authorized_keys)", "keys = 99")
	told := f.preview(f.job(nil, []string{"p-1"}, nil))
	if !strings.Contains(told.Error, `guard: the plan was refused: module.guests.terraform_data.guest["p-2"] (update): guest p-2 is not claimed`) || len(told.Resources) != 2 {
		t.Errorf("%+v", told)
	}
}

func TestWhatIsWrongWithAShardIsInItsAnswer(t *testing.T) {
	f := newFleet(t, newDriver(t))
	f.must(f.job([]string{"p-1"}, nil, nil))
	for _, test := range []struct {
		name   string
		change func(*Job)
		fault  string
	}{
		{"no such claim", func(j *Job) { j.Create = []string{"p-9"} }, "guest p-9: a guest to destroy must not be wanted"},
		{"a name that leads elsewhere", func(j *Job) { j.Shard = "../shard-1" }, `shard "../shard-1"`},
		{"an unknown module", func(j *Job) { j.Module = Module{Digest: "sha256-x"} }, "is not in the module store"},
		{"a breach of the contract", func(j *Job) { j.Variables = json.RawMessage(`{"nonsense":1}`) }, `contract: the pool sets variable "nonsense"`},
		{"a module that does not plan", func(j *Job) { j.Module.Dir = variant(t, "length(var.ssh_authorized_keys)", "length(var.nothing)") }, "plan: Reference to undeclared input variable"},
		{"a source that is not there", func(j *Job) { j.Module = Module{Source: "/no/such/module"} }, "init: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			job := f.job(nil, nil, nil)
			test.change(&job)
			if told := f.preview(job); !strings.Contains(told.Error, test.fault) || len(told.Resources) != 0 {
				t.Errorf("%q is not in %q", test.fault, told.Error)
			}
		})
	}
}

func TestAPreviewThatIsUnderWayIsNotDisturbedByAnotherOfItsShard(t *testing.T) {
	f := newFleet(t, newDriver(t))
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "shard-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	told, err := f.driver.Preview(testContext(t), dir, f.job(nil, nil, nil))
	if err != nil || !strings.Contains(told.Error, "file exists") || !exists(filepath.Join(dir, "shard-1")) {
		t.Error(told.Error, err)
	}
}

func TestModulesOfAnyOriginArePreviewed(t *testing.T) {
	source, err := filepath.Abs("testdata/good")
	if err != nil {
		t.Fatal(err)
	}
	f := newFleet(t, newDriver(t))
	job := f.job([]string{"p-1"}, nil, nil)
	digest, err := Digest(os.DirFS(source))
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range []Module{{Source: source}, {FS: os.DirFS(source), Digest: digest}, {Digest: digest}} {
		job.Module = module
		if got := f.foreseen(job); len(got) != 2 {
			t.Error(module, got)
		}
	}
}

// A module may read again what it has written beside its root.
func TestFilesThatAModuleHasLeftAreThereInAPreview(t *testing.T) {
	f := newFleet(t, newDriver(t))
	f.module = variant(t, `echo "$GUEST" >>`, `mkdir -p left; echo "$GUEST" > left/behind; echo "$GUEST" >>`,
		"input = var.pool", `input = fileexists("left/behind") ? file("left/behind") : "nothing"`)
	f.must(f.job([]string{"p-1"}, nil, nil))
	f.must(f.job(nil, nil, nil))
	if got := f.foreseen(f.job(nil, nil, nil)); len(got) != 0 {
		t.Error(got)
	}
}

func TestAPreviewTakesNoPlanOfARunThatIsUnderWay(t *testing.T) {
	f := newFleet(t, newDriver(t))
	reached, free := f.hang("p-1")
	job := f.job([]string{"p-1"}, nil, nil)
	running, err := f.driver.Start(testContext(t), job)
	if err != nil {
		t.Fatal(err)
	}
	reached()
	to := t.TempDir()
	if err := copyLeavings(f.dir().work(), to); err != nil {
		t.Error(err)
	}
	for file := range tree(t, to) {
		if strings.HasSuffix(file, ".bin") {
			t.Errorf("a preview takes %s, which holds secrets", file)
		}
	}
	free()
	if out, err := running.Wait(testContext(t)); err != nil || out.Err != nil {
		t.Fatal(out.Err, err)
	}
}

// The planted secrets all contain this word.
const planted = "hunter2"

// secretModule uses the secrets that it gets in every way.
func secretModule(t *testing.T) string {
	return variant(t,
		`variable "password" {`, `variable "settings" {
  type    = any
  default = {}
}

variable "password" {`,
		"keys = length(var.ssh_authorized_keys)", `keys = length(var.ssh_authorized_keys)
    user     = "user of ${each.key}"
    script   = each.value.user_data
    indented = indent(4, each.value.user_data)
    lines    = split("\n", each.value.user_data)
    encoded  = base64encode(each.value.user_data)
    plain    = nonsensitive(var.password)
    marked   = { deep = [var.password, 1] }
    dsn      = "postgres://root:${try(var.settings.db.admin_password, "")}@db"
    doc      = jsonencode(var.settings)
    map      = { (nonsensitive(var.password)) = 1 }
    env      = try(file(var.settings.environ), "")
    key      = try(var.settings.blob, "")`,
		"attributes = {", "attributes = { password = nonsensitive(var.password), ",
		"input = var.pool", `input = var.pool
  lifecycle {
    precondition {
      condition     = !can(var.settings.fail)
      error_message = "no good: ${try(var.settings.db.admin_password, "")} ${try(var.settings.blob, "")}"
    }
  }`)
}

func TestSecretsAppearInNoPreview(t *testing.T) {
	t.Setenv("CLOUD_SESSION", "hunter2-in-the-environment")
	environ := filepath.Join(t.TempDir(), "environ")
	if err := os.WriteFile(environ, []byte("CLOUD_SESSION=hunter2-in-the-environment"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	f := newFleet(t, newDriver(t, func(o *Options) {
		o.Env = append(o.Env, "CLOUD_SESSION")
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
	}))
	f.module = secretModule(t)
	plant := func(generation string) {
		f.vars["password"] = "hunter2-declared-" + generation
		f.vars["settings"] = map[string]any{
			"db": map[string]any{"admin_password": `hunter2 by/name "` + generation, "user": "root"}, "environ": environ,
			"blob": "-----BEGIN EC PRIVATE KEY-----\nhunter2" + generation + "\n-----END EC PRIVATE KEY-----\n",
		}
	}
	withScripts := func(job Job, generation string) Job {
		for name, g := range job.Guests {
			g.UserData = "#!/bin/sh\necho \"hunter2 in user data\" > " + generation + "/" + name + "\n"
			job.Guests[name] = g
		}
		return job
	}
	check := func(job Job) plan.Shard {
		t.Helper()
		told := f.preview(job)
		raw, err := json.Marshal(told)
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(raw, []byte(planted)); i >= 0 {
			t.Errorf("a secret is told: …%s", raw[max(0, i-200):i+50])
		}
		if strings.Contains(log.String(), planted) {
			t.Error("a secret is logged:", log.String())
		}
		return told
	}
	plant("one")
	job := withScripts(f.job([]string{"p-1", "p-2"}, nil, nil), "one")
	told := check(job)
	if told.Error != "" || len(told.Resources) != 3 {
		t.Fatalf("%+v", told)
	}
	paths := map[string]plan.Attribute{}
	for _, a := range told.Resources[0].Attributes {
		paths[a.Path] = a
	}
	for _, path := range []string{"input.script", "input.plain", "input.marked.deep[0]", "input.key"} {
		if !paths[path].Sensitive {
			t.Errorf("%s: %+v", path, paths[path])
		}
	}
	if got := paths["input.user"].After; got != `"user of p-1"` {
		t.Error("what is no secret is told:", got)
	}
	f.must(job)

	plant("two") // what the state has is not among the job's own values any more
	job = withScripts(f.job([]string{"p-3"}, []string{"p-1", "p-2"}, nil), "two")
	if told := check(job); told.Error != "" || len(told.Resources) != 3 {
		t.Errorf("%+v", told)
	}
	check(f.job(nil, nil, []string{"p-1", "p-2", "p-3"}))
	settings := f.vars["settings"].(map[string]any)
	settings["fail"] = true
	if told := check(f.job(nil, nil, nil)); !strings.Contains(told.Error, "no good: (sensitive) (sensitive)") {
		t.Error(told.Error)
	}
}

func TestThePlaceOfAPreviewIsPrivate(t *testing.T) {
	d, fake := fakeTerraform(t, `find "$PWD/.." -perm /077 >> "$DIR/open"; summary 0 0`)
	f := newFleet(t, d)
	f.vars["password"] = "hunter2-the-password"
	told := f.preview(f.job([]string{"p-1"}, nil, nil))
	if !strings.HasPrefix(told.Error, "plan: the plan can't be read") { // the fake shows none
		t.Error(told.Error)
	}
	if open, err := os.ReadFile(filepath.Join(fake, "open")); err != nil || len(open) != 0 {
		t.Errorf("others can reach %s %v", open, err)
	}
	args, err := os.ReadFile(filepath.Join(fake, "calls"))
	if err != nil || !strings.Contains(string(args), "-lock=false") || strings.Contains(string(args), "hunter2") {
		t.Errorf("%s %v", args, err)
	}
}

// startPreview starts a preview in the background.
func startPreview(ctx context.Context, d *Driver, dir string, job Job) <-chan error {
	done := make(chan error, 1)
	go func() {
		told, err := d.Preview(ctx, dir, job)
		if err == nil {
			err = errors.New("it was not ended: " + told.Error)
		}
		done <- err
	}()
	return done
}

// hanging is a Terraform that hangs in its plan, having told its process ids.
const hanging = `
sleep 1000 & echo $! > "$DIR/child"
echo $$ > "$DIR/pid"
say '{}'
while :; do wait; sleep 0.05; done`

func pidIn(t *testing.T, file string) int {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func (f *fleet) mustBeGone(dir string) {
	f.t.Helper()
	for _, name := range []string{"pid", "child"} {
		pid := pidIn(f.t, filepath.Join(dir, name))
		eventually(f.t, "the end of "+name, func() bool { return syscall.Kill(pid, 0) != nil })
	}
}

func TestAPreviewEndsWithItsContextAndLeavesNothing(t *testing.T) {
	for name, body := range map[string]string{
		"in order":              "trap 'kill $(cat $DIR/child); exit 1' INT" + hanging,
		"deaf to the interrupt": "trap '' INT" + hanging,
	} {
		t.Run(name, func(t *testing.T) {
			d, fake := fakeTerraform(t, body)
			d.opts.Budgets.Interrupt = patience / 240
			f, dir := newFleet(t, d), t.TempDir()
			ctx, cancel := context.WithCancelCause(testContext(t))
			done := startPreview(ctx, d, dir, f.job(nil, nil, nil))
			eventually(t, "a plan", func() bool { return exists(filepath.Join(fake, "pid")) })
			cancel(errors.New("the caller left"))
			if err := <-done; err == nil || !strings.Contains(err.Error(), "previewing shard shard-1: the caller left") {
				t.Error(err)
			}
			f.mustBeEmpty(dir)
			f.mustBeGone(fake)
		})
	}
}

func TestAPreviewWhoseRunnerHangsIsKilled(t *testing.T) {
	d, fake := fakeTerraform(t, "kill -STOP $PPID"+hanging)
	d.opts.Budgets.Interrupt = patience / 240
	f, dir := newFleet(t, d), t.TempDir()
	ctx, cancel := context.WithCancel(testContext(t))
	done := startPreview(ctx, d, dir, f.job(nil, nil, nil))
	eventually(t, "a plan", func() bool { return exists(filepath.Join(fake, "pid")) })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	f.mustBeEmpty(dir)
	f.mustBeGone(fake)
}

func TestAPreviewWhoseRunnerDiesIsLost(t *testing.T) {
	d, _ := fakeTerraform(t, "kill -KILL $PPID")
	if told := newFleet(t, d).preview(Job{Shard: "shard-1", Module: Module{Dir: "testdata/good"}}); !strings.Contains(told.Error, "lost: the runner died") {
		t.Error(told.Error)
	}
}

func TestAPreviewThatTakesTooLongIsEnded(t *testing.T) {
	d, _ := fakeTerraform(t, "exec sleep 1000")
	d.opts.Budgets.Total = patience / 240
	if told := newFleet(t, d).preview(Job{Shard: "shard-1", Module: Module{Dir: "testdata/good"}}); !strings.Contains(told.Error, "budget: the run has been going on") {
		t.Error(told.Error)
	}
}

func TestAPreviewEndsWithTheDriver(t *testing.T) {
	for name, end := range map[string]func(*Driver){
		"shutdown": func(d *Driver) { _ = d.Shutdown(context.Background(), patience) },
		"detach":   func(d *Driver) { d.Detach() },
	} {
		t.Run(name, func(t *testing.T) {
			d, fake := fakeTerraform(t, "trap 'kill $(cat $DIR/child); exit 1' INT"+hanging)
			d.opts.Concurrency = 1
			f, dir := newFleet(t, d), t.TempDir()
			done := startPreview(testContext(t), d, dir, f.job(nil, nil, nil))
			eventually(t, "a plan", func() bool { return exists(filepath.Join(fake, "pid")) })
			end(d)
			f.mustBeEmpty(dir)
			f.mustBeGone(fake)
			if err := <-done; !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
			if _, err := d.Preview(testContext(t), dir, f.job(nil, nil, nil)); !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		})
	}
}

func TestAPreviewEndsWithTheProcessThatAskedForIt(t *testing.T) {
	d, fake := fakeTerraform(t, "trap 'kill $(cat $DIR/child); exit 1' INT"+hanging)
	f := newFleet(t, d)
	module, err := filepath.Abs(f.module)
	if err != nil {
		t.Fatal(err)
	}
	order := filepath.Join(t.TempDir(), "order.json")
	in := daemonJob{StateDir: d.opts.StateDir, ModuleDir: module, Job: f.job(nil, nil, nil), Binary: d.opts.Binary, Preview: t.TempDir()}
	if err := writeJSON(order, in); err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command(os.Args[0], "daemon", order)
	daemon.Stderr = os.Stderr
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a plan", func() bool { return exists(filepath.Join(fake, "pid")) })
	runner := processes(func(p process) bool { return p.parent == daemon.Process.Pid })
	if err := daemon.Process.Kill(); err != nil || len(runner) != 1 {
		t.Fatal(runner, err)
	}
	_ = daemon.Wait() // it was killed
	f.mustBeGone(fake)
	eventually(t, "the end of the runner", func() bool { return syscall.Kill(runner[0].pid, 0) != nil })
}

func TestPreviewsWaitForEachOtherAndNotForRuns(t *testing.T) {
	f := newFleet(t, newDriver(t, func(o *Options) { o.Concurrency = 1 }))
	f.must(f.job([]string{"p-1"}, nil, nil))
	reached, free := f.hang("p-2")
	job := f.job([]string{"p-2"}, nil, nil)
	running, err := f.driver.Start(testContext(t), job)
	if err != nil {
		t.Fatal(err)
	}
	reached()
	told, err := f.driver.Preview(testContext(t), t.TempDir(), job)
	if err != nil || told.Error != "" || len(told.Resources) != 1 || told.Resources[0].Guest != "p-2" {
		t.Errorf("%+v %v", told, err)
	}
	free()
	if out, err := running.Wait(testContext(t)); err != nil || out.Err != nil || len(out.Guests) != 2 {
		t.Error(out, err)
	}

	if err := f.driver.previews.Acquire(testContext(t), 1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience/2400)
	defer cancel()
	if _, err := f.driver.Preview(ctx, t.TempDir(), job); !errors.Is(err, context.DeadlineExceeded) {
		t.Error("a second preview was let in:", err)
	}
	f.driver.previews.Release(1)
}

func TestAStateThatCanNotBeReadIsSaid(t *testing.T) {
	f := newFleet(t, newDriver(t))
	f.must(f.job([]string{"p-1"}, nil, nil))
	good, err := os.ReadFile(f.dir().state())
	if err != nil {
		t.Fatal(err)
	}
	for name, state := range map[string]string{"half": string(good[:len(good)/2]), "empty": "", "of another": strings.Replace(string(good), `"lineage": "`, `"lineage": "0`, 1)} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(f.dir().state(), []byte(state), 0o600); err != nil {
				t.Fatal(err)
			}
			if told := f.preview(f.job(nil, nil, nil)); !strings.HasPrefix(told.Error, "state: ") {
				t.Error(told.Error)
			}
			if err := os.WriteFile(f.dir().intent(), []byte("{}"), 0o600); err != nil {
				t.Fatal(err)
			}
			if told := f.preview(f.job(nil, nil, nil)); !strings.Contains(told.Error, "a run is under way; plan again") {
				t.Error(told.Error)
			}
			if err := os.Remove(f.dir().intent()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestAStateThatIsBeingWrittenIsReadAgain(t *testing.T) {
	f := newFleet(t, newDriver(t))
	f.must(f.job([]string{"p-1"}, nil, nil))
	job := f.job([]string{"p-2"}, nil, nil)
	good := f.dir().state() + ".good"
	if err := errors.Join(os.Rename(f.dir().state(), good), syscall.Mkfifo(f.dir().state(), 0o600)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		half, err := os.OpenFile(f.dir().state(), os.O_WRONLY, 0) // waits for the reader
		if err == nil {
			err = os.Rename(good, f.dir().state())
		}
		if err == nil {
			_, err = half.WriteString(`{"version": 4, "ser`)
		}
		done <- errors.Join(err, half.Close())
	}()
	told, err := f.driver.Preview(testContext(t), t.TempDir(), job)
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	if told.Error != "" || len(told.Resources) != 1 {
		t.Errorf("%+v", told)
	}
}

func TestAStateThatCouldNotBeWrittenIsTheOneToPlanOn(t *testing.T) {
	f := newFleet(t, newDriver(t))
	f.must(f.job([]string{"p-1"}, nil, nil))
	old, err := os.ReadFile(f.dir().state())
	if err != nil {
		t.Fatal(err)
	}
	f.must(f.job([]string{"p-2"}, nil, nil))
	if err := os.Rename(f.dir().state(), filepath.Join(f.dir().work(), erroredFile)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.dir().state(), old, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := f.foreseen(f.job(nil, nil, nil)); len(got) != 0 {
		t.Error(got)
	}
}

func TestAPreviewOnlyReadsABackend(t *testing.T) {
	states, f := newRemoteFleet(t)
	job := f.job([]string{"p-1", "p-2"}, nil, nil)
	if got := f.foreseen(job); len(got) != 3 || len(states.requests()) != 0 {
		t.Error("a new shard has nothing to ask for:", got, states.requests())
	}
	f.must(job)
	before := bytes.Clone(states.state)
	states.requests()
	states.set(func() { states.lock = []byte("{}") }) // a run is under way
	job = f.job([]string{"p-3"}, []string{"p-1"}, []string{"p-2"})
	want := map[string]string{}
	for guest, action := range map[string]string{"p-1": "replace", "p-2": "delete", "p-3": "create"} {
		want[fmt.Sprintf("module.guests.terraform_data.guest[%q]", guest)] = action
	}
	if diff := cmp.Diff(want, f.foreseen(job)); diff != "" {
		t.Error(diff)
	}
	if got := states.requests(); len(got) == 0 || slices.ContainsFunc(got, func(m string) bool { return m != "GET" }) {
		t.Error("requests:", got)
	}
	if !bytes.Equal(before, states.state) {
		t.Error("the state has changed")
	}
	states.set(func() { states.away = true })
	if told := f.preview(f.job(nil, nil, nil)); !strings.HasPrefix(told.Error, "backend: ") && !strings.HasPrefix(told.Error, "init: ") {
		t.Error(told.Error)
	}
}

func TestAPreviewTakesTheProvidersThatAShardHas(t *testing.T) {
	built, home := os.DirFS(mirror(t)), t.TempDir()
	t.Setenv("HOME", home)
	plugins := filepath.Join(home, ".terraform.d", "plugins")
	if err := os.MkdirAll(filepath.Dir(plugins), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(plugins, built); err != nil {
		t.Fatal(err)
	}
	f := newFleet(t, newDriver(t))
	machines := t.TempDir()
	f.module, f.vars = "testdata/machines", map[string]any{"dir": machines}
	f.must(f.job([]string{"p-1", "p-2"}, nil, nil))
	// As if they had been downloaded, and could not be again.
	providers := filepath.Join(f.dir().work(), ".terraform", "providers")
	if err := errors.Join(os.RemoveAll(providers), os.CopyFS(providers, os.DirFS(plugins)), os.RemoveAll(plugins)); err != nil {
		t.Fatal(err)
	}

	if got := f.foreseen(f.job([]string{"p-3"}, nil, nil)); got[`module.guests.room_machine.guest["p-3"]`] != "create" || len(got) != 1 {
		t.Error(got)
	}
	other := f.job(nil, nil, nil)
	other.Shard, other.Create = "shard-2", []string{"p-1", "p-2", "p-3"}
	if got := f.foreseen(other); len(got) != 3 {
		t.Error(got)
	}
	if err := os.Remove(filepath.Join(machines, "p-2")); err != nil {
		t.Fatal(err)
	}
	delete(f.guests, "p-3")
	if told := f.preview(f.job(nil, nil, nil)); !strings.HasPrefix(told.Error, "drift: their provider took away p-2") || len(told.Resources) != 1 {
		t.Errorf("%+v", told)
	}
	other.Variables = json.RawMessage(`{"dir":"/x","nonsense":1}`)
	if told := f.preview(other); !strings.HasPrefix(told.Error, "contract: ") {
		t.Error(told.Error)
	}
}
