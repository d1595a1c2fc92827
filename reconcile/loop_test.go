package reconcile_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"greenroom/lease"
	"greenroom/lease/leasetest"
	"greenroom/reconcile"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/terraform"
	"greenroom/specs"
)

var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "greenroom-reconcile-")
	if err == nil {
		binary = filepath.Join(dir, "greenroom")
		var out []byte
		build := exec.Command("go", "build", "-trimpath", "-o", binary, "greenroom/cmd/greenroom")
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // as the Makefile does, so that both share what is compiled
		if out, err = build.CombinedOutput(); err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the binary under test:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// house is a loop on a real store and real Terraform, with the bundled local module. A guest is taken for alive as soon as
// it is made: probes are the watchdog's matter.
type house struct {
	backend json.RawMessage // of Terraform's states
	t       *testing.T
	dir     string
	mirror  string
	rdb     redis.UniversalClient
	store   *lease.Store
	loop    *reconcile.Loop
	driver  *terraform.Driver
	stop    func()

	mu       sync.Mutex
	vanished []string
	held     []string // digests of the revisions that were held

	adopted atomic.Int64 // how often another revision was said to be in force
}

// lastHeld is the digest of the revision that was held last; empty: none was.
func (h *house) lastHeld() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.held) == 0 {
		return ""
	}
	return h.held[len(h.held)-1]
}

// gone lists the guests of which the loop has said that they vanished, and not that they are there since.
func (h *house) gone() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.vanished)
}

var alice = lease.Caller{Name: "alice", Role: lease.Admin}

func openHouse(t *testing.T) *house { return openHouseWith(t, "") }

// openHouseWith takes Terraform's providers from a mirror.
func openHouseWith(t *testing.T, mirror string) *house {
	h := &house{t: t, dir: t.TempDir(), mirror: mirror, rdb: leasetest.Embedded(t)}
	h.start()
	t.Cleanup(h.leave)
	return h
}

// start begins a life of the daemon.
func (h *house) start() {
	ctx, cancel := context.WithCancel(context.Background())
	booting := make(chan struct{}, 1)
	var log *slog.Logger
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	h.store = lease.New(h.rdb, lease.Options{Notify: func(c ...lease.Change) {
		h.loop.Notify(c...)
		select {
		case booting <- struct{}{}:
		default:
		}
	}})
	h.loop = reconcile.New(reconcile.Options{
		Store: h.store, Writer: "test", Log: log, FleetFile: filepath.Join(h.dir, "fleet"), ApprovalsFile: filepath.Join(h.dir, "approvals"),
		Held: func(_ reconcile.Revision, p *reconcile.Preview) string {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.held = append(h.held, p.Plan.Digest)
			return fmt.Sprint("plan-", len(h.held))
		},
		Adopted: func() { h.adopted.Add(1) },
		Vanished: func(_ context.Context, guests []lease.Guest, evidence string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			for _, g := range guests {
				h.vanished = slices.DeleteFunc(h.vanished, func(name string) bool { return name == g.Name })
				if evidence != "" {
					h.vanished = append(h.vanished, g.Name)
				}
			}
		},
		OpenDriver: func(ctx context.Context) (*terraform.Driver, error) {
			d, err := terraform.New(ctx, terraform.Options{StateDir: filepath.Join(h.dir, "terraform"), Self: binary, Mirror: h.mirror, Backend: h.backend})
			h.driver = d
			return d, err
		},
	})
	if err := h.loop.Restore(); err != nil {
		h.t.Fatal(err)
	}
	done := make(chan struct{}, 2)
	go func() {
		_ = h.loop.Run(ctx)
		done <- struct{}{}
	}()
	go func() {
		h.boot(ctx, booting)
		done <- struct{}{}
	}()
	h.stop = func() {
		cancel()
		<-done
		<-done
	}
}

func (h *house) boot(ctx context.Context, wake <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
		for _, g := range h.guests(context.WithoutCancel(ctx)) {
			switch g.State { // a race with a taint is the store's matter
			case lease.Booting:
				_, _ = h.store.Booted(context.WithoutCancel(ctx), g)
			case lease.Resetting:
				_, _ = h.store.Prepared(context.WithoutCancel(ctx), g)
			}
		}
	}
}

// leave retires everything, so that no guest process outlives the test.
func (h *house) leave() {
	h.loop.Offer(reconcile.Revision{Fleet: &specs.Fleet{Revision: "empty"}})
	for _, c := range []string{"ci", "local", "web"} {
		leases, _ := h.store.Leases(context.Background(), c, 100)
		for _, l := range leases {
			_, _ = h.store.Release(context.Background(), alice, l.ID, lease.Release{})
		}
	}
	h.until("everything is retired", func() bool {
		if digest := h.lastHeld(); digest != "" {
			_ = h.loop.Approve("test", digest)
		}
		return len(h.guests(context.Background())) == 0
	})
	h.stop()
	if h.driver != nil { // a look for drift may be under way, and would write where the test has lived
		if err := h.driver.Shutdown(context.Background(), 0); err != nil {
			h.t.Error(err)
		}
	}
}

