package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/lease/leasetest"
	"greenroom/reconcile/condition"
)

func TestARedisThatIsAwayAtTheStartIsWaitedFor(t *testing.T) {
	t.Parallel()
	redis := leasetest.Redis(t)
	redis.Stop(syscall.SIGTERM)
	h := newHouse(t, options{redis: redis.URL})
	h.write(fleet{max: 2, warm: 1, size: 2})
	h.start()
	h.refuses()
	if status, body, err := h.get("/readyz"); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("/readyz answers %d %s, %v, want 503", status, body, err)
	}
	redis.Start()
	h.converged()
	h.release(h.acquire().ID)
}

// refuses asserts that a lease is refused for now, and that everything which needs no store is still answered.
func (h *house) refuses() {
	h.Helper()
	r := h.call("", "POST", "/v1/leases", `{"cache": "ci", "wait": "0s"}`)
	if r.status != http.StatusServiceUnavailable || r.Code != "unavailable" || r.header.Get("Retry-After") == "" {
		h.Errorf("a lease is answered with %d %+v, Retry-After %q, want 503", r.status, r.Problem, r.header.Get("Retry-After"))
	}
	h.until("the status says that the store is away", func() error {
		st, err := h.api.Status(h.Context())
		if err == nil && st.Store == "" {
			err = fmt.Errorf("it says %+v", st.Conditions)
		}
		return err
	})
	if status, _, err := h.get("/healthz"); err != nil || status != http.StatusOK {
		h.Errorf("/healthz answers %d, %v, want 200", status, err)
	}
}

func TestARedisThatGoesAwayLosesNoLease(t *testing.T) {
	t.Parallel()
	redis := leasetest.Redis(t)
	info := must(redis.Client.Info(t.Context(), "server").Result())(t)
	pid := must(strconv.Atoi(regexp.MustCompile(`process_id:(\d+)`).FindStringSubmatch(info)[1]))(t)
	h := newHouse(t, options{redis: redis.URL})
	h.write(fleet{max: 6, warm: 1, size: 4})
	h.start()
	h.converged()
	l := h.acquire()
	h.shelved(1)
	alive, before := h.living(), h.guests()
	away := []struct {
		name      string
		down, up  func()
		wantsWarm int
	}{
		{"it hangs", func() { noError(t, syscall.Kill(pid, syscall.SIGSTOP)) }, func() { noError(t, syscall.Kill(pid, syscall.SIGCONT)) }, 2},
		{"it is killed", func() { redis.Stop(syscall.SIGKILL) }, redis.Start, 3},
	}
	ctx, end := context.WithCancel(t.Context())
	lost := h.api.KeepAlive(ctx, l, client.Heartbeat{})
	for _, a := range away {
		a.down()
		h.until("leases are refused", func() error {
			if r := h.call("", "POST", "/v1/leases", `{"cache": "ci", "wait": "0s"}`); r.status != http.StatusServiceUnavailable {
				return fmt.Errorf("%s: a lease is answered with %d %+v", a.name, r.status, r.Problem)
			}
			return nil
		})
		h.refuses()
		h.write(fleet{max: 6, warm: a.wantsWarm, size: 4})
		a.up()
		h.converged()
		h.shelved(a.wantsWarm)
		now := must(h.api.Lease(t.Context(), l.ID))(t)
		if now.Phase != lease.Active || principal(now.Guest) != principal(l.Guest) {
			t.Errorf("%s: the lease is %+v", a.name, now)
		}
	}
	end()
	if err := <-lost; err != nil {
		t.Errorf("the heartbeat: %v", err)
	}
	after, still := h.guests(), h.living()
	for name, g := range before {
		if after[name].Incarnation != g.Incarnation || still[g.Principal()][0] != alive[g.Principal()][0] {
			t.Errorf("guest %s was touched: %+v", g.Principal(), after[name])
		}
	}
	h.matched()
	h.release(l.ID)
}

