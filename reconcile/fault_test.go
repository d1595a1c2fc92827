package reconcile_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"greenroom/lease"
	"greenroom/lease/leasetest"
	"greenroom/reconcile"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/terraform"
	"greenroom/specs"
)

const inputs = `
variable "guests" {
  type = map(object({ incarnation = number, user_data = string }))
}
variable "pool" { type = string }
variable "ssh_authorized_keys" { type = list(string) }
`

const outputs = `
output "guests" {
  value = {
    for name, guest in terraform_data.guest : name => {
      id = guest.id, host = "127.0.0.1", port = 1, user = "u", host_key = "", attributes = {}
    }
  }
}
`

// machines is a module whose guests do nothing; they are made and destroyed by shell commands.
func machines(create, destroy string) string {
	return inputs + fmt.Sprintf(`
resource "terraform_data" "guest" {
  for_each         = var.guests
  triggers_replace = each.value.incarnation
  provisioner "local-exec" {
    command = %q
  }
  provisioner "local-exec" {
    when    = destroy
    command = %q
  }
}
`, create, destroy) + outputs
}

// module writes a module's text into a directory and returns an edit that makes the first pool use it.
func module(t *testing.T, dir, text string) func(*specs.Fleet) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "main.tf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(f *specs.Fleet) {
		f.Pools[0].Module, f.Pools[0].ModuleDir, f.Pools[0].Variables = dir, dir, []byte("{}")
	}
}

func TestAModuleThatIsMendedServes(t *testing.T) {
	for name, bad := range map[string]string{
		"after a syntax error":        "resource {",
		"after a missing output":      inputs,
		"after a provider not to get": inputs + `resource "nosuchprovider_thing" "x" {}` + outputs,
	} {
		t.Run(name, func(t *testing.T) {
			h, dir := openHouse(t), t.TempDir()
			h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 2, module(t, dir, bad))})
			h.until("the pool says what is wrong", func() bool {
				return h.condition(condition.Stalled).Status || h.condition(condition.Waiting).Status
			})
			h.loop.Offer(reconcile.Revision{Fleet: fleet("r2", 2, module(t, dir, machines("true", "true")))})
			h.shelved(2)
		})
	}
}

func TestAGuestThatCannotBeDestroyedIsTriedWithPauses(t *testing.T) {
	h, dir := openHouse(t), t.TempDir()
	may := filepath.Join(dir, "may-go")
	use := module(t, t.TempDir(), machines("true", "test -e "+may))
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 3, use)})
	h.shelved(3)
	before := h.driver.Started()
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r2", 2, use, func(f *specs.Fleet) { f.Caches[0].Size = 2 })})
	h.until("it has failed twice", func() bool {
		return slices.ContainsFunc(h.guests(t.Context()), func(g lease.Guest) bool { return g.Failures >= 2 })
	})
	if n := h.driver.Started() - before; n > 25 {
		t.Errorf("%d Terraform processes for two tries", n)
	}
	if err := os.WriteFile(may, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.loop.Wake("local")
	h.shelved(2)
}

func TestAModuleThatBreaksTheContractStallsAndMakesNoMore(t *testing.T) {
	h, dir := openHouse(t), t.TempDir()
	broken := strings.Replace(machines("true", "true"), "port = 1,", `port = "x",`, 1)
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 2, module(t, dir, broken))})
	h.until("the pool is stalled, and says why", func() bool {
		c := h.condition(condition.Stalled)
		return c.Status && c.Reason == "FaultContract" && strings.Contains(c.Message, "port")
	})
	for range 3 {
		h.loop.Notify(lease.Change{Kind: lease.Missed})
		h.until("another pass", func() bool { return h.condition(condition.Stalled).Status })
	}
	shards := map[string]bool{}
	for _, g := range h.guests(t.Context()) {
		shards[g.Shard] = true
	}
	if len(shards) > 1 {
		t.Errorf("machines that nobody can use, in %d shards", len(shards))
	}
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r2", 1, func(f *specs.Fleet) {
		f.Pools[0].Name = "other"
		f.Caches[0].Pools = []string{"other"}
	})})
	h.until("the removed pool leaves nothing behind", func() bool {
		all := h.guests(t.Context())
		return len(all) == 1 && all[0].Pool == "other" && all[0].State == lease.Shelved
	})
}