func (h *house) guests(ctx context.Context) (all []lease.Guest) {
	pools, err := h.store.Pools(ctx)
	if err != nil {
		return nil
	}
	for _, p := range pools {
		guests, _ := h.store.Guests(ctx, p)
		all = append(all, guests...)
	}
	return all
}

// until waits for something to become true, for as long as a slow machine may need.
func (h *house) until(what string, ok func() bool) {
	h.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(90 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			h.t.Fatalf("in vain: %s%s", what, h.standing())
		}
	}
}

// standing is what somebody who looks for a fault wants to see.
func (h *house) standing() (text string) {
	for _, g := range h.guests(context.Background()) {
		text += fmt.Sprintf("\n%s.%d %s %s in %s (%s %s)", g.Name, g.Incarnation, g.Cache, g.State, g.Shard, g.Run, g.Reason)
	}
	st, _ := h.loop.Status(context.Background())
	for _, p := range st.Pools {
		text += fmt.Sprintf("\n%s %+v", p.Pool, p.Conditions)
	}
	return text
}

func (h *house) shelved(n int) []lease.Guest {
	h.t.Helper()
	var shelf []lease.Guest
	h.until(fmt.Sprintf("%d shelved and nothing else but leases", n), func() bool {
		shelf = nil
		for _, g := range h.guests(h.t.Context()) {
			switch g.State {
			case lease.Shelved:
				shelf = append(shelf, g)
			case lease.Leased:
			default:
				return false
			}
		}
		return len(shelf) == n
	})
	return shelf
}

func fleet(revision string, warm int, edit ...func(*specs.Fleet)) *specs.Fleet {
	f := &specs.Fleet{
		Revision: revision,
		Pools: []*specs.Pool{{
			Name: "local", Module: "local", Max: 8, ShardSize: 25, Variables: []byte(`{"isolation":"process"}`),
			Rollout: specs.Rollout{MaxUnavailable: 1}, Labels: map[string]string{}, Capacity: map[string]float64{},
		}},
		Caches: []*specs.Cache{{
			Name: "ci", Pools: []string{"local"}, Warm: warm, Size: 6, Max: 6, Enabled: true,
			Lease: specs.Lease{TTL: time.Minute, Max: time.Hour},
		}},
	}
	for _, e := range edit {
		e(f)
	}
	return f
}

func (h *house) acquire() lease.Lease {
	h.t.Helper()
	l, err := h.store.Acquire(h.t.Context(), alice, lease.Request{Cache: "ci", Wait: lease.Forever})
	if err != nil {
		h.t.Fatal(err)
	}
	if l, err = h.store.Wait(h.t.Context(), alice, l.ID); err != nil {
		h.t.Fatal(err)
	}
	return l
}

func TestTheLoopConvergesAndThenStartsNothing(t *testing.T) {
	h := openHouse(t)
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 2)})
	h.shelved(2)
	h.until("ready", func() bool { return h.condition(condition.Ready).Status })
	before := h.driver.Started()
	h.loop.Wake()
	h.loop.Wake("local")
	h.until("a pass after the wake-up", func() bool { return h.condition(condition.Ready).Status })
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r2", 2)})
	h.until("the new revision is in force", func() bool { st, _ := h.loop.Status(t.Context()); return st.Revision == "r2" })
	if after := h.driver.Started(); after != before {
		t.Errorf("%d Terraform processes for nothing", after-before)
	}
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r3", 4)})
	h.shelved(4)
}

