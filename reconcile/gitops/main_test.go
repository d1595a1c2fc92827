package gitops

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"greenroom/reconcile"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/gitops/gitopstest"
)

// TestMain lets the test binary be the reader that a source starts.
func TestMain(m *testing.M) {
	// Else every process built with -race sleeps for a second when it ends.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	if len(os.Args) == 2 && os.Args[1] == "reader" {
		os.Exit(ReaderMain(context.Background(), os.Stdin, os.Stdout))
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(built)
		os.Exit(code)
	}))
}

// patience bounds what a test waits for; nothing is asserted about how long anything takes.
const patience = 2 * time.Minute

// followed is a source that is followed in a test, with all that was offered.
type followed struct {
	*Source
	t      *testing.T
	offers chan reconcile.Revision
	log    *logbook

	mu      sync.Mutex
	inForce string
	stop    func()
}

type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// open opens a source whose reader is the test binary.
func open(t *testing.T, o Options) *followed {
	t.Helper()
	gitopstest.Isolate(t)
	f := &followed{t: t, offers: make(chan reconcile.Revision, 100), log: &logbook{}, stop: func() {}}
	if o.StateDir == "" {
		o.StateDir = t.TempDir()
	}
	if o.Every == 0 {
		o.Every = 50 * time.Millisecond
	}
	o.Log = slog.New(slog.NewTextHandler(f.log, nil))
	o.InForce = func() string {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.inForce
	}
	var err error
	if f.Source, err = Open(o); err != nil {
		t.Fatal(err)
	}
	return f
}

// follow opens a source and follows it until the test ends, or until stop.
func follow(t *testing.T, o Options) *followed {
	t.Helper()
	f := open(t, o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Follow(ctx, func(r reconcile.Revision) { f.offers <- r }) }()
	var once sync.Once
	f.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(f.stop)
	return f
}

// adopt says which revision is in force.
func (f *followed) adopt(revision string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inForce = revision
}

// next waits for the next offer.
func (f *followed) next() reconcile.Revision {
	f.t.Helper()
	select {
	case r := <-f.offers:
		return r
	case <-time.After(patience):
		f.t.Fatalf("nothing was offered\n%s", f.log)
		return reconcile.Revision{}
	}
}

// good waits for a revision that must be the next offer and a good one.
func (f *followed) good(name string) reconcile.Revision {
	f.t.Helper()
	r := f.next()
	if r.Fault != nil {
		f.t.Fatalf("a fault was offered: %s: %v", r.Fault.Reason, r.Fault)
	}
	if name != "" && (r.Name != name || r.Fleet.Revision != name) {
		f.t.Fatalf("revision %q (of the fleet: %q) was offered, want %q", r.Name, r.Fleet.Revision, name)
	}
	return r
}

// bad waits for a fault that must be the next offer, with a reason and each of the texts in its message.
func (f *followed) bad(reason string, texts ...string) reconcile.Revision {
	f.t.Helper()
	r := f.next()
	mustFault(f.t, r, reason, texts...)
	return r
}

func mustFault(t *testing.T, r reconcile.Revision, reason string, texts ...string) {
	t.Helper()
	if r.Fault == nil {
		t.Fatalf("revision %q was offered, want a fault %s", r.Name, reason)
	}
	if r.Fault.Reason != reason {
		t.Fatalf("a fault %s was offered, want %s: %v", r.Fault.Reason, reason, r.Fault)
	}
	for _, text := range texts {
		if !strings.Contains(r.Fault.Message, text) {
			t.Errorf("the fault does not say %q: %v", text, r.Fault)
		}
	}
}

// quiet asserts that nothing more was offered until the source was looked at several times more.
func (f *followed) quiet() {
	f.t.Helper()
	timer := time.After(10 * f.o.Every)
	select {
	case r := <-f.offers:
		f.t.Fatalf("unexpectedly offered: %+v, fault %v", r, r.Fault)
	case <-timer:
	}
}

func revisionOf(f *condition.Fault) reconcile.Revision { return reconcile.Revision{Fault: f} }

func mustGood(t *testing.T, r reconcile.Revision) {
	t.Helper()
	if r.Fault != nil {
		t.Fatalf("%s: %v", r.Fault.Reason, r.Fault)
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// onePool is a fleet with a pool of so many guests.
func onePool(n string) string {
	return "pool \"local\" {\n  module = \"local\"\n  max = " + n + "\n}\n"
}

// fleetFiles are specs with a script and a module of their own, in a directory.
func fleetFiles(dir, n string) map[string]string {
	return map[string]string{
		filepath.Join(dir, "fleet.hcl"): "pool \"p\" {\n  module = \"./modules/m\"\n  max = " + n + "\n}\n" +
			"cache \"ci\" {\n  pools = [pool.p]\n  prepare = \"scripts/prepare.sh\"\n}\n",
		filepath.Join(dir, "scripts/prepare.sh"): "echo ready for " + n + "\n",
		filepath.Join(dir, "modules/m/main.tf"):  "variable \"guests\" {}\n",
	}
}