func TestAStoreThatIsLostDuringARunIsRebuiltWhole(t *testing.T) {
	h, dir := openHouse(t), t.TempDir()
	gate := filepath.Join(dir, "gate")
	text := machines("if [ -e "+gate+" ]; then while [ -e "+gate+" ]; do sleep 0.05; done; fi", "true")
	use := module(t, t.TempDir(), text)
	one := func(f *specs.Fleet) { f.Pools[0].ShardSize = 1 }
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 2, use, one)})
	h.shelved(2)
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r2", 3, use, one)})
	h.until("a run is applying", func() bool {
		locks, _ := filepath.Glob(filepath.Join(h.dir, "terraform", "shards", "*", "work", ".terraform.tfstate.lock.info"))
		return len(locks) > 0
	})
	if err := h.rdb.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	h.loop.Wake()
	h.until("the loop says that the store was lost", func() bool {
		st, _ := h.loop.Status(t.Context())
		return len(st.Conditions) > 0 && !st.Conditions[0].Status
	})
	if err := os.Remove(gate); err != nil {
		t.Fatal(err)
	}
	h.until("all three are quarantined", func() bool {
		n := 0
		for _, g := range h.guests(t.Context()) {
			if g.State == lease.Quarantined && g.Cache == "ci" {
				n++
			}
		}
		return n == 3
	})
	h.endQuarantine()
	h.shelved(3)
}

// endQuarantine lets time pass.
func (h *house) endQuarantine() {
	h.t.Helper()
	for _, g := range h.guests(h.t.Context()) {
		if g.State == lease.Quarantined {
			if err := h.rdb.ZAdd(h.t.Context(), "greenroom:{"+g.Cache+"}:quarantine", redis.Z{Score: 1, Member: g.Name}).Err(); err != nil {
				h.t.Fatal(err)
			}
		}
	}
	if err := h.store.Sweep(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	h.loop.Wake() // it knows the ends that it has read
}

func TestADrawnGuestComesBackToItsHolderWhenTheStoreIsLost(t *testing.T) {
	for _, test := range []struct {
		name  string
		after func(cmd []any) bool // the command with which the store is lost
	}{
		{"as soon as it was granted", func(cmd []any) bool {
			return slices.Contains(cmd, any("create")) && slices.Contains(cmd, any("greenroom:{ci}"))
		}},
		{"when its slot has moved", func(cmd []any) bool { return cmd[0] == "hset" && cmd[1] == "greenroom:{local}:slots" }},
		{"when its old record was taken away", func(cmd []any) bool { return slices.Contains(cmd, any("drawn into ci")) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := openHouse(t)
			small := func(f *specs.Fleet) {
				f.Pools[0].Spare, f.Pools[0].Max, f.Caches[0].Max, f.Caches[0].Size = 1, 1, 1, 1
			}
			h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 0, small)})
			h.shelved(1)
			granted := make(chan lease.Lease, 1)
			lose := func(ctx context.Context) error {
				leases, err := h.store.Leases(ctx, "ci", 1)
				if err != nil || len(leases) != 1 {
					return fmt.Errorf("%d leases, %w", len(leases), err)
				}
				err = h.rdb.FlushAll(ctx).Err()
				granted <- leases[0] // not before: it would be found where it was
				return err
			}
			lost := &mishap{after: test.after, do: lose}
			h.rdb.AddHook(lost)
			lost.armed.Store(true)
			if _, err := h.store.Acquire(t.Context(), alice, lease.Request{Cache: "ci", Wait: lease.Forever}); err != nil {
				t.Fatal(err)
			}
			l := <-granted
			h.loop.Wake()
			signer := lease.NewSigner(make([]byte, 32))
			h.until("the holder has it back", func() bool {
				back, err := h.store.Restore(t.Context(), alice, signer, l.ID, signer.Sign(l))
				return err == nil && back.Guest == l.Guest
			})
			h.until("the guest says so, too", func() bool {
				g, err := h.store.Guest(t.Context(), l.Guest)
				return err == nil && g.State == lease.Leased && g.Lease == l.ID
			})
		})
	}
}

func TestAGuestThatCannotBeBornIsReplacedAloneAlsoWhereGuestsHaveSeveralResources(t *testing.T) {
	h := openHouse(t)
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 4, func(f *specs.Fleet) {
		f.Pools[0].UserData = "#!/bin/sh\n[ $GREENROOM_GUEST != local-2 ]\n"
	})})
	h.until("the others are shelved as they were made", func() bool {
		first := 0
		for _, g := range h.guests(t.Context()) {
			if g.State == lease.Shelved && g.Incarnation == 1 && slices.Contains([]string{"local-1", "local-3", "local-4"}, g.Name) {
				first++
			}
		}
		return first == 3
	})
}