func TestAGuestIsGivenBackAlsoWhenTheStoreWasLostMeanwhile(t *testing.T) {
	t.Parallel()
	redis := leasetest.Redis(t)
	h := newHouse(t, options{redis: redis.URL})
	h.write(fleet{max: 1, warm: 1, size: 1})
	h.start()
	h.converged()
	gate := h.path("gate")
	noError(t, syscall.Mkfifo(gate, 0o600))
	var code int
	var errs string
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, errs, code = h.cli("with", "--cache", "ci", "--", "cat", gate)
	}()
	open := must(os.OpenFile(gate, os.O_WRONLY, 0))(t) // it is being read
	next := make(chan int, 1)
	go func() {
		_, _, code := h.cli("with", "--cache", "ci", "--", "true")
		next <- code
	}()
	h.until("another waits in line", func() error {
		c, err := h.api.Cache(h.Context(), "ci")
		if err == nil && c.Queue != 1 {
			err = fmt.Errorf("the queue has %d", c.Queue)
		}
		return err
	})
	noError(t, redis.Client.FlushAll(t.Context()).Err())
	h.in("local-1", 1, lease.Quarantined)
	noError(t, open.Close())
	<-done
	if code != 0 || errs != "" {
		t.Errorf("exit status %d, %s", code, errs)
	}
	if code := <-next; code != 0 {
		t.Errorf("who waited in line ends with %d", code)
	}
	h.in("local-1", 1, lease.Shelved)
}

func TestASecondServerOnOneStateDirectoryIsRefused(t *testing.T) {
	h := newHouse(t, options{})
	h.write(fleet{max: 2, warm: 1, size: 1})
	h.start()
	second := h.launch()
	<-second.ended
	want := fmt.Sprintf("another server (pid %d) uses the state directory %s", h.server.cmd.Process.Pid, h.path("state"))
	if code := exitCode(t, second.err); code != 1 || !strings.Contains(second.log.String(), want) {
		t.Errorf("the second server ended with %d, want 1:\n%s", code, &second.log)
	}
	h.converged()
}

func TestAServerLeavesTheStoreOfAnotherAlone(t *testing.T) {
	redis := leasetest.Redis(t)
	owner := newHouse(t, options{redis: redis.URL})
	owner.write(fleet{max: 2, warm: 2, size: 2})
	owner.start()
	owner.converged()
	alive := owner.living()
	other := *owner                              // with another state directory; it has no guests to retire at the end
	other.dir = must(os.MkdirTemp("", "gr-"))(t) //nolint:usetesting // a test's name would make the socket's path too long
	t.Cleanup(func() { noError(t, os.RemoveAll(other.dir)) })
	noError(t, os.Mkdir(other.path("specs"), 0o700))
	other.write(fleet{max: 2, warm: 1, size: 1})
	id := string(must(os.ReadFile(owner.path("state/server.id")))(t))
	refused := func(args ...string) {
		t.Helper()
		other.args = args
		second := other.launch()
		<-second.ended
		if code, said := exitCode(t, second.err), second.log.String(); code != 1 || !strings.Contains(said, owner.path("state")) || !strings.Contains(said, id) {
			t.Errorf("it ended with %d:\n%s", code, said)
		}
		if diff := cmp.Diff(alive, owner.living()); diff != "" {
			t.Error(diff)
		}
	}
	refused()
	refused("--take-store", "another")
	owner.until("the cache was swept", func() error { return redis.Client.Get(t.Context(), "greenroom:{ci}:swept").Err() })
	owner.kill()
	swept := must(redis.Client.Get(t.Context(), "greenroom:{ci}:swept").Result())(t)
	refused()
	if again := must(redis.Client.Get(t.Context(), "greenroom:{ci}:swept").Result())(t); again != swept {
		t.Error("it says that somebody was there to renew leases")
	}
	owner.start()
	owner.converged()
	if diff := cmp.Diff(alive, owner.living()); diff != "" {
		t.Error(diff)
	}

	other.args = []string{"--take-store", id}
	other.api = must(client.New(client.Options{Addr: other.path("state/greenroom.sock"), Retry: patience}))(t)
	other.start()
	<-owner.server.ended // it was told that it is gone for good
	if said := owner.server.log.String(); !strings.Contains(said, other.path("state")) {
		t.Errorf("the one that the store was taken from ended with:\n%s", said)
	}
	mine := string(must(os.ReadFile(other.path("state/server.id")))(t))
	other.kill()
	owner.args = []string{"--take-store", mine}
	owner.start()
	owner.args = nil
	owner.converged()
}

