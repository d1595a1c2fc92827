package terraform

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// stateServer is a state store with locks for Terraform's http backend
// (https://developer.hashicorp.com/terraform/language/backend/http).
type stateServer struct {
	mu          sync.Mutex
	state, lock []byte
	readOnly    bool
	away        bool
	methods     []string
}

func (s *stateServer) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.methods = append(s.methods, req.Method)
	body, err := io.ReadAll(req.Body)
	switch {
	case err != nil || s.away || s.readOnly && req.Method == http.MethodPost:
		w.WriteHeader(http.StatusInternalServerError)
	case req.Method == http.MethodPost:
		s.state = body
	case req.Method == "LOCK" && s.lock != nil:
		w.WriteHeader(http.StatusLocked)
		_, _ = w.Write(s.lock)
	case req.Method == "LOCK":
		s.lock = body
	case req.Method == "UNLOCK":
		s.lock = nil
	case s.state == nil:
		w.WriteHeader(http.StatusNotFound)
	default:
		_, _ = w.Write(s.state)
	}
}

func (s *stateServer) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// requests are the methods of those since the last call.
func (s *stateServer) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	methods := s.methods
	s.methods = nil
	return methods
}

func newRemoteFleet(t *testing.T) (*stateServer, *fleet) {
	t.Helper()
	states := &stateServer{}
	server := httptest.NewServer(states)
	t.Cleanup(server.Close)
	address := server.URL + "/{shard}"
	backend, err := json.Marshal(map[string]any{"type": "http", "config": map[string]any{
		"address": address, "lock_address": address, "unlock_address": address, "retry_max": 0,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return states, newFleet(t, newDriver(t, func(o *Options) { o.Backend = backend }))
}

func TestAStateThatTheBackendRefusesIsPushedLater(t *testing.T) {
	states, f := newRemoteFleet(t)
	f.must(f.job([]string{"p-1"}, nil, nil))
	reached, free := f.hang("p-2")
	job := f.job([]string{"p-2"}, nil, nil)
	running, err := f.driver.Start(testContext(t), job)
	if err != nil {
		t.Fatal(err)
	}
	reached()
	states.set(func() { states.readOnly = true })
	free()
	out, err := running.Wait(testContext(t))
	if err != nil || kindOf(out) != FaultState || !exists(filepath.Join(f.dir().work(), erroredFile)) {
		t.Fatal(out.Err, err)
	}
	if err := f.driver.Ack(job.Shard, job.Run); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.driver.Inventory(testContext(t), "shard-1"); err == nil {
		t.Error("an inventory was made of a state that is not whole")
	}

	states.set(func() { states.away = true })
	if out := f.run(f.job(nil, nil, nil)); kindOf(out) != FaultBackend || out.Err.Stalled() {
		t.Error("an absent backend needs no human:", out.Err)
	}

	states.set(func() { states.away, states.readOnly = false, false })
	out = f.must(f.job(nil, nil, nil))
	if diff := cmp.Diff(map[string]string{"p-1": "p/p-1/1", "p-2": "p/p-2/1"}, ids(out)); diff != "" {
		t.Error(diff)
	}
	if !slices.Contains(ops(out), "push ok") || out.Changed {
		t.Error(ops(out), out.Changed)
	}
}

// The http backend does not say who holds a lock, so that it can't be told to be ours.
func TestALockWhoseHolderIsNotKnownIsNotBroken(t *testing.T) {
	states, f := newRemoteFleet(t)
	reached, free := f.hang("p-1")
	job := f.job([]string{"p-1"}, nil, nil)
	running, err := f.driver.Start(testContext(t), job)
	if err != nil {
		t.Fatal(err)
	}
	reached()
	if err := running.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if out, err := running.Wait(testContext(t)); err != nil || kindOf(out) != FaultLost {
		t.Fatal(out.Err, err)
	}
	free()
	if err := f.driver.Ack(job.Shard, job.Run); err != nil {
		t.Fatal(err)
	}
	delete(f.guests, "p-1")
	job = f.job([]string{"p-1"}, nil, nil)
	out := f.run(job)
	if kindOf(out) != FaultLocked || out.Err.Stalled() || !strings.Contains(out.Err.Message, "does not name") {
		t.Error(out.Err)
	}
	if slices.Contains(ops(out), "unlock ok") {
		t.Error("the lock was broken")
	}
	states.set(func() { states.lock = nil }) // a human did
	job.Run = "after"
	f.must(job)
}