func TestAGuestThatIsNotWholeIsPublishedByNoRunThatFails(t *testing.T) {
	h, gate := openHouse(t), filepath.Join(t.TempDir(), "gate")
	write := func() {
		if err := os.WriteFile(gate, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write()
	use := module(t, t.TempDir(), inputs+fmt.Sprintf(`
locals { gate = file(%q) }
resource "terraform_data" "guest" {
  for_each         = var.guests
  triggers_replace = each.value.incarnation
  provisioner "local-exec" {
    command = "[ ${each.key} != local-2 ]"
  }
}
resource "terraform_data" "second" {
  for_each         = var.guests
  triggers_replace = [terraform_data.guest[each.key].id]
}
`, gate)+outputs)
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 3, use)})
	last := func(kind string, failures int) func() bool {
		return func() bool {
			st, err := h.loop.Status(t.Context())
			return err == nil && len(st.Pools) == 1 && slices.ContainsFunc(st.Pools[0].Shards, func(s condition.ShardStatus) bool {
				return s.LastRun != nil && s.LastRun.Result == kind && s.Failures >= failures
			})
		}
	}
	h.until("one fails, and the others are not whole", last(terraform.FaultApply, 1))
	if err := os.Remove(gate); err != nil {
		t.Fatal(err)
	}
	h.until("what the next run has left was taken in, which fails before its apply, as the one after it does", last(terraform.FaultPlan, 3))
	for _, g := range h.guests(t.Context()) {
		if g.State == lease.Booting || g.State == lease.Shelved {
			t.Errorf("%s is %s", g.Name, g.State)
		}
	}
	write()
	h.until("two are shelved", func() bool {
		h.loop.Wake("local")
		n := 0
		for _, g := range h.guests(t.Context()) {
			if g.State == lease.Shelved {
				n++
			}
		}
		return n >= 2
	})
}

func TestNoMachineIsLeftWhereTerraformIsKilledWhileItMakesOne(t *testing.T) {
	for name, before := range map[string]int{"in an empty shard": 0, "beside another": 1} {
		t.Run(name, func(t *testing.T) {
			h, dir := openHouse(t), t.TempDir()
			made := func() []string {
				names, _ := filepath.Glob(filepath.Join(dir, "made-*"))
				return names
			}
			create := fmt.Sprintf("cd %s && touch made-${each.key}-${self.triggers_replace} && if rm kill; then kill -9 $PPID; fi", dir)
			use := module(t, t.TempDir(), machines(create, fmt.Sprintf("rm %s/made-${each.key}-${self.triggers_replace}", dir)))
			shelf := func(n int) func(*specs.Fleet) {
				return func(f *specs.Fleet) { f.Caches[0].Warm, f.Caches[0].Size = n, n }
			}
			h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 4, use, shelf(before))})
			h.shelved(before)
			if err := os.WriteFile(filepath.Join(dir, "kill"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			h.loop.Offer(reconcile.Revision{Fleet: fleet("r2", 4, use, shelf(before+1))})
			h.until("the run is lost", func() bool {
				st, err := h.loop.Status(t.Context())
				return err == nil && len(st.Pools) == 1 && slices.ContainsFunc(st.Pools[0].Shards, func(s condition.ShardStatus) bool {
					return s.LastRun != nil && s.LastRun.Result == terraform.FaultLost
				})
			})
			h.loop.Offer(reconcile.Revision{Fleet: fleet("r3", 4, use, shelf(0))})
			h.until("no guest is on record", func() bool { return len(h.guests(t.Context())) == 0 })
			if left := made(); len(left) > 0 {
				t.Errorf("machines are left: %v", left)
			}
		})
	}
}

