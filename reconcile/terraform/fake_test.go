package terraform

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"greenroom/modules"
)

// fakeTerraform is a Terraform of a few lines of shell, for what the real one won't do on demand.
// body runs with $1 the command, in the work directory, $DIR the fake's own directory. The commands
// version and init work; plan is called number $N. apply reads its CLI configuration first, and needs its plan, as the real one.
// A new shard has a resource that all share, unless there is a file $DIR/blank: then it is empty, and applied without a plan.
func fakeTerraform(t *testing.T, body string) (driver *Driver, dir string) {
	t.Helper()
	dir = t.TempDir()
	script := fmt.Sprintf(`#!/bin/sh
DIR=%q
touch "$DIR/plans"
echo "$*" >> "$DIR/calls"
case "$1" in
version) echo '{"terraform_version":"1.11.4"}'; exit 0 ;;
init) [ -e "$DIR/blank" ] || [ -e terraform.tfstate ] || echo '{"version":4,"lineage":"l","resources":[{"mode":"managed","type":"x","name":"net","instances":[{}]}]}' > terraform.tfstate; exit 0 ;;
plan)
  echo . >> "$DIR/plans"
  for arg; do case "$arg" in -out=*) : > "${arg#-out=}" ;; esac; done ;;
apply)
  if [ -e "$DIR/no-pipes" ] && [ -p "$TF_CLI_CONFIG_FILE" ]; then : > "$DIR/refused"; exit 1; fi
  cat "$TF_CLI_CONFIG_FILE" > "$DIR/config" || exit 1
  for arg; do :; done
  [ -e "$arg" ] || [ -e "$DIR/blank" ] || { echo "there is no $arg" >> "$DIR/unapproved"; exit 1; } ;;
esac
N=$(wc -l < "$DIR/plans")
say() { printf '%%s\n' "$1"; }
change() { say '{"type":"planned_change","change":{"resource":{"addr":"'"$(addr "$2")"'"},"action":"'"$1"'"}}'; }
hook() { say '{"type":"'"$1"'","hook":{"resource":{"addr":"'"$(addr "$3")"'"},"action":"'"$2"'"}}'; }
addr() { printf 'module.guests.x.g[\\"%%s\\"]' "$1"; }
summary() { say '{"type":"change_summary","changes":{"add":'"$1"',"change":0,"remove":'"$2"',"operation":"plan"}}'; }
# state SERIAL GUEST... writes a state with these guests.
state() {
  serial=$1; shift; instances=; outputs=
  for g in "$@"; do
    instances="$instances,{\"index_key\":\"$g\"}"
    outputs="$outputs,\"$g\":{\"id\":\"$g\",\"host\":\"h\",\"port\":22,\"user\":\"u\",\"host_key\":\"\",\"attributes\":{}}"
  done
  echo '{"version":4,"serial":'"$serial"',"lineage":"l","outputs":{"guests":{"value":{'"${outputs#,}"'}}},"resources":[{"module":"module.guests","mode":"managed","type":"x","name":"g","instances":['"${instances#,}"']}]}' > terraform.tfstate
}
%s
`, dir, body)
	file := filepath.Join(dir, "terraform")
	if err := os.WriteFile(file, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	d := newDriver(t, func(o *Options) {
		o.Binary = file
		o.Budgets = Budgets{Start: patience, Idle: patience, Total: patience, Interrupt: patience}
	})
	return d, dir
}

func calls(t *testing.T, dir string) []string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(raw)) {
		words := strings.Fields(line)
		if words[0] != "version" {
			got = append(got, words[0])
		}
	}
	return got
}

