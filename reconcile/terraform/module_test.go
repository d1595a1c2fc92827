package terraform

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// variant is the good module with some of its text replaced.
func variant(t *testing.T, pairs ...string) string {
	t.Helper()
	raw, err := os.ReadFile("testdata/good/main.tf")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(pairs...).Replace(string(raw))
	if text == string(raw) && len(pairs) > 0 {
		t.Fatal("nothing was replaced")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.tf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAModuleChangeThatWouldTouchUnclaimedGuestsIsRefused(t *testing.T) {
	f := newFleet(t, newDriver(t))
	f.must(f.job([]string{"p-1", "p-2"}, nil, nil))
	f.module = variant(t, "keys = length(var.ssh_authorized_keys)", "keys = 99")

	out := f.run(f.job(nil, []string{"p-1"}, nil))

	if kindOf(out) != FaultGuard || !out.Err.Stalled() {
		t.Fatal(out.Err)
	}
	if want := `module.guests.terraform_data.guest["p-2"] (update): guest p-2 is not claimed by this run`; !strings.Contains(out.Err.Message, want) {
		t.Errorf("%q is not in %q", want, out.Err.Message)
	}
	if diff := cmp.Diff(map[string]string{"p-1": "p/p-1/1", "p-2": "p/p-2/1"}, ids(out)); diff != "" {
		t.Error("nothing was applied:", diff)
	}
	if diff := cmp.Diff([]string{"init ok", "plan ok", "apply unused"}, ops(out)); diff != "" {
		t.Error(diff)
	}
	if exists(filepath.Join(f.dir().work(), planFile)) {
		t.Error("the plan, which holds secrets, was kept")
	}
}

func TestBreachesOfTheContractStopTheShard(t *testing.T) {
	for _, test := range []struct {
		name    string
		pairs   []string
		vars    map[string]any
		kind    string
		message string
		failed  map[string]string
	}{
		{
			name: "a wrong type", pairs: []string{"port       = 22", `port       = "ssh"`},
			kind: FaultContract, message: `guest p-1: attribute "port": a int is needed, not a string`,
			failed: map[string]string{"p-1": `attribute "port": a int is needed, not a string`},
		},
		{
			name: "a guest too few", pairs: []string{"for name, guest in terraform_data.guest : name => {", `for name, guest in terraform_data.guest : "x-${name}" => {`},
			kind: FaultContract, message: `output "guests" has guest x-p-1, which nobody wants; output "guests" lacks guest p-1`,
			failed: map[string]string{"p-1": "the module's output lacks it"},
		},
		{
			name: "a guest that can't be reached", pairs: []string{"port       = 22", "port       = 0"},
			kind: FaultApply, message: "not usable: p-1",
			failed: map[string]string{"p-1": `the guest is not usable: "port" is 0; allowed are 1 to 65535`},
		},
		{
			name: "an unknown variable", vars: map[string]any{"passwort": "x"},
			kind: FaultContract, message: `variable "passwort", which the module does not declare; it declares flags, password`,
		},
		{
			name: "no plan", pairs: []string{"keys = length(var.ssh_authorized_keys)", "keys = length(var.nothing)"},
			kind: FaultPlan, message: "Reference to undeclared input variable",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFleet(t, newDriver(t))
			f.module = variant(t, test.pairs...)
			if test.vars != nil {
				f.vars = test.vars
			}
			out := f.run(f.job([]string{"p-1"}, nil, nil))
			if kindOf(out) != test.kind || !strings.Contains(out.Err.Message, test.message) {
				t.Error(out.Err)
			}
			if out.Err.Stalled() != (test.kind == FaultContract) {
				t.Error("stalled:", out.Err.Stalled())
			}
			if diff := cmp.Diff(test.failed, out.Failed, cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestASecretInAProvisionersErrorIsNotKept(t *testing.T) {
	f := newFleet(t, newDriver(t))
	f.module = variant(t, `echo "$GUEST" >>`, `echo "it is $PASSWORD"; echo "$GUEST" >>`,
		`variable "password" {`, "variable \"db_token\" {}\nvariable \"password\" {", "  input = {", "  input = {\n    of = var.db_token",
		"  provisioner", `  provisioner "local-exec" {
    when    = destroy
    command = "echo was ${self.input.of}; exit 1"
  }
  provisioner`)
	f.vars["password"], f.vars["db_token"] = "hunter2-the-password", "hunter2-the-old-token"
	f.must(f.job([]string{"p-2"}, nil, nil))
	f.vars["db_token"] = "hunter2-the-new-token"
	f.flag("fail-p-1")
	job := f.job([]string{"p-1"}, []string{"p-2"}, nil)
	out, err := f.driver.Run(testContext(t), job)
	if err != nil || kindOf(out) != FaultApply || !strings.Contains(out.Failed["p-2"], "was (sensitive)") {
		t.Fatal(out.Err, out.Failed, err)
	}
	for _, file := range []string{f.dir().result(), f.dir().log()} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(raw), "hunter2") {
			t.Errorf("%s has the secret: %s", file, raw)
		}
	}
}

func TestModulesComeFromEmbeddedTreesAndRemoteSources(t *testing.T) {
	tree, err := filepath.Abs("testdata/good")
	if err != nil {
		t.Fatal(err)
	}
	for name, module := range map[string]Module{
		"an embedded tree":        {FS: os.DirFS(tree)},
		"a source init fetches":   {Source: tree},
		"a directory of the host": {Dir: tree},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, newDriver(t))
			job := f.job([]string{"p-1"}, nil, nil)
			job.Module = module
			out := f.must(job)
			if diff := cmp.Diff(map[string]string{"p-1": "p/p-1/1"}, ids(out)); diff != "" {
				t.Error(diff)
			}
			job = f.job(nil, nil, nil)
			job.Module = module
			job.Variables = json.RawMessage(`{"nonsense": 1}`)
			if out = f.run(job); kindOf(out) != FaultContract {
				t.Error(out.Err)
			}
		})
	}
}

func TestAStoredModuleIsKnownByItsDigestAlone(t *testing.T) {
	f := newFleet(t, newDriver(t))
	digest, err := Digest(os.DirFS(f.module))
	if err != nil {
		t.Fatal(err)
	}
	wrong := f.job(nil, nil, nil)
	wrong.Module = Module{FS: fstest.MapFS{"main.tf": {Data: []byte("x")}}, Digest: digest}
	if _, err := f.driver.Start(testContext(t), wrong); err == nil || !strings.Contains(err.Error(), "it has changed since") {
		t.Error("another tree passed under the digest:", err)
	}
	f.must(f.job(nil, nil, nil))
	job := f.job([]string{"p-1"}, nil, nil)
	job.Module = Module{Digest: digest}
	f.must(job)
	job = f.job(nil, nil, nil)
	job.Module = Module{Digest: "sha256-unknown"}
	if _, err := f.driver.Start(testContext(t), job); err == nil || !strings.Contains(err.Error(), "not in the module store") {
		t.Error(err)
	}
}

func TestCheckTakesAGoodModuleThroughItsLife(t *testing.T) {
	d := newDriver(t)
	var steps []string
	err := Check(testContext(t), d, "testdata/good", json.RawMessage(`{"flags":"`+t.TempDir()+`"}`), func(s CheckStep) {
		steps = append(steps, s.Name+s.Error)
	})
	if err != nil {
		t.Error(err)
	}
	want := []string{"declarations", "create two guests", "plan again: no changes", "replace one guest", "destroy all guests"}
	if diff := cmp.Diff(want, steps); diff != "" {
		t.Error(diff)
	}
}

func TestCheckNamesTheStepThatABadModuleFails(t *testing.T) {
	for _, test := range []struct {
		name  string
		pairs []string
		fault string
	}{
		{"no output", []string{`output "guests"`, `output "hosts"`}, `declarations: the module does not declare output "guests"`},
		{"guests without their attributes", []string{`user       = "root"`, ""}, `create two guests: contract: output "guests", guest check-1: attribute "user" is missing`},
		{"never at rest", []string{"keys = length(var.ssh_authorized_keys)", "keys = timestamp()"}, "plan again: no changes: a second plan"},
		{"one guest changes the other", []string{"keys = length(var.ssh_authorized_keys)", "keys = sum([for g in var.guests : g.incarnation])"}, `replace one guest: guard: the plan was refused: module.guests.terraform_data.guest["check-2"] (update)`},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDriver(t)
			last := ""
			err := Check(testContext(t), d, variant(t, test.pairs...), json.RawMessage(`{"flags":"`+t.TempDir()+`"}`), func(s CheckStep) { last = s.Name + s.Error })
			if err == nil || !strings.Contains(err.Error(), test.fault) {
				t.Errorf("%q is not in %v", test.fault, err)
			}
			if last != "destroy what was made" && !strings.HasPrefix(last, "declarations") {
				t.Errorf("the last step is %q", last)
			}
		})
	}
}