func TestALeasedGuestThatVanishesIsLeftAloneAndStopsNobody(t *testing.T) {
	mirror, machines := t.TempDir(), t.TempDir()
	to := filepath.Join(mirror, "registry.terraform.io/greenroom/room/1.0.0", runtime.GOOS+"_"+runtime.GOARCH, "terraform-provider-room_v1.0.0")
	build := exec.Command("go", "build", "-o", to, ".")
	build.Dir = filepath.Join("..", "integration", "providers")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the provider: %v\n%s", err, out)
	}
	h := openHouseWith(t, mirror)
	source, err := filepath.Abs("terraform/testdata/machines")
	if err != nil {
		t.Fatal(err)
	}
	use := func(f *specs.Fleet) {
		f.Pools[0].Module, f.Pools[0].ModuleDir = source, source
		f.Pools[0].Variables = fmt.Appendf(nil, `{"dir":%q}`, machines)
	}
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 2, use)})
	h.shelved(2)
	l := h.acquire()
	dead := h.shelved(2)[0]
	if err := os.Rename(filepath.Join(machines, l.Guest), filepath.Join(mirror, l.Guest)); err != nil {
		t.Fatal(err)
	}
	before := h.driver.Started()
	if _, err := h.store.Taint(t.Context(), alice, dead, lease.Taint{Reason: "dead"}); err != nil {
		t.Fatal(err)
	}
	h.until("the watchdog was told", func() bool { return slices.Contains(h.gone(), l.Guest) })
	h.shelvedBeside(2, lease.Leased)
	if n := h.driver.Started() - before; n > 25 {
		t.Errorf("%d Terraform processes", n)
	}
	if g, err := h.store.Guest(t.Context(), l.Guest); err != nil || g.State != lease.Leased {
		t.Errorf("the leased guest: %+v, %v", g, err)
	}
	if err := os.Rename(filepath.Join(mirror, l.Guest), filepath.Join(machines, l.Guest)); err != nil { // its provider was wrong
		t.Fatal(err)
	}
	h.loop.Wake("local")
	h.until("the watchdog was told that it is there", func() bool { return !slices.Contains(h.gone(), l.Guest) })
	if _, err := h.store.Release(t.Context(), alice, l.ID, lease.Release{Discard: true}); err != nil {
		t.Fatal(err)
	}
}

// mishap does something as soon as a certain command has been carried out, once. Its error is what the caller gets.
type mishap struct {
	after func(cmd []any) bool
	do    func(ctx context.Context) error
	armed atomic.Bool
}

func (m *mishap) DialHook(next redis.DialHook) redis.DialHook { return next }

func (m *mishap) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (m *mishap) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if m.armed.Load() && m.after(cmd.Args()) && m.armed.CompareAndSwap(true, false) {
			if err = m.do(ctx); err != nil {
				cmd.SetErr(err)
			}
		}
		return err
	}
}

// calls picks the commands that carry out a call of the store.
func calls(name string) func(cmd []any) bool {
	return func(cmd []any) bool { return slices.Contains(cmd, any(name)) }
}

func TestAStoreThatIsLostWithinAPassIsRebuiltAllTheSame(t *testing.T) {
	there := func(cmd []any) bool { return cmd[0] == "get" && cmd[1] == "greenroom:adopted" }
	for _, test := range []struct {
		name  string
		after func(cmd []any) bool
		want  string // revision that is offered then
	}{
		{"when it was found to be there", there, "r1"},
		{"when it was found to be there for a new revision", there, "r2"},
		{"when a revision comes into force", calls("adopt"), "r2"},
		{"when the revision has come into force", func(cmd []any) bool { return cmd[0] == "set" && cmd[1] == "greenroom:adopted" }, "r2"},
		{"when a slot was taken", calls("slot"), "r2"},
		{"when a guest was put on record", calls("create"), "r2"},
		{"when a shard was locked", calls("lock"), "r2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := openHouse(t)
			h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 2)})
			machines := map[string]int{}
			for _, g := range h.shelved(2) {
				machines[g.Name] = g.Incarnation
			}
			lost := &mishap{after: test.after, do: func(ctx context.Context) error { return h.rdb.FlushAll(ctx).Err() }}
			h.rdb.AddHook(lost)
			lost.armed.Store(true)
			warm := 2
			if test.want == "r2" {
				warm = 3
				h.loop.Offer(reconcile.Revision{Fleet: fleet("r2", warm)})
			}
			h.loop.Wake()
			h.until("the guests are quarantined as they were", func() bool {
				kept := 0
				for _, g := range h.guests(t.Context()) {
					if machines[g.Name] == g.Incarnation && g.State == lease.Quarantined && g.Host != "" {
						kept++
					}
				}
				return kept == len(machines)
			})
			if lost.armed.Load() {
				t.Error("the store was not lost")
			}
			h.shelvedBeside(warm, lease.Quarantined)
			h.endQuarantine()
		})
	}
}