func TestABinaryThatHasChangedIsAskedForItsVersionAndInitializesAgain(t *testing.T) {
	d, dir := fakeTerraform(t, "summary 0 0")
	f := newFleet(t, d)
	for _, step := range []struct {
		old, new string
		want     []string
	}{
		{"", "", []string{"version", "init", "plan"}}, // the version was asked for when the driver was made
		{"", "", []string{"plan"}},
		{"1.11.4", "1.12.10", []string{"version", "init", "plan"}},
		{"", "", []string{"plan"}},
	} {
		if step.old != "" {
			script, err := os.ReadFile(filepath.Join(dir, "terraform"))
			if err != nil {
				t.Fatal(err)
			}
			changed := strings.Replace(string(script), step.old, step.new, 1)
			if err := os.WriteFile(filepath.Join(dir, "terraform"), []byte(changed), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		f.must(f.job(nil, nil, nil))
		raw, err := os.ReadFile(filepath.Join(dir, "calls"))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(string(raw)) {
			got = append(got, strings.Fields(line)[0])
		}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("after %q: %s", step.new, diff)
		}
		if err := os.Remove(filepath.Join(dir, "calls")); err != nil {
			t.Fatal(err)
		}
	}
	if _, version := d.Binary(); version != "1.12.10" {
		t.Errorf("the version is %s", version)
	}
}

func TestBudgetsEndARunThatHangs(t *testing.T) {
	short := 400 * time.Millisecond
	for _, test := range []struct {
		name, body string
		budgets    Budgets
		message    string
	}{
		{"before its first line", "exec sleep 1000", Budgets{Start: short}, "said nothing after its start"},
		{"in silence", "say '{}'; exec sleep 1000", Budgets{Idle: short}, "has been silent"},
		{"in all", "while :; do say '{}'; sleep 0.05; done", Budgets{Total: 2 * short}, "has been going on"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, _ := fakeTerraform(t, test.body)
			d.opts.Budgets = test.budgets.withDefaults()
			out := newFleet(t, d).run(Job{Shard: "shard-1", Run: "r", Module: Module{Dir: "testdata/good"}})
			if kindOf(out) != FaultBudget || !strings.Contains(out.Err.Message, test.message) {
				t.Errorf("fault %v", out.Err)
			}
		})
	}
}

