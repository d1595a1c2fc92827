package modules_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"greenroom/internal/ssh"
	"greenroom/modules"
)

// root is a Terraform root of the local module.
type root struct {
	t      *testing.T
	dir    string
	guests string
	inputs map[string]any
}

type guest struct {
	ID         string            `json:"id"`
	Host       string            `json:"host"`
	Port       int               `json:"port"`
	User       string            `json:"user"`
	HostKey    string            `json:"host_key"`
	Attributes map[string]string `json:"attributes"`
}

func (g guest) target() ssh.Target {
	return ssh.Target{Host: g.Host, Port: g.Port, User: g.User, HostKey: g.HostKey}
}

func newRoot(t *testing.T) *root {
	t.Helper()
	tree, _ := modules.Lookup("local")
	r := &root{t: t, dir: t.TempDir(), guests: filepath.Join(t.TempDir(), "guests"), inputs: map[string]any{
		"pool": "local", "guests": map[string]any{}, "ssh_authorized_keys": []string{},
	}}
	must(t, os.CopyFS(r.dir, tree))
	t.Cleanup(func() { r.terraform(0, "destroy", "-auto-approve") })
	r.terraform(0, "init")
	return r
}

func (r *root) have(name string, incarnation int) {
	r.inputs["guests"].(map[string]any)[name] = map[string]any{"incarnation": incarnation, "user_data": ""}
}