func TestASlotIsFreeAlsoWhenTheAnswerToTheEndOfItsGuestIsLost(t *testing.T) {
	h := openHouse(t)
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 2)})
	h.shelved(2)
	lost := &mishap{after: calls("gone"), do: func(context.Context) error { return os.ErrDeadlineExceeded }}
	h.rdb.AddHook(lost)
	lost.armed.Store(true)
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r2", 0, func(f *specs.Fleet) { f.Caches[0].Size = 0 })})
	h.until("no guest is left, and no slot is taken", func() bool {
		slots, err := h.rdb.HLen(t.Context(), "greenroom:{local}:slots").Result()
		return err == nil && slots == 0 && len(h.guests(t.Context())) == 0
	})
	if lost.armed.Load() {
		t.Error("no answer was lost")
	}
}

func TestGuestsThatAreNeverMadeKeepNoSlot(t *testing.T) {
	h, dir := openHouse(t), t.TempDir()
	deadly := module(t, dir, machines("kill -9 $PPID", "true"))
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 2, deadly, func(f *specs.Fleet) { f.Pools[0].Max = 2 })})
	h.until("the first guests were given up", func() bool {
		return slices.ContainsFunc(h.guests(t.Context()), func(g lease.Guest) bool { return g.Incarnation == 2 })
	})
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r2", 2, func(f *specs.Fleet) { f.Pools[0].Max = 2 })})
	h.shelved(2)
}

// stateServer keeps states for Terraform's http backend. It hangs from the second time on that somebody reads a state of pool local that
// has become empty.
type stateServer struct {
	hangs chan struct{} // closed when it does
	free  chan struct{} // close it to end that

	mu     sync.Mutex
	states map[string][]byte
	empty  map[string]int // times that an empty one was read
}

func (s *stateServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.states[r.URL.Path] = body
		return
	}
	s.mu.Lock()
	body := s.states[r.URL.Path]
	emptied := strings.Contains(r.URL.Path, "/local-") && len(body) > 0 && !bytes.Contains(body, []byte(`"instances"`))
	if emptied {
		s.empty[r.URL.Path]++
	}
	if s.empty[r.URL.Path] == 2 && emptied {
		close(s.hangs)
	}
	hangs := s.empty[r.URL.Path] >= 2
	s.mu.Unlock()
	if hangs {
		<-s.free
	}
	if len(body) == 0 {
		w.WriteHeader(http.StatusNotFound)
	}
	_, _ = w.Write(body)
}

func TestABackendThatHangsHoldsUpNoOtherPool(t *testing.T) {
	states := &stateServer{hangs: make(chan struct{}), free: make(chan struct{}), states: map[string][]byte{}, empty: map[string]int{}}
	web := httptest.NewServer(states)
	t.Cleanup(web.Close)
	h := &house{t: t, dir: t.TempDir(), rdb: leasetest.Embedded(t)}
	h.backend = fmt.Appendf(nil, `{"type": "http", "config": {"address": "%s/{shard}"}}`, web.URL)
	h.start()
	t.Cleanup(h.leave)
	free := sync.OnceFunc(func() { close(states.free) })
	t.Cleanup(free)
	use := module(t, t.TempDir(), machines("true", "true"))
	spares := func(n int) func(*specs.Fleet) {
		return func(f *specs.Fleet) {
			other := *f.Pools[0]
			other.Name, other.Spare = "other", n
			f.Pools = append(f.Pools, &other)
		}
	}
	none := func(f *specs.Fleet) { f.Caches[0].Size = 0 }
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 1, use, spares(1))})
	h.shelved(2)
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r2", 0, use, spares(1), none)})
	<-states.hangs
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r3", 0, use, spares(2), none)})
	h.shelved(2)
	free()
}

func TestAProviderThatHangsLeavesAPlaceForTheOthers(t *testing.T) {
	h, gate := openHouse(t), filepath.Join(t.TempDir(), "gate")
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	hangs := module(t, t.TempDir(), machines("while [ -e "+gate+" ]; do sleep 0.05; done", "true"))
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 6, hangs, func(f *specs.Fleet) {
		f.Pools[0].ShardSize = 1
		f.Pools = append(f.Pools, &specs.Pool{
			Name: "web", Module: "local", Max: 2, Spare: 1, ShardSize: 5, Variables: []byte(`{"isolation":"process"}`), Rollout: specs.Rollout{MaxUnavailable: 1},
		})
	})})
	h.until("the other pool has its guest", func() bool {
		return slices.ContainsFunc(h.guests(t.Context()), func(g lease.Guest) bool { return g.Pool == "web" && g.State == lease.Shelved })
	})
	if err := os.Remove(gate); err != nil {
		t.Fatal(err)
	}
	h.shelved(7)
}