func TestMoreGuestsThanOnePassDecidesAreMadeInSeveral(t *testing.T) {
	h := openHouse(t)
	module := t.TempDir()
	if err := os.WriteFile(filepath.Join(module, "main.tf"), []byte(`
variable "guests" { type = map(object({ incarnation = number, user_data = string })) }
variable "pool" {}
variable "ssh_authorized_keys" {}
resource "terraform_data" "guest" {
  for_each = var.guests
}
output "guests" {
  value = { for name, guest in terraform_data.guest : name => {
    id = guest.id, host = "127.0.0.1", port = 1, user = "root", host_key = "", attributes = {}
  } }
}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 0, func(f *specs.Fleet) {
		f.Pools = append(f.Pools, &specs.Pool{
			Name: "web", Module: module, ModuleDir: module, Max: 120, Spare: 120, ShardSize: 60,
			Variables: []byte("{}"), Rollout: specs.Rollout{MaxUnavailable: 1},
		})
	})})
	h.until("all of them", func() bool {
		guests, err := h.store.Guests(t.Context(), "web")
		return err == nil && len(guests) == 120 && !slices.ContainsFunc(guests, func(g lease.Guest) bool { return g.State != lease.Shelved })
	})
	if shards, err := h.driver.Shards(); err != nil || len(shards) != 2 {
		t.Errorf("%d shards, %v", len(shards), err)
	}
}

func (h *house) condition(c condition.Type) condition.Condition {
	st, err := h.loop.Status(h.t.Context())
	if err != nil || len(st.Pools) == 0 {
		return condition.Condition{}
	}
	return condition.Of(st.Pools[0].Conditions, c)
}

func TestATaintedGuestIsReplacedInItsSlot(t *testing.T) {
	h := openHouse(t)
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 3)})
	victim := h.shelved(3)[1]
	h.until("the run that made it is over", func() bool { // in a busy shard nothing is replaced: a new guest is made elsewhere
		st, err := h.loop.Status(t.Context())
		return err == nil && h.condition(condition.Ready).Status && !h.condition(condition.Reconciling).Status && st.Pools[0].Shards[0].Run == ""
	})
	if _, err := h.store.Taint(t.Context(), alice, victim, lease.Taint{Reason: "dead", Evidence: "shot"}); err != nil {
		t.Fatal(err)
	}
	h.until("the next incarnation", func() bool {
		g, err := h.store.Guest(t.Context(), victim.Name)
		return err == nil && g.State == lease.Shelved && g.Incarnation == 2 && g.Port != victim.Port
	})
	for _, g := range h.shelved(3) {
		if g.Name != victim.Name && g.Incarnation != 1 {
			t.Errorf("%s was replaced too", g.Name)
		}
	}
	st, err := h.loop.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	last := st.Pools[0].Shards[0].LastRun
	if !slices.Equal(last.Replaced, []string{victim.Name}) || last.Created != nil || last.Retired != nil {
		t.Errorf("the last run says %+v, want %s replaced", last, victim.Name)
	}
	want := []condition.RunPlan{{Replace: []string{victim.Name}}, {Create: []string{"local-1", "local-2", "local-3"}}}
	plans := []condition.RunPlan{}
	for _, run := range h.loop.Runs("local") {
		plans = append(plans, run.Plan)
	}
	if diff := cmp.Diff(want, plans); diff != "" || h.loop.Runs("none") != nil {
		t.Error(diff)
	}
}

func TestAChangeOfVariablesLeavesLeasedGuestsAlone(t *testing.T) {
	h := openHouse(t)
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 2)})
	h.shelved(2)
	held := h.acquire()
	h.shelved(2)
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r2", 2, func(f *specs.Fleet) { f.Pools[0].UserData = "new" })})
	h.until("all idle guests are of the new digest", func() bool {
		digests := map[string]bool{}
		idle := 0
		for _, g := range h.guests(t.Context()) {
			switch g.State {
			case lease.Shelved:
				idle++
				digests[g.Digest] = true
			case lease.Leased:
				if g.Name != held.Guest || g.Incarnation != held.Incarnation {
					t.Fatalf("the leased guest was touched: %+v", g)
				}
				digests["not "+g.Digest] = true
			default:
				return false
			}
		}
		return idle == 2 && len(digests) == 2
	})
	if _, err := h.store.Release(t.Context(), alice, held.ID, lease.Release{}); err != nil {
		t.Fatal(err)
	}
	h.until("the old guest is retired", func() bool {
		_, err := h.store.Guest(t.Context(), held.Guest)
		return err != nil
	})
	h.shelved(2)
}

func TestALostStoreIsRebuiltFromTheState(t *testing.T) {
	h := openHouse(t)
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 2)})
	before := h.shelved(2)
	if err := h.rdb.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	h.loop.Wake()
	h.until("the guests are quarantined", func() bool {
		n := 0
		for _, g := range h.guests(t.Context()) {
			if g.State == lease.Quarantined && g.Host != "" {
				n++
			}
		}
		return n == len(before)
	})
	h.shelvedBeside(2, lease.Quarantined)
	h.endQuarantine()
	h.shelved(2)
}

func (h *house) shelvedBeside(n int, other lease.State) {
	h.t.Helper()
	h.until(fmt.Sprintf("%d shelved beside the %s", n, other), func() bool {
		shelved := 0
		for _, g := range h.guests(h.t.Context()) {
			if g.State == lease.Shelved {
				shelved++
			}
		}
		return shelved == n
	})
}

func TestAModuleThatDoesNotPlanStopsItsOwnPoolOnly(t *testing.T) {
	h := openHouse(t)
	bad := t.TempDir()
	if err := os.WriteFile(filepath.Join(bad, "main.tf"), []byte(`
variable "guests" {}
variable "pool" {}
variable "ssh_authorized_keys" {}
output "guests" { value = { for k, v in var.guests : k => tonumber("x") } }
`), 0o600); err != nil {
		t.Fatal(err)
	}
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 1, func(f *specs.Fleet) {
		f.Pools = append(f.Pools, &specs.Pool{Name: "web", Module: bad, ModuleDir: bad, Max: 2, Spare: 1, ShardSize: 5, Variables: []byte("{}"), Rollout: specs.Rollout{MaxUnavailable: 1}})
	})})
	h.until("the bad pool says why, and the good one serves", func() bool {
		st, err := h.loop.Status(t.Context())
		if err != nil || len(st.Pools) < 2 {
			return false
		}
		good, why := st.Pools[0], fmt.Sprint(st.Pools[1].Conditions)
		return good.Guests[lease.Shelved] == 1 && strings.Contains(why, "RunFailed") && strings.Contains(why, "cannot convert")
	})
}

func TestWithoutAFleetInForceWhatExistsStays(t *testing.T) {
	h := openHouse(t)
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 2)})
	before := h.shelved(2)
	h.stop()
	if err := os.Remove(filepath.Join(h.dir, "fleet")); err != nil {
		t.Fatal(err)
	}
	h.start()
	h.loop.Offer(reconcile.Revision{Fault: &condition.Fault{Reason: condition.Unreachable, Message: "the repository is away"}})
	tries := 0
	h.until("passes", func() bool {
		tries++
		h.loop.Wake("local")
		st, err := h.loop.Status(t.Context())
		return err == nil && st.Terraform != "" && tries > 50
	})
	names := func(guests []lease.Guest) (list []string) {
		for _, g := range guests {
			list = append(list, g.Principal()+" "+string(g.State))
		}
		return list
	}
	if diff := cmp.Diff(names(before), names(h.guests(t.Context()))); diff != "" {
		t.Error(diff)
	}
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r2", 2)})
	if diff := cmp.Diff(names(before), names(h.shelved(2))); diff != "" {
		t.Error(diff)
	}
}

func TestAShardThatCannotBeReadStopsNoOther(t *testing.T) {
	for _, file := range []string{"meta.json", "run.json"} {
		t.Run(file, func(t *testing.T) {
			h := openHouse(t)
			two := func(f *specs.Fleet) {
				other := *f.Pools[0]
				other.Name, other.Spare = "other", 1
				f.Pools = append(f.Pools, &other)
			}
			h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 1, two)})
			h.shelved(2)
			h.stop()
			broken, err := filepath.Glob(filepath.Join(h.dir, "terraform", "shards", "local-*", file))
			if err != nil || len(broken) > 1 {
				t.Fatal(broken, err)
			}
			if len(broken) == 0 { // there is none of a run that is over
				dirs, _ := filepath.Glob(filepath.Join(h.dir, "terraform", "shards", "local-*"))
				broken = []string{filepath.Join(dirs[0], file)}
			}
			was, _ := os.ReadFile(broken[0])
			if err := os.WriteFile(broken[0], []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
			h.start()
			h.until("the shard is stalled, and says why", func() bool {
				c := h.condition(condition.Stalled)
				return c.Status && strings.Contains(c.Message, broken[0])
			})
			for _, g := range h.guests(t.Context()) {
				if g.Pool == "other" {
					_, err := h.store.Taint(t.Context(), alice, g, lease.Taint{Reason: "test"})
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			h.until("a guest of the other pool is replaced", func() bool {
				return slices.ContainsFunc(h.guests(t.Context()), func(g lease.Guest) bool {
					return g.Pool == "other" && g.Incarnation == 2 && g.State == lease.Shelved
				})
			})
			h.stop()
			if err := os.WriteFile(broken[0], was, 0o600); err != nil {
				t.Fatal(err)
			}
			if len(was) == 0 {
				err = os.Remove(broken[0])
			}
			if err != nil {
				t.Fatal(err)
			}
			h.start()
			h.shelved(2)
		})
	}
}

func TestARestartFindsTheRunThatWentOn(t *testing.T) {
	h := openHouse(t)
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 3)})
	h.until("a run is under way", func() bool {
		return slices.ContainsFunc(h.guests(t.Context()), func(g lease.Guest) bool { return g.State == lease.Provisioning })
	})
	h.stop()
	h.start()
	if err := h.loop.Restore(); err != nil {
		t.Fatal(err)
	}
	for _, g := range h.shelved(3) {
		if g.Incarnation != 1 {
			t.Errorf("%s.%d was made twice", g.Name, g.Incarnation)
		}
	}
}