func TestATerraformThatIgnoresItsOneInterruptIsKilledWithItsGroup(t *testing.T) {
	d, dir := fakeTerraform(t, `
trap 'echo INT >> "$DIR/ints"' INT
sleep 1000 & echo $! > "$DIR/grandchild"
say '{}'
while :; do wait; sleep 0.05; done`)
	d.opts.Budgets.Interrupt = time.Second
	f := newFleet(t, d)
	running, err := d.Start(testContext(t), f.job(nil, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a plan", func() bool { return exists(filepath.Join(dir, "grandchild")) })
	for range 3 { // however often the runner is told, Terraform is told once
		if err := running.Interrupt(); err != nil {
			t.Fatal(err)
		}
	}
	out, err := running.Wait(testContext(t))
	if err != nil || kindOf(out) != FaultInterrupted {
		t.Fatal(out.Err, err)
	}
	ints, err := os.ReadFile(filepath.Join(dir, "ints"))
	if err != nil || string(ints) != "INT\n" {
		t.Errorf("interrupts: %q %v", ints, err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "grandchild"))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(raw), &pid); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the group", func() bool { return syscall.Kill(pid, 0) != nil })
}

func TestGarbageInTheStreamIsTolerated(t *testing.T) {
	d, _ := fakeTerraform(t, `
printf '\000\377 garbage\n'
say '{"type":"from_the_future","change":[]}'
head -c 3000000 /dev/zero | tr '\0' x; echo
echo "on stderr" >&2
summary 0 0`)
	out := newFleet(t, d).run(Job{Shard: "shard-1", Run: "r", Module: Module{Dir: "testdata/good"}})
	if out.Err != nil {
		t.Error(out.Err)
	}
}

func TestAPlanThatIsNotKnownWholeIsNotApplied(t *testing.T) {
	for name, body := range map[string]string{
		"no summary":         "exit 0",
		"a change is hidden": "summary 1 1; exit 2",
		"cut in a line":      `printf '{"type":"change_summ'; exit 0`,
	} {
		t.Run(name, func(t *testing.T) {
			d, dir := fakeTerraform(t, body)
			out := newFleet(t, d).run(Job{Shard: "shard-1", Run: "r", Module: Module{Dir: "testdata/good"}})
			if kindOf(out) != FaultPlan {
				t.Error(out.Err)
			}
			if diff := cmp.Diff([]string{"init", "plan"}, calls(t, dir)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAReplacementThatTerraformIgnoresIsNotTakenForDone(t *testing.T) {
	d, dir := fakeTerraform(t, `state 3 p-1; summary 0 0`)
	f := newFleet(t, d)
	f.must(f.job([]string{"p-1"}, nil, nil)) // the fake has a state from now on
	out := f.run(f.job(nil, []string{"p-1"}, nil))
	if kindOf(out) != FaultGuard || !out.Err.Stalled() || !strings.Contains(out.Err.Message, `p-1 needs replace here`) {
		t.Error(out.Err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "calls"))
	if err != nil || !strings.Contains(string(raw), `-replace=module.guests.x.g["p-1"]`) {
		t.Errorf("%s %v", raw, err)
	}
}

const lockDiagnostic = `say '{"type":"diagnostic","diagnostic":{"severity":"error","summary":"Error acquiring the state lock","detail":"Error message: busy\nLock Info:\n  ID:        4711\n  Path:      x\n  Operation: OperationTypePlan\n  Who:       '"$WHO"'\n  Version:   1.11.4\n  Created:   '"$CREATED"'\n  Info:      "}}'; exit 1`

func TestALockHeldBySomebodyElseIsLeftAlone(t *testing.T) {
	d, dir := fakeTerraform(t, "WHO=eve@elsewhere; CREATED='2026-01-02 03:04:05.6 +0000 UTC'\n"+lockDiagnostic)
	f := newFleet(t, d)
	job := f.job(nil, nil, nil)
	if err := os.MkdirAll(string(f.dir()), 0o700); err != nil {
		t.Fatal(err)
	}
	dead := orphan{Run: "dead", Who: whoami(), Since: time.Unix(0, 0), Until: time.Now()}
	if err := writeJSON(f.dir().orphan(), dead); err != nil {
		t.Fatal(err)
	}
	out := f.run(job)
	if kindOf(out) != FaultLocked || out.Err.Stalled() || !strings.Contains(out.Err.Message, "eve@elsewhere since 2026-01-02T03:04:05Z (lock 4711)") {
		t.Error(out.Err)
	}
	if slices.Contains(calls(t, dir), "force-unlock") {
		t.Error("the lock was broken")
	}
}

func TestTheLockOfOurOwnDeadRunIsBroken(t *testing.T) {
	for name, test := range map[string]struct {
		since, until time.Duration
		kind         string
	}{
		"taken while the run was live": {-time.Hour, time.Hour, ""},
		"taken after its death":        {-2 * time.Hour, -time.Hour, FaultLocked},
		"taken before its start":       {time.Hour, 2 * time.Hour, FaultLocked},
	} {
		t.Run(name, func(t *testing.T) {
			created := time.Now().UTC()
			d, dir := fakeTerraform(t, fmt.Sprintf(`
[ "$1" = force-unlock ] && { touch "$DIR/unlocked"; exit 0; }
[ -e "$DIR/unlocked" ] && { summary 0 0; exit 0; }
WHO=%q; CREATED=%q
`, whoami(), created.String())+lockDiagnostic)
			f := newFleet(t, d)
			if err := os.MkdirAll(string(f.dir()), 0o700); err != nil {
				t.Fatal(err)
			}
			dead := orphan{Run: "dead", Who: whoami(), Since: created.Add(test.since), Until: created.Add(test.until)}
			if err := writeJSON(f.dir().orphan(), dead); err != nil {
				t.Fatal(err)
			}
			if out := f.run(f.job(nil, nil, nil)); kindOf(out) != test.kind {
				t.Error(out.Err)
			}
			if exists(filepath.Join(dir, "unlocked")) != (test.kind == "") {
				t.Error("unlocked:", exists(filepath.Join(dir, "unlocked")))
			}
		})
	}
}

func TestAnApplyThatDiesHalfWayKeepsWhatIsWhole(t *testing.T) {
	d, _ := fakeTerraform(t, `
case "$*" in
plan*refresh-only*) summary 0 0; exit 0 ;;
plan*) change create p-1; change create p-2; summary 2 0; exit 2 ;;
apply*)
  [ -e "$DIR/settle" ] && { state 2 p-1; exit 0; }
  touch "$DIR/settle"
  state 1
  hook apply_start create p-1; hook apply_complete create p-1; hook apply_start create p-2
  exit 1 ;;
esac`)
	f := newFleet(t, d)
	out := f.run(f.job([]string{"p-1", "p-2"}, nil, nil))
	if kindOf(out) != FaultApply {
		t.Error(out.Err)
	}
	if diff := cmp.Diff(map[string]string{"p-1": "p-1"}, ids(out)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"p-2": "the apply ended before it was done"}, out.Failed); diff != "" {
		t.Error(diff)
	}
}

func TestAStalePlanIsMadeAgain(t *testing.T) {
	for name, test := range map[string]struct {
		stale int
		kind  string
		plans int
	}{
		"once":      {1, "", 2},
		"too often": {100, FaultStale, 3},
	} {
		t.Run(name, func(t *testing.T) {
			d, dir := fakeTerraform(t, fmt.Sprintf(`
case "$1" in
plan) change create p-1; summary 1 0; exit 2 ;;
apply) if [ "$N" -le %d ]; then state "$N"; exit 1; fi; state 999 p-1 ;;
esac`, test.stale))
			f := newFleet(t, d)
			out := f.run(f.job([]string{"p-1"}, nil, nil))
			if kindOf(out) != test.kind {
				t.Error(out.Err)
			}
			plans := slices.DeleteFunc(calls(t, dir), func(c string) bool { return c != "plan" })
			if len(plans) != test.plans {
				t.Errorf("%d plans", len(plans))
			}
		})
	}
}

func TestAFullDiskIsSaid(t *testing.T) {
	d, _ := fakeTerraform(t, `say '{"type":"diagnostic","diagnostic":{"severity":"error","summary":"Failed to save","detail":"write x: no space left on device"}}'; exit 1`)
	f := newFleet(t, d)
	if out := f.run(f.job(nil, nil, nil)); kindOf(out) != FaultDisk || out.Err.Stalled() {
		t.Error(out.Err)
	}
}

func TestSecretsReachNeitherArgumentsNorLogsNorResults(t *testing.T) {
	secret, userData := "hunter2-in-a-variable", "hunter2-in-user-data"
	d, dir := fakeTerraform(t, `
tr '\0' '\n' < /proc/$$/environ >> "$DIR/environ"
say "crash: $(cat greenroom.auto.tfvars.json)"
say '{"type":"diagnostic","diagnostic":{"severity":"error","summary":"hunter2-in-a-variable","detail":"hunter2-in-user-data","snippet":{"values":[{"traversal":"var.x","statement":"is \"hunter2-in-a-variable\""}]}}}'
exit 1`)
	f := newFleet(t, d)
	f.vars["password"] = secret
	job := f.job([]string{"p-1"}, nil, nil)
	job.Guests["p-1"] = Guest{Incarnation: 1, UserData: userData}
	t.Setenv("SOME_OTHER_SECRET", "hunter2-in-the-environment")
	out, err := d.Run(testContext(t), job)
	if err != nil || kindOf(out) != FaultPlan || !strings.Contains(out.Err.Message, "(sensitive)") {
		t.Fatal(out.Err, err)
	}
	for _, file := range []string{filepath.Join(dir, "calls"), filepath.Join(dir, "environ"), f.dir().log(), f.dir().result()} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(raw), "hunter2") {
			t.Errorf("%s has a secret: %s", filepath.Base(file), raw)
		}
	}
	for _, file := range []string{f.dir().intent(), f.dir().result(), f.dir().log(), filepath.Join(f.dir().work(), "greenroom.auto.tfvars.json"), filepath.Join(f.dir().work(), "main.tf.json")} {
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", file, info.Mode(), err)
		}
	}
}

func TestAnApplyThatStandsByDoesNothingWhenItsRunnerDies(t *testing.T) {
	d, dir := fakeTerraform(t, `
case "$1" in
plan) echo $$ > "$DIR/plan.pid"; exec sleep 1000 ;;
apply) : > "$DIR/applied" ;;
esac`)
	f := newFleet(t, d)
	running, err := d.Start(testContext(t), f.job([]string{"p-1"}, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a plan, and an apply beside it", func() bool {
		return exists(filepath.Join(dir, "plan.pid")) && slices.Contains(calls(t, dir), "apply")
	})
	runner, err := f.dir().holder()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(runner, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if out, err := running.Wait(testContext(t)); err != nil || kindOf(out) != FaultLost {
		t.Fatal(out.Err, err)
	}
	eventually(t, "the end of all that it started", func() bool {
		return len(processes(func(p process) bool { return p.session == runner })) == 0
	})
	if exists(filepath.Join(dir, "applied")) {
		t.Error("something was applied without a plan")
	}
}

func TestATerraformThatTakesNoPipeForItsConfigurationAppliesAfterThePlan(t *testing.T) {
	d, dir := fakeTerraform(t, `
case "$1" in
plan) while [ ! -e "$DIR/refused" ]; do sleep 0.05; done; sleep 0.3; change create p-1; summary 1 0; exit 2 ;;
apply) hook apply_complete create p-1; state 1 p-1 ;;
esac`)
	if err := os.WriteFile(filepath.Join(dir, "no-pipes"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFleet(t, d)
	out := f.must(f.job([]string{"p-1"}, nil, nil))
	if diff := cmp.Diff([]string{"init ok", "plan ok", "apply ok", "apply unused"}, ops(out)); diff != "" {
		t.Error(diff)
	}
}

func TestWhatAnApplyStartsInheritsNoSettingsOfOurs(t *testing.T) {
	const provisioner = "\nprovisioner \"local-exec\" {\ncommand = \"x\"\n}\n"
	for name, test := range map[string]struct {
		module string
		ours   bool
	}{
		"a provisioner":        {`resource "terraform_data" "x" { ` + provisioner + ` }`, false},
		"one among others":     {"resource \"a\" \"b\" {}\nresource \"a\" \"c\" {\n" + provisioner + "\n}", false},
		"one that has its own": {"resource \"a\" \"b\" {\nprovisioner \"local-exec\" {\ncommand = \"x\"\nenvironment = { GOGC = \"\", \"GOMEMLIMIT\" = \"\", GOMAXPROCS = each.key }\n}\n}", true},
		"one that has some":    {"resource \"a\" \"b\" {\nprovisioner \"local-exec\" {\ncommand = \"x\"\nenvironment = { GOGC = \"\" }\n}\n}", false},
		"one that may have":    {"resource \"a\" \"b\" {\nprovisioner \"local-exec\" {\ncommand = \"x\"\nenvironment = merge({ GOGC = \"\" }, var.guests)\n}\n}", false},
		"a module of another":  {`module "m" { source = "./m" }`, false},
		"nothing":              {`resource "terraform_data" "x" { input = "provisioner" }`, true},
	} {
		for _, blank := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, blank %t", name, blank), func(t *testing.T) {
				d, dir := fakeTerraform(t, `
case "$1" in
plan) change create p-1; summary 1 0; exit 2 ;;
apply) env > "$DIR/env"; change create p-1; summary 1 0; hook apply_complete create p-1; state 1 p-1 ;;
esac`)
				f := newFleet(t, d)
				f.module, f.vars = t.TempDir(), nil
				if err := os.WriteFile(filepath.Join(f.module, "main.tf"), []byte(inputs+test.module), 0o600); err != nil {
					t.Fatal(err)
				}
				if blank {
					if err := os.WriteFile(filepath.Join(dir, "blank"), nil, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				f.must(f.job([]string{"p-1"}, nil, nil))
				raw, err := os.ReadFile(filepath.Join(dir, "env"))
				if err != nil {
					t.Fatal(err)
				}
				if got := strings.Contains(string(raw), "GOGC="); got != test.ours {
					t.Errorf("GOGC is set: %t", got)
				}
			})
		}
	}
}

func TestAModuleStartsNothingOnlyWhereAllOfItWasRead(t *testing.T) {
	const quiet = `resource "terraform_data" "x" {}`
	for name, test := range map[string]struct {
		files map[string]string
		calls bool
	}{
		"quiet":            {map[string]string{"main.tf": quiet}, false},
		"in an override":   {map[string]string{"main.tf": quiet, "x_override.tf": "resource \"terraform_data\" \"x\" {\nprovisioner \"file\" {}\n}"}, true},
		"in JSON":          {map[string]string{"main.tf.json": `{"resource":{"terraform_data":{"x":{"provisioner":{"local-exec":{"command":"x"}}}}}}`}, true},
		"in a JSON list":   {map[string]string{"main.tf.json": `{"resource":[{"terraform_data":[{"x":[{"provisioner":[{"local-exec":{}}]}]}]}]}`}, true},
		"quiet JSON":       {map[string]string{"main.tf.json": `{"resource":{"terraform_data":{"x":{"input":1}}}}`}, false},
		"its own in JSON":  {map[string]string{"main.tf.json": `{"resource":{"a":{"b":{"provisioner":[{"local-exec":{"command":"x","environment":{"GOGC":"","GOMEMLIMIT":"","GOMAXPROCS":"1"}}}]}}}}`}, false},
		"for OpenTofu":     {map[string]string{"main.tf": quiet, "main.tofu": ""}, true},
		"another's module": {map[string]string{"main.tf": `module "m" { source = "x/y/z" }`}, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range test.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			mod, err := readModule(dir)
			if err != nil || mod.calls != test.calls {
				t.Error(mod.calls, err)
			}
		})
	}
}

func TestTheBundledLocalModuleHandsNoSettingsOfOursOn(t *testing.T) {
	tree, ok := modules.Lookup("local")
	if !ok {
		t.Fatal("there is no such module")
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, tree); err != nil {
		t.Fatal(err)
	}
	if mod, err := readModule(dir); err != nil || mod.calls {
		t.Error("its provisioners would inherit them:", err)
	}
}