// terraform runs one command on the current inputs and returns its output.
func (r *root) terraform(want int, args ...string) string {
	r.t.Helper()
	text, err := json.Marshal(r.inputs)
	must(r.t, err)
	must(r.t, os.WriteFile(filepath.Join(r.dir, "terraform.tfvars.json"), text, 0o600))
	program, err := exec.LookPath("terraform")
	if err != nil {
		r.t.Fatalf("%v: install Terraform (make test does)", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if !slices.Contains([]string{"output", "fmt"}, args[0]) {
		args = append(args, "-input=false", "-no-color")
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = r.dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + r.dir, "CHECKPOINT_DISABLE=1",
		"GREENROOM_BINARY=" + binary(r.t), "GREENROOM_GUESTS_DIR=" + r.guests,
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || cmd.ProcessState.ExitCode() != want {
		r.t.Fatalf("terraform %v: exit code %d, want %d (%v)\n%s", args, cmd.ProcessState.ExitCode(), want, err, out)
	}
	return string(out)
}

func (r *root) apply(args ...string) map[string]guest {
	r.t.Helper()
	r.terraform(0, append([]string{"apply", "-auto-approve"}, args...)...)
	r.unchanged()
	var guests map[string]guest
	must(r.t, json.Unmarshal([]byte(r.terraform(0, "output", "-json", "guests")), &guests))
	return guests
}

// unchanged asserts that a plan of the current inputs finds nothing to do.
func (r *root) unchanged() {
	r.t.Helper()
	r.terraform(0, "plan", "-detailed-exitcode")
}

// binary is the greenroom command, built once.
var binary = func() func(*testing.T) string {
	var once sync.Once
	var path, failure string
	return func(t *testing.T) string {
		t.Helper()
		once.Do(func() {
			path = filepath.Join(binDir, "greenroom")
			if out, err := exec.Command("go", "build", "-o", path, "greenroom/cmd/greenroom").CombinedOutput(); err != nil {
				failure = fmt.Sprintf("build greenroom: %v\n%s", err, out)
			}
		})
		if failure != "" {
			t.Fatal(failure)
		}
		return path
	}
}()

var binDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "greenroom-modules-")
	if err != nil {
		panic(err)
	}
	binDir = dir
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func answers(t *testing.T, g guest) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return ssh.Handshake(ctx, g.target()) == nil
}

func TestLocalGuestsLiveAndDieByTerraform(t *testing.T) {
	r := newRoot(t)
	key, line, err := ssh.NewEphemeral()
	must(t, err)
	r.inputs["ssh_authorized_keys"] = []string{line}
	for i := range 3 {
		r.have("local-"+strconv.Itoa(i+1), 1)
	}
	born := r.apply()
	for name, g := range born {
		if !answers(t, g) || !strings.HasPrefix(g.ID, name+".1-") {
			t.Errorf("%s does not answer as itself: %+v", name, g)
		}
	}
	want := map[string]string{"dir": filepath.Join(r.guests, "local-1.1"), "isolation": "process", "reset": "greenroom-guest-reset"}
	if diff := cmp.Diff(want, born["local-1"].Attributes); diff != "" || len(born) != 3 {
		t.Errorf("%d guests; attributes (-want +got):\n%s", len(born), diff)
	}
	client, err := ssh.Dial(t.Context(), born["local-2"].target(), key)
	must(t, err)
	defer client.Close()
	var out strings.Builder
	_, err = client.Run(t.Context(), "echo $GREENROOM_GUEST", nil, &out, io.Discard, nil)
	if err != nil || out.String() != "local-2\n" {
		t.Errorf("%q, %v", out.String(), err)
	}

	r.have("local-2", 2)
	replaced := r.apply(`-replace=terraform_data.guest["local-3"]`)
	for name, again := range map[string]bool{"local-1": true, "local-2": false, "local-3": false} {
		if same := cmp.Equal(born[name], replaced[name]); same != again || !answers(t, replaced[name]) {
			t.Errorf("%s: same %v, want %v: %+v", name, same, again, replaced[name])
		}
	}
	for _, name := range []string{"local-2", "local-3"} {
		if answers(t, born[name]) {
			t.Errorf("the old %s still answers", name)
		}
	}

	delete(r.inputs["guests"].(map[string]any), "local-1")
	if left := r.apply(); len(left) != 2 || answers(t, born["local-1"]) {
		t.Errorf("local-1 was not taken away: %v", left)
	}
	r.terraform(0, "destroy", "-auto-approve")
	r.assertNothingLeft()
}

// assertNothingLeft looks for guests' directories and for processes that carry the mark of one.
func (r *root) assertNothingLeft() {
	r.t.Helper()
	if entries, err := os.ReadDir(r.guests); err != nil || len(entries) > 0 {
		r.t.Errorf("directories are left: %v, %v", entries, err)
	}
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	must(r.t, err)
	for _, path := range environs {
		environ, _ := os.ReadFile(path)
		if strings.Contains(string(environ), "GREENROOM_GUEST_DIR="+r.guests) {
			r.t.Errorf("a process is left: %s", path)
		}
	}
}

func TestADeadLocalGuestIsPlannedAndReplacedLikeAnyOther(t *testing.T) {
	r := newRoot(t)
	r.have("local-1", 1)
	r.have("local-2", 1)
	born := r.apply()
	var info struct{ PID int }
	text, err := os.ReadFile(filepath.Join(r.guests, "local-1.1", "guest.json"))
	must(t, err)
	must(t, json.Unmarshal(text, &info))
	if info.PID < 2 {
		t.Fatalf("pid %d is not a guest's", info.PID)
	}
	must(t, syscall.Kill(info.PID, syscall.SIGKILL))
	r.unchanged()
	must(t, os.RemoveAll(filepath.Join(r.guests, "local-1.1")))
	must(t, os.RemoveAll(filepath.Join(r.dir, ".guests")))
	r.unchanged()
	r.have("local-1", 2)
	again := r.apply()
	if !answers(t, again["local-1"]) || !cmp.Equal(born["local-2"], again["local-2"]) {
		t.Errorf("born %+v, then %+v", born, again)
	}
}

func TestCredentialsOfLocalGuestsAreTheirsFromBirth(t *testing.T) {
	r := newRoot(t)
	_, line, err := ssh.NewEphemeral()
	must(t, err)
	r.have("local-1", 1)
	r.apply()
	r.inputs["ssh_authorized_keys"] = []string{line}
	r.inputs["pool"] = "renamed"
	r.unchanged()
	state, err := os.ReadFile(filepath.Join(r.dir, "terraform.tfstate"))
	must(t, err)
	if strings.Contains(string(state), line) {
		t.Error("the state holds the credentials")
	}
}

func TestTwentyLocalGuestsAreBornTogether(t *testing.T) {
	r := newRoot(t)
	for i := range 20 {
		r.have("local-"+strconv.Itoa(i+1), 1)
	}
	ports := map[int]bool{}
	for name, g := range r.apply() {
		if ports[g.Port] = true; !answers(t, g) {
			t.Errorf("%s does not answer", name)
		}
	}
	if len(ports) != 20 {
		t.Errorf("%d ports for 20 guests", len(ports))
	}
	r.terraform(0, "destroy", "-auto-approve")
	r.assertNothingLeft()
}

func TestTheLocalModuleIsFormatted(t *testing.T) {
	newRoot(t).terraform(0, "fmt", "-check", "-diff")
}

func TestBadInputsOfTheLocalModuleAreExplained(t *testing.T) {
	tests := map[string]struct {
		set  func(*root)
		want string
	}{
		"isolation":   {func(r *root) { r.inputs["isolation"] = "vm" }, `Allowed for isolation are "process" and "namespaces"`},
		"directory":   {func(r *root) { r.inputs["directory"] = "guests" }, "absolute path"},
		"name":        {func(r *root) { r.have("../x", 1) }, "Guest names are"},
		"incarnation": {func(r *root) { r.have("local-1", 0) }, "whole number from 1"},
		"user data": {func(r *root) {
			r.inputs["guests"] = map[string]any{"local-1": map[string]any{"incarnation": 1, "user_data": strings.Repeat("x", 70000)}}
		}, "at most 64 KiB"},
		"keys": {func(r *root) { r.inputs["ssh_authorized_keys"] = []string{"a\nb"} }, "one line"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRoot(t)
			test.set(r)
			if out := strings.Join(strings.Fields(r.terraform(1, "plan")), " "); !strings.Contains(strings.ReplaceAll(out, "│ ", ""), test.want) {
				t.Errorf("no %q in:\n%s", test.want, out)
			}
			r.inputs = map[string]any{"pool": "local", "guests": map[string]any{}}
		})
	}
}

func TestALocalGuestThatCannotBeBornFailsAloneAndLeavesNothing(t *testing.T) {
	r := newRoot(t)
	r.have("local-1", 1)
	r.inputs["guests"].(map[string]any)["local-2"] = map[string]any{"incarnation": 1, "user_data": "#!/bin/sh\necho no such package >&2; exit 3\n"}
	if out := r.terraform(1, "apply", "-auto-approve"); !strings.Contains(out, "no such package") {
		t.Errorf("the reason is missing:\n%s", out)
	}
	delete(r.inputs["guests"].(map[string]any), "local-2")
	if left := r.apply(); len(left) != 1 || !answers(t, left["local-1"]) {
		t.Errorf("the healthy guest was lost: %v", left)
	}
}