func TestBadSpecsChangeNothing(t *testing.T) {
	h := newHouse(t, options{})
	good := fleet{max: 4, warm: 2, size: 2}
	h.write(good)
	h.start()
	h.converged()
	inForce, alive := h.revision, h.living()
	h.writeText("pool \"local\" {\n  module = \"local\"\n  max = \"many\"\n}\n")
	bad := func() {
		t.Helper()
		h.until("the status tells of the fault", func() error {
			st, err := h.api.Status(t.Context())
			if err == nil && (st.SpecFault == nil || st.Revision != inForce || !strings.Contains(st.SpecFault.Message, "fleet.hcl") || !strings.Contains(st.SpecFault.Message, `max = "many"`)) {
				err = fmt.Errorf("valid %t, revision %s: %v", st.SpecValid, st.Revision, st.SpecFault)
			}
			return err
		})
		if valid := h.metric("greenroom_spec_valid"); valid != 0 {
			t.Errorf("greenroom_spec_valid is %v, want 0", valid)
		}
		h.release(h.acquire().ID)
		h.shelved(2)
	}
	bad()
	h.kill()
	h.start() // a restart on bad specs goes on with the last good ones
	bad()
	for name, pids := range alive {
		if now := h.living()[name]; len(now) != 1 || now[0] != pids[0] {
			t.Errorf("guest %s was process %v and is %v", name, pids, now)
		}
	}
	good.warm, good.size = 3, 3
	h.write(good)
	h.converged()
	h.shelved(3)
	if valid := h.metric("greenroom_spec_valid"); valid != 1 {
		t.Errorf("greenroom_spec_valid is %v, want 1", valid)
	}
}

func TestWithoutTerraformLeasesAreServedAndNothingElse(t *testing.T) {
	h := newHouse(t, options{})
	h.write(fleet{max: 4, warm: 2, size: 2})
	h.start()
	h.converged()
	h.stop()

	h.args = []string{"--terraform", "/nonexistent/terraform"}
	h.start()
	h.until("the status names the missing binary", func() error {
		st, err := h.api.Status(t.Context())
		c := condition.Of(st.Conditions, condition.Waiting)
		if err == nil && (c.Reason != "TerraformMissing" || !strings.Contains(c.Message, "/nonexistent/terraform")) {
			err = fmt.Errorf("the conditions are %+v", st.Conditions)
		}
		return err
	})
	h.release(h.acquire().ID)
	if status, body, err := h.get("/readyz"); err != nil || status != http.StatusServiceUnavailable || !strings.Contains(body, "Terraform") {
		t.Errorf("/readyz answers %d %s, %v, want 503 that names Terraform", status, body, err)
	}
	h.write(fleet{max: 4, warm: 3, size: 3})
	h.stop()
	h.args = nil
	h.start()
	h.converged()
	h.shelved(3)
}

func TestAModuleThatBreaksTheContractStallsItsPoolUntilItIsMended(t *testing.T) {
	h := newHouse(t, options{})
	h.module("port = 22")
	h.write(text(`
pool "odd" {
  module = "./odd"
  max    = 2
  spare  = 1
  probe "tcp" { every = "1s" }
}
pool "local" {
  module = "local"
  max    = 2
  spare  = 1
}
`))
	h.start()
	h.until("the pool is stalled and says why", func() error {
		p, err := h.api.Pool(t.Context(), "odd")
		c := condition.Of(p.Conditions, condition.Stalled)
		if err == nil && (!c.Status || c.Reason != "FaultContract" || !strings.Contains(c.Message, "host")) {
			err = fmt.Errorf("the conditions are %+v", p.Conditions)
		}
		return err
	})
	h.until("the other pool is ready all the same", func() error {
		p, err := h.api.Pool(t.Context(), "local")
		if c := condition.Of(p.Conditions, condition.Ready); err == nil && !c.Status {
			err = errors.New(c.Message)
		}
		return err
	})
	broken := h.guests()["odd-1"]
	machine := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer machine.Close()
	h.module(fmt.Sprintf(`host = "127.0.0.1", port = %d, user = "nobody", host_key = "", attributes = {}`, machine.Addr().(*net.TCPAddr).Port))
	h.reread()
	h.converged()
	for _, g := range must(h.api.Guests(t.Context(), "odd"))(t) {
		if g.State != lease.Shelved || g.Digest == broken.Digest {
			t.Errorf("guest %+v, want one of the mended module, shelved", g)
		}
	}
}

// text is a spec as it is written.
type text string

func (t text) String() string { return string(t) }
