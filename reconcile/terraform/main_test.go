package terraform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain lets the test binary be the other programs that the driver starts: the runner, a daemon
// to be killed, and a Terraform that does what the real one won't do on demand.
func TestMain(m *testing.M) {
	// Else every process built with -race sleeps for a second when it ends.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch {
	case len(os.Args) == 3 && os.Args[1] == "runner":
		os.Exit(RunnerMain(ctx, os.Args[2]))
	case len(os.Args) > 2 && os.Args[1] == "guestd":
		os.Exit(guestdMain(os.Args[2]))
	case len(os.Args) == 3 && os.Args[1] == "daemon":
		os.Exit(daemonMain(ctx, os.Args[2]))
	}
	stop()
	goleak.VerifyTestMain(m)
}

// daemonJob is what a test gives its daemon process to start.
type daemonJob struct {
	StateDir, ModuleDir string
	Job                 Job
	Binary, Preview     string // the directory to only preview in
}

// guestdMain is what the bundled local module asks of the binary, without a guest.
func guestdMain(command string) int {
	if command == "start" {
		fmt.Println(`{"id":"made","host":"127.0.0.1","port":22,"user":"root","host_key":"","attributes":{}}`)
	}
	return 0
}

// daemonMain starts one run and waits, as the server does, until it is killed.
func daemonMain(ctx context.Context, file string) int {
	var in daemonJob
	if err := readJSON(file, &in); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	d, err := New(ctx, Options{StateDir: in.StateDir, Binary: in.Binary, Env: []string{"GORACE"}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	in.Job.Module.Dir = in.ModuleDir
	if in.Preview != "" {
		_, err = d.Preview(ctx, in.Preview, in.Job)
	} else {
		_, err = d.Run(ctx, in.Job)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// patience bounds what a test waits for; nothing is asserted about how long anything takes.
const patience = 2 * time.Minute

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// newDriver is a driver on real Terraform in a directory of its own.
func newDriver(t *testing.T, change ...func(*Options)) *Driver {
	t.Helper()
	if _, err := exec.LookPath("terraform"); err != nil {
		t.Fatalf("these tests need terraform on PATH (https://developer.hashicorp.com/terraform/install): %v", err)
	}
	opts := Options{StateDir: t.TempDir(), Env: []string{"GORACE"}}
	for _, c := range change {
		c(&opts)
	}
	d, err := New(testContext(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Shutdown(context.Background(), 0); err != nil {
			t.Error(err)
		}
	})
	return d
}

// fleet builds the jobs of one shard, run after run.
type fleet struct {
	t      *testing.T
	driver *Driver
	module string
	flags  string
	guests map[string]Guest
	vars   map[string]any
	runs   int
}

func newFleet(t *testing.T, d *Driver) *fleet {
	t.Helper()
	flags := t.TempDir()
	return &fleet{
		t: t, driver: d, module: "testdata/good", flags: flags,
		guests: map[string]Guest{}, vars: map[string]any{"flags": flags},
	}
}

// job changes the wanted set by the claims and returns the job for it.
func (f *fleet) job(create, replace, destroy []string) Job {
	f.t.Helper()
	for _, name := range create {
		f.guests[name] = Guest{Incarnation: f.guests[name].Incarnation + 1}
	}
	for _, name := range replace {
		f.guests[name] = Guest{Incarnation: f.guests[name].Incarnation + 1}
	}
	for _, name := range destroy {
		delete(f.guests, name)
	}
	vars, err := json.Marshal(f.vars)
	if err != nil {
		f.t.Fatal(err)
	}
	guests := maps.Clone(f.guests)
	f.runs++
	return Job{
		Shard: "shard-1", Run: fmt.Sprintf("run-%d", f.runs), Pool: "p", Module: Module{Dir: f.module},
		Guests: guests, Variables: vars, Create: create, Replace: replace, Destroy: destroy,
	}
}

// run runs a job and acknowledges it.
func (f *fleet) run(job Job) Outcome {
	f.t.Helper()
	out, err := f.driver.Run(testContext(f.t), job)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := f.driver.Ack(job.Shard, job.Run); err != nil {
		f.t.Fatal(err)
	}
	return out
}

// must runs a job that has to succeed.
func (f *fleet) must(job Job) Outcome {
	f.t.Helper()
	out := f.run(job)
	if out.Err != nil {
		log, _ := os.ReadFile(f.dir().log())
		f.t.Fatalf("%v\n%s", out.Err, log)
	}
	return out
}

func (f *fleet) dir() shardDir { return f.driver.shard("shard-1") }

func (f *fleet) flag(name string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.flags, name), nil, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) unflag(name string) {
	f.t.Helper()
	if err := os.Remove(filepath.Join(f.flags, name)); err != nil {
		f.t.Fatal(err)
	}
}

// eventually waits for something that another process does.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx := testContext(t)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return !errors.Is(err, os.ErrNotExist)
}

func kindOf(out Outcome) string {
	if out.Err == nil {
		return ""
	}
	return out.Err.Kind
}
