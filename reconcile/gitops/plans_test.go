package gitops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"greenroom/lease"
	"greenroom/reconcile"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/plan"
	"greenroom/specs"
)

var (
	anAdmin = lease.Caller{Name: "ada", Owner: "platform", Role: lease.Admin}
	aUser   = lease.Caller{Name: "ursula", Owner: "web", Role: lease.User}
)

// house is a reconciler and a source of revisions of which a test says how they behave.
type house struct {
	mu       sync.Mutex
	base     string            // in force
	refs     map[string]string // ref -> head
	took     time.Duration     // to read a revision, and again to preview it
	fails    error             // of previews
	panics   bool
	hangs    chan struct{} // InForce waits for it
	previews []string      // made so far: digests
	now      int           // previews under way
	atOnce   int           // most that ever were
	absolute [][]string    // that archives were read with
	spare    int           // that they want
	approved []string      // digests
	refuses  error         // approvals
}

func (h *house) set(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// work lets time pass, unless it is called off.
func (h *house) work(ctx context.Context) error {
	h.mu.Lock()
	took := h.took
	h.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(took):
		return nil
	}
}

func (h *house) Read(ctx context.Context, ref string) reconcile.Revision {
	if err := h.work(ctx); err != nil {
		return faulty(condition.Unreachable, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refs[ref] == "" {
		return reconcile.Revision{Name: "bad", Fault: &condition.Fault{Reason: condition.SpecInvalid, Message: "main.hcl:1: no " + ref + "\n  it is underlined"}}
	}
	return reconcile.Revision{Name: h.refs[ref]}
}

func (h *house) Archive(ctx context.Context, zip []byte, absolute []string) reconcile.Revision {
	if err := h.work(ctx); err != nil {
		return faulty(condition.Unreachable, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.absolute = append(h.absolute, absolute)
	return reconcile.Revision{Name: fmt.Sprintf("zip-%d", len(zip)), Fleet: &specs.Fleet{Pools: []*specs.Pool{{Name: "p", Max: h.spare, Spare: h.spare}}}}
}

func (h *house) Preview(ctx context.Context, r reconcile.Revision) (*reconcile.Preview, error) {
	h.mu.Lock()
	pv := h.preview(r.Name)
	h.now++
	h.atOnce = max(h.atOnce, h.now)
	h.mu.Unlock()
	err := h.work(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now--
	if h.panics {
		panic("as told")
	}
	if err = errors.Join(err, h.fails); err != nil {
		return nil, err
	}
	h.previews = append(h.previews, pv.Plan.Digest)
	return pv, nil
}

// preview is what a revision changes: it tells base and head.
func (h *house) preview(head string) *reconcile.Preview {
	return &reconcile.Preview{Plan: plan.Plan{
		Base: h.base, Head: head, Digest: h.base + "+" + head, Summary: plan.Summary{Create: 1},
		Pools: []plan.Pool{{Pool: "p"}}, Caches: []plan.Cache{{Cache: "c"}}, Guests: []plan.Guest{{Pool: "p", Cache: "c", Verb: plan.Create}},
	}}
}

func (h *house) InForce() string {
	h.mu.Lock()
	hangs, base := h.hangs, h.base
	h.mu.Unlock()
	if hangs != nil {
		<-hangs
	}
	return base
}

func (h *house) Approve(_, digest string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refuses == nil {
		h.approved = append(h.approved, digest)
	}
	return h.refuses
}

// keeper is Plans that run in a bubble, with the house that they ask and a Terraform of the test's.
type keeper struct {
	*Plans
	house *house
	log   bytes.Buffer
}

// approveAsShown approves what a plan says at the moment.
func (k *keeper) approveAsShown(by lease.Caller, id string) (plan.Plan, error) {
	k.mu.Lock()
	digest := ""
	if one := k.plans[id]; one != nil {
		digest = one.plan.Digest
	}
	k.mu.Unlock()
	return k.Approve(by, id, digest)
}

func TestWhatWasNotLookedAtIsNotApproved(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		id := k.hold("h2")
		if _, err := k.Approve(anAdmin, id, "sha256-of-another"); err != ErrStale {
			t.Errorf("%v, want %v", err, ErrStale)
		}
	})
}

// keep runs test with plans in a bubble, in which time passes when all wait.
func keep(t *testing.T, test func(t *testing.T, k *keeper)) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "previews")
	synctest.Test(t, func(t *testing.T) {
		test(t, newKeeper(t, dir))
	})
}

func newKeeper(t *testing.T, dir string, change ...func(*PlansOptions)) *keeper {
	t.Helper()
	k := &keeper{house: &house{base: "b1", refs: map[string]string{"main": "h1", "topic": "t1"}, took: time.Second}}
	o := PlansOptions{Dir: dir, Loop: k.house, Source: k.house, Log: slog.New(slog.NewTextHandler(&k.log, nil))}
	for _, c := range change {
		c(&o)
	}
	var err error
	if k.Plans, err = NewPlans(o); err != nil {
		t.Fatal(err)
	}
	k.terraform = func(_ *reconcile.Preview, ctx context.Context, _ string, done func(plan.Shard)) error {
		for _, shard := range []string{"p-2", "p-1"} {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(10 * time.Second):
				done(plan.Shard{Shard: shard, Pool: "p"})
			}
		}
		return nil
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- k.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return k
}

// pass lets time pass in a bubble, and what is due then happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (k *keeper) request(t *testing.T, by lease.Caller, r PlanRequest) plan.Plan {
	t.Helper()
	p, err := k.Request(by, r)
	if err != nil {
		t.Fatal(err)
	}
	if p.Phase != plan.Making || p.By != by.Name || len(p.ID) < 16 || strings.ToLower(p.ID) != p.ID {
		t.Errorf("requested: %+v", p)
	}
	return p
}

func (k *keeper) get(t *testing.T, id string, wait time.Duration) plan.Plan {
	t.Helper()
	p, err := k.Get(t.Context(), id, wait)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// requested is a plan of a ref after it was made.
func (k *keeper) requested(t *testing.T, by lease.Caller, ref string) plan.Plan {
	t.Helper()
	return k.get(t, k.request(t, by, PlanRequest{Ref: ref}).ID, time.Hour/2)
}

// hold has the plan of a revision held.
func (k *keeper) hold(head string) string {
	var pv *reconcile.Preview
	k.house.set(func() { pv = k.house.preview(head) })
	return k.Hold(reconcile.Revision{Name: head}, pv)
}

// adopt brings another revision into force.
func (k *keeper) adopt(base string) {
	k.house.set(func() { k.house.base = base })
	k.Moved()
}

func phaseOf(t *plan.Terraform) plan.Phase {
	if t == nil {
		return ""
	}
	return t.Phase
}

func TestAPlanOfARefIsMadeAndSaysWhatItIs(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		began := time.Now()
		got := k.requested(t, aUser, "main")
		want := k.house.preview("h1").Plan
		want.ID, want.Phase, want.Ref, want.By = got.ID, plan.Ready, "main", "ursula"
		want.Made, want.Expires = began.Add(2*time.Second), began.Add(time.Hour)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestTheFirstLayerIsShownAtOnceAndShardsAsTheyCome(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		p := k.request(t, anAdmin, PlanRequest{Ref: "main"})
		dir := filepath.Join(k.o.Dir, p.ID)
		for _, step := range []struct {
			after  time.Duration
			phase  plan.Phase
			layer2 plan.Phase
			shards []string
		}{
			{0, plan.Making, "", nil},
			{2 * time.Second, plan.Ready, plan.Making, nil},
			{10 * time.Second, plan.Ready, plan.Making, []string{"p-2"}},
			{10 * time.Second, plan.Ready, plan.Ready, []string{"p-1", "p-2"}},
		} {
			pass(step.after)
			got := k.get(t, p.ID, 0)
			var shards []string
			if got.Terraform != nil {
				for _, s := range got.Terraform.Shards {
					shards = append(shards, s.Shard)
				}
			}
			if diff := cmp.Diff([]any{step.phase, step.layer2, step.shards}, []any{got.Phase, phaseOf(got.Terraform), shards}); diff != "" {
				t.Errorf("after %s more: %s", step.after, diff)
			}
			if info, err := os.Stat(dir); (err == nil) != (step.layer2 == plan.Making) {
				t.Errorf("layer 2 is %q, and its directory: %v", step.layer2, err)
			} else if err == nil && info.Mode().Perm() != 0o700 {
				t.Errorf("mode %v", info.Mode())
			}
		}
	})
}

func TestTerraformPlansOnlyWhatAnAdminAskedForOrWhatIsHeld(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		for name, c := range map[string]struct {
			plan plan.Plan
			want plan.Phase
		}{
			"a user's":       {k.requested(t, aUser, "main"), ""},
			"a user's files": {k.get(t, k.request(t, aUser, PlanRequest{Archive: []byte("zip")}).ID, time.Minute), ""},
			"an admin's":     {k.requested(t, anAdmin, "topic"), plan.Ready},
			"a held one":     {k.get(t, k.hold("h2"), time.Minute), plan.Ready},
		} {
			if got := phaseOf(c.plan.Terraform); c.plan.Phase != plan.Ready || got != c.want {
				t.Errorf("%s: %s, layer 2 %q, want %q", name, c.plan.Phase, got, c.want)
			}
		}
	})
}

func TestOnlyAdminsUploadSpecsThatNameAnyModule(t *testing.T) {
	for _, c := range []struct {
		name    string
		by      lease.Caller
		allowed func() []string
		want    []string
	}{
		{"an admin", anAdmin, nil, nil},
		{"a user", aUser, func() []string { return []string{"/srv/modules"} }, []string{"/srv/modules"}},
		{"a user where none is allowed", aUser, nil, []string{}},
		{"nobody in particular", lease.Caller{}, func() []string { return nil }, []string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			keep(t, func(t *testing.T, k *keeper) {
				if c.allowed != nil {
					k.o.Absolute = c.allowed
				}
				k.get(t, k.request(t, c.by, PlanRequest{Archive: []byte("zip")}).ID, time.Minute)
				if diff := cmp.Diff([][]string{c.want}, k.house.absolute); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestUploadedSpecsAreForecastWithinReasonOnly(t *testing.T) {
	for spare, want := range map[int]plan.Phase{maxWanted: plan.Ready, maxWanted + 1: plan.Failed} {
		keep(t, func(t *testing.T, k *keeper) {
			k.house.set(func() { k.house.spare = spare })
			got := k.get(t, k.request(t, anAdmin, PlanRequest{Archive: []byte("zip")}).ID, time.Minute)
			if got.Phase != want || want == plan.Failed && !strings.Contains(got.Error, "keep 100001 guests ready") {
				t.Errorf("%d spares: %s, %q", spare, got.Phase, got.Error)
			}
		})
	}
}

func TestGetWaitsForBothLayersAndNoLongerThanAsked(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		id, began := k.request(t, anAdmin, PlanRequest{Ref: "main"}).ID, time.Now()
		waited := func(want time.Duration) {
			t.Helper()
			if got := time.Since(began); got != want {
				t.Errorf("waited until %s after the request, want %s", got, want)
			}
		}
		if got := k.get(t, id, time.Second); got.Phase != plan.Making {
			t.Errorf("%+v", got)
		}
		waited(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if got, err := k.Get(ctx, id, time.Hour); err != nil || got.Phase != plan.Ready {
			t.Errorf("%+v, %v", got, err)
		}
		waited(3 * time.Second)
		if got := k.get(t, id, time.Hour); phaseOf(got.Terraform) != plan.Ready {
			t.Errorf("%+v", got)
		}
		waited(22 * time.Second)
		k.get(t, id, time.Hour)
		waited(22 * time.Second)
	})
}

func TestPlansExpireAnHourAfterTheyWereAskedFor(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		id, held := k.requested(t, aUser, "main").ID, k.hold("h2")
		pass(time.Hour - 10*time.Second)
		k.adopt("b2") // made again, and not kept any longer for that; but what was held is held no more
		if got := k.get(t, id, time.Minute); got.Base != "b2" {
			t.Errorf("%+v", got)
		}
		pass(6 * time.Second)
		if _, err := k.Get(t.Context(), id, 0); err != ErrUnknownPlan {
			t.Errorf("got %v", err)
		}
		if got := k.get(t, held, 0); got.Expires.IsZero() {
			t.Error("the plan that was held never expires")
		}
		pass(time.Hour)
		if got := k.List(); len(got) != 0 {
			t.Errorf("kept: %+v", got)
		}
	})
}

func TestPlansThatAreHeldDoNotExpire(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		id := k.hold("h2")
		pass(48 * time.Hour)
		got := k.get(t, id, 0)
		if got.Phase != plan.Ready || got.Head != "h2" || got.By != "greenroom" || got.Ref != "h2" || !got.Expires.IsZero() {
			t.Errorf("%+v", got)
		}
	})
}

func TestANewerRequestReplacesTheOlderOfTheSameKey(t *testing.T) {
	file := []byte("zip")
	another := lease.Caller{Name: "otto", Owner: aUser.Owner, Role: lease.User}
	namesake := lease.Caller{Name: aUser.Name, Owner: "mobile", Role: lease.User}
	for _, c := range []struct {
		name         string
		by, by2      lease.Caller
		first, again PlanRequest
		want         bool
	}{
		{"the same ref, whoever asks", aUser, anAdmin, PlanRequest{Ref: "main"}, PlanRequest{Ref: "main"}, true},
		{"another ref", aUser, aUser, PlanRequest{Ref: "main"}, PlanRequest{Ref: "topic"}, false},
		{"the same name", aUser, aUser, PlanRequest{Archive: file, Name: "pull/1"}, PlanRequest{Archive: file, Name: "pull/1"}, true},
		{"another's same name", aUser, another, PlanRequest{Archive: file, Name: "pull/1"}, PlanRequest{Archive: file, Name: "pull/1"}, false},
		{"a namesake's of another team", aUser, namesake, PlanRequest{Archive: file, Name: "pull/1"}, PlanRequest{Archive: file, Name: "pull/1"}, false},
		{"a namesake's of another team, without names", aUser, namesake, PlanRequest{Archive: file}, PlanRequest{Archive: file}, false},
		{"another name", aUser, aUser, PlanRequest{Archive: file, Name: "pull/1"}, PlanRequest{Archive: file, Name: "pull/2"}, false},
		{"no names", aUser, aUser, PlanRequest{Archive: file}, PlanRequest{Archive: file}, true},
		{"an archive that is called like a ref", aUser, aUser, PlanRequest{Ref: "main"}, PlanRequest{Archive: file, Name: "main"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			keep(t, func(t *testing.T, k *keeper) {
				first := k.request(t, c.by, c.first)
				pass(time.Second / 2) // it is being read
				again := k.request(t, c.by2, c.again)
				got := k.get(t, first.ID, 0)
				if c.want && (got.Phase != plan.Replaced || got.ReplacedBy != again.ID) {
					t.Errorf("not replaced: %+v", got)
				}
				if !c.want && got.Phase != plan.Making {
					t.Errorf("replaced: %+v", got)
				}
				k.get(t, again.ID, time.Minute)
				pass(time.Minute)
				if want := map[bool]int{true: 1, false: 2}[c.want]; len(k.house.previews) != want {
					t.Errorf("made %d, want %d: what is replaced is called off", len(k.house.previews), want)
				}
			})
		})
	}
}

func TestAReplacedPlanSaysThatItsTerraformLayerWasGivenUp(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		first := k.request(t, anAdmin, PlanRequest{Ref: "main"})
		pass(5 * time.Second)
		k.request(t, anAdmin, PlanRequest{Ref: "main"})
		got := k.get(t, first.ID, time.Minute)
		if got.Phase != plan.Replaced || phaseOf(got.Terraform) != plan.Failed || !strings.Contains(got.Terraform.Error, "replaced") {
			t.Errorf("%+v, %+v", got, got.Terraform)
		}
	})
}

func TestPlansAreMadeAgainOnceWhenTheBaseMoves(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		ref, file := k.requested(t, aUser, "main"), k.request(t, aUser, PlanRequest{Archive: []byte("zip"), Name: "pull/1"})
		bad := k.requested(t, aUser, "nowhere")
		k.get(t, file.ID, time.Minute)
		k.house.set(func() { k.house.previews, k.house.refs["main"] = nil, "h2" })
		for n := range 5 {
			k.adopt(fmt.Sprint("b", n+2))
			if got := k.get(t, ref.ID, 0); got.Phase != plan.Making || got.Digest != "" || got.Guests == nil || len(got.Guests) > 0 {
				t.Errorf("moved: %+v", got)
			}
			pass(10 * time.Millisecond)
		}
		for id, head := range map[string]string{ref.ID: "h2", file.ID: "zip-3"} {
			if got := k.get(t, id, time.Minute); got.Phase != plan.Ready || got.Base != "b6" || got.Head != head || !got.Expires.Equal(k.get(t, id, 0).Expires) {
				t.Errorf("%+v", got)
			}
		}
		slices.Sort(k.house.previews)
		if diff := cmp.Diff([]string{"b6+h2", "b6+zip-3"}, k.house.previews); diff != "" {
			t.Error(diff)
		}
		if got := k.get(t, bad.ID, 0); got.Phase != plan.Failed {
			t.Errorf("%+v", got)
		}
	})
}

func TestAMakingThatTheBaseOvertakesIsCalledOff(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		id := k.request(t, anAdmin, PlanRequest{Ref: "main"}).ID
		pass(1500 * time.Millisecond) // it is being previewed
		k.adopt("b2")
		if got := k.get(t, id, 2500*time.Millisecond); got.Base != "b2" {
			t.Errorf("%+v", got)
		}
		pass(5 * time.Second) // Terraform is at work
		k.adopt("b3")
		pass(3 * time.Second)
		if got := k.get(t, id, 0); got.Base != "b3" || phaseOf(got.Terraform) != plan.Making || len(got.Terraform.Shards) != 0 {
			t.Errorf("%+v, %+v", got, got.Terraform)
		}
		if diff := cmp.Diff([]string{"b2+h1", "b3+h1"}, k.house.previews); diff != "" {
			t.Error(diff)
		}
	})
}

func TestGetMakesAPlanAgainWhoseBaseMovedUnheard(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		id := k.requested(t, aUser, "main").ID
		k.house.set(func() { k.house.base = "b2" })
		if got := k.get(t, id, 0); got.Phase != plan.Making {
			t.Errorf("%+v", got)
		}
		if got := k.get(t, id, time.Minute); got.Base != "b2" || got.Phase != plan.Ready {
			t.Errorf("%+v", got)
		}
	})
}

func TestFailuresSayWhy(t *testing.T) {
	long := errors.New(strings.Repeat("ä", maxError))
	for _, c := range []struct {
		name string
		ref  string
		how  func(*keeper)
		want string
	}{
		{"faults in the specs", "nowhere", func(*keeper) {}, "SpecInvalid: main.hcl:1: no nowhere\n  it is underlined"},
		{"the preview fails", "main", func(k *keeper) { k.house.fails = errors.New("the store cannot be reached") }, "the store cannot be reached"},
		{"without end", "main", func(k *keeper) { k.house.fails = long }, long.Error()[:maxError] + "\n… and more"},
		{"a panic", "main", func(k *keeper) { k.house.panics = true }, "a fault in Greenroom itself; its log tells more"},
		{"it takes too long", "main", func(k *keeper) { k.house.took = 3 * time.Minute }, "given up after 2m0s: SourceUnreachable: context deadline exceeded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			keep(t, func(t *testing.T, k *keeper) {
				c.how(k)
				got := k.requested(t, anAdmin, c.ref)
				if got.Phase != plan.Failed || got.Error != c.want || got.Made.IsZero() || got.Terraform != nil {
					t.Errorf("got %s %.200q, want %.200q", got.Phase, got.Error, c.want)
				}
				if strings.Contains(k.log.String(), "as told") != k.house.panics {
					t.Errorf("logged: %s", k.log.String())
				}
				k.house.set(func() { k.house.fails, k.house.panics, k.house.took = nil, false, 0 })
				if got := k.requested(t, anAdmin, "main"); got.Phase != plan.Ready {
					t.Errorf("the next one: %+v", got)
				}
			})
		})
	}
}

func TestTerraformsFailureLeavesTheFirstLayer(t *testing.T) {
	for _, c := range []struct {
		name string
		how  func(context.Context) error
		want string
	}{
		{"an error", func(context.Context) error { return errors.New("terraform is not there") }, "terraform is not there"},
		{"a panic", func(context.Context) error { panic("as told") }, "a fault in Greenroom itself; its log tells more"},
		{"too long", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, "given up after 10m0s: context deadline exceeded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			keep(t, func(t *testing.T, k *keeper) {
				k.terraform = func(_ *reconcile.Preview, ctx context.Context, dir string, done func(plan.Shard)) error {
					if err := os.WriteFile(filepath.Join(dir, "main.tf"), nil, 0o400); err != nil {
						t.Error(err)
					}
					done(plan.Shard{Shard: "p-1"})
					return c.how(ctx)
				}
				got := k.requested(t, anAdmin, "main")
				if got.Phase != plan.Ready || phaseOf(got.Terraform) != plan.Failed || got.Terraform.Error != c.want || len(got.Terraform.Shards) != 1 {
					t.Errorf("%s, %+v", got.Phase, got.Terraform)
				}
				if left, err := os.ReadDir(k.o.Dir); err != nil || len(left) > 0 {
					t.Errorf("left behind: %v, %v", left, err)
				}
			})
		})
	}
}

func TestApprovalIsOfWhatIsReadyAndOnTheBaseInForce(t *testing.T) {
	for _, c := range []struct {
		name string
		by   lease.Caller
		how  func(t *testing.T, k *keeper) (id string)
		want error
	}{
		{"by a user", aUser, func(_ *testing.T, k *keeper) string { return k.hold("h2") }, ErrNotAdmin},
		{"by nobody", lease.Caller{}, func(_ *testing.T, k *keeper) string { return k.hold("h2") }, ErrNotAdmin},
		{"of nothing", anAdmin, func(*testing.T, *keeper) string { return "" }, ErrUnknownPlan},
		{"being made", anAdmin, func(t *testing.T, k *keeper) string { return k.request(t, aUser, PlanRequest{Ref: "main"}).ID }, ErrNotReady},
		{"failed", anAdmin, func(t *testing.T, k *keeper) string { return k.requested(t, aUser, "nowhere").ID }, ErrNotReady},
		{"replaced", anAdmin, func(_ *testing.T, k *keeper) string { id := k.hold("h2"); k.hold("h3"); return id }, ErrNotReady},
		{"made again", anAdmin, func(_ *testing.T, k *keeper) string { id := k.hold("h2"); k.adopt("b2"); return id }, ErrStale},
		{"not made again yet", anAdmin, func(_ *testing.T, k *keeper) string {
			id := k.hold("h2")
			k.house.set(func() { k.house.base = "b2" })
			return id
		}, ErrStale},
		{"expired", anAdmin, func(t *testing.T, k *keeper) string {
			id := k.requested(t, aUser, "main").ID
			pass(time.Hour)
			return id
		}, ErrUnknownPlan},
		{"held", anAdmin, func(_ *testing.T, k *keeper) string { return k.hold("h1") }, nil},
		{"asked for", anAdmin, func(t *testing.T, k *keeper) string { return k.requested(t, aUser, "main").ID }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			keep(t, func(t *testing.T, k *keeper) {
				id := c.how(t, k)
				got, err := k.approveAsShown(c.by, id)
				if !errors.Is(err, c.want) {
					t.Fatalf("got %v, want %v", err, c.want)
				}
				if c.want != nil {
					if len(k.house.approved) > 0 || k.log.Len() > 0 {
						t.Errorf("approved %v, logged %s", k.house.approved, k.log.String())
					}
					return
				}
				want := &plan.Approval{By: "ada", At: time.Now(), Digest: "b1+h1"}
				if diff := cmp.Diff([]*plan.Approval{want, want}, []*plan.Approval{got.Approved, k.get(t, id, 0).Approved}); diff != "" {
					t.Error(diff)
				}
				for _, part := range []string{"level=INFO", "plan=" + id, "by=ada", "revision=h1"} {
					if !strings.Contains(k.log.String(), part) {
						t.Errorf("the log does not say %s: %s", part, k.log.String())
					}
				}
			})
		})
	}
}

func TestApprovingOnceMoreIsTheSameAsOnceAlsoAfterItCameIntoForce(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		id := k.hold("h2")
		once, err := k.approveAsShown(anAdmin, id)
		if err != nil {
			t.Fatal(err)
		}
		again := func() {
			t.Helper()
			got, err := k.approveAsShown(lease.Caller{Name: "otto", Role: lease.Admin}, id)
			if err != nil || got.Approved != once.Approved || got.Digest != "b1+h2" {
				t.Errorf("once more: %+v, %v", got, err)
			}
		}
		again()
		k.adopt("h2")
		again()
		pass(time.Minute)
		again()
		if got := k.get(t, id, 0); got.Phase != plan.Ready || got.Base != "b1" || got.Approved == nil || phaseOf(got.Terraform) != plan.Failed {
			t.Errorf("what was approved is gone: %+v", got)
		}
		k.adopt("b3")
		pass(time.Minute)
		again()
		if diff := cmp.Diff([]string{"b1+h2"}, k.house.approved); diff != "" {
			t.Error(diff)
		}
		pass(time.Hour)
		if _, err := k.Get(t.Context(), id, 0); err != ErrUnknownPlan {
			t.Errorf("it is kept for ever: %v", err)
		}
	})
}

func TestAnApprovalEndsWhenAnotherRevisionComesIntoForce(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		id := k.hold("h2")
		if _, err := k.approveAsShown(anAdmin, id); err != nil {
			t.Fatal(err)
		}
		k.house.set(func() { k.house.base = "b2" })
		if _, err := k.approveAsShown(anAdmin, id); err != ErrStale {
			t.Errorf("got %v", err)
		}
		k.Moved()
		pass(500 * time.Millisecond) // it is being previewed
		k.adopt("b3")
		pass(5 * time.Second)
		if got := k.List()[0]; got.Phase != plan.Ready || got.Base != "b3" || got.Approved != nil {
			t.Errorf("%+v", got)
		}
		k.adopt("h2") // by another way
		if got := k.get(t, id, time.Minute); got.Base != "h2" || got.Approved != nil {
			t.Errorf("%+v", got)
		}
	})
}

func TestARefusedApprovalCanBeTriedAgain(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		id := k.hold("h2")
		k.house.refuses = errors.New("the disk is full")
		if _, err := k.approveAsShown(anAdmin, id); !errors.Is(err, k.house.refuses) {
			t.Errorf("got %v", err)
		}
		if got := k.get(t, id, 0); got.Approved != nil || k.log.Len() > 0 {
			t.Errorf("%+v, logged %s", got, k.log.String())
		}
		k.house.refuses = nil
		if got, err := k.approveAsShown(anAdmin, id); err != nil || got.Approved == nil {
			t.Errorf("%+v, %v", got, err)
		}
		k.house.refuses = errors.New("the disk is full")
		id = k.hold("h3")
		k.approveAsShown(anAdmin, id)
		k.adopt("h3")
		if got := k.get(t, id, time.Minute); got.Base != "h3" || got.Approved != nil {
			t.Errorf("it is settled without an approval: %+v", got)
		}
	})
}

func TestAHeldPlanKeepsItsIDWhileItsDigestStays(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		first := k.hold("h2")
		if again := k.hold("h2"); again != first {
			t.Errorf("%s, then %s", first, again)
		}
		second := k.hold("h3")
		if got := k.get(t, first, 0); got.Phase != plan.Replaced || got.ReplacedBy != second || got.Expires.IsZero() {
			t.Errorf("%+v", got)
		}
		if third := k.hold("h2"); third == first || third == second {
			t.Errorf("%s, a plan that was replaced, is held again", third)
		}
	})
}

func TestTheOldestPlansMakePlaceSaveThatOfTheRevisionThatIsHeld(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := newKeeper(t, dir, func(o *PlansOptions) { o.Max = 3 })
		k.house.set(func() { k.house.refs = map[string]string{"r0": "a", "r1": "b", "r2": "c", "r3": "d"} })
		held := k.hold("h2")
		var ids []string
		for n := range 4 {
			ids = append(ids, k.requested(t, aUser, fmt.Sprint("r", n)).ID)
		}
		var left []string
		for _, p := range k.List() {
			left = append(left, p.ID)
		}
		if diff := cmp.Diff([]string{ids[3], ids[2], held}, left); diff != "" {
			t.Error(diff)
		}
		k.house.set(func() { k.house.took = time.Minute })
		k.request(t, aUser, PlanRequest{Ref: "r0"})
		k.request(t, aUser, PlanRequest{Ref: "r1"})
		if _, err := k.Request(aUser, PlanRequest{Ref: "r2"}); err != ErrTooManyPlans {
			t.Errorf("plans that are waited for made place: %v", err)
		}
		if id := k.hold("h3"); k.get(t, id, 0).Head != "h3" || len(k.List()) != 3 {
			t.Error("a held plan finds no place")
		}
	})
}

func TestWhoAsksForManyPlansDelaysNobodyElse(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		refs := map[string]string{}
		for n := range maxAsked + 3 {
			refs[fmt.Sprint("r", n)] = fmt.Sprint("head", n)
		}
		k.house.set(func() { k.house.refs, k.house.took = refs, 10*time.Second })
		for n := range maxAsked {
			k.request(t, aUser, PlanRequest{Ref: fmt.Sprint("r", n)})
		}
		if _, err := k.Request(aUser, PlanRequest{Ref: fmt.Sprint("r", maxAsked)}); err != ErrTooManyPlans {
			t.Errorf("one more than a caller may have made: %v", err)
		}
		other := k.request(t, lease.Caller{Name: "otto", Owner: "db", Role: lease.User}, PlanRequest{Ref: fmt.Sprint("r", maxAsked+1)})
		admins := k.request(t, anAdmin, PlanRequest{Ref: fmt.Sprint("r", maxAsked+2)})
		for _, id := range []string{admins.ID, other.ID} {
			for range maxAsked {
				k.get(t, id, time.Minute)
			}
			if got := k.get(t, id, time.Minute); got.Phase != plan.Ready {
				t.Fatalf("%+v", got)
			}
			made := 0
			for _, p := range k.List() {
				if p.Phase == plan.Ready && p.By == aUser.Name {
					made++
				}
			}
			if made > 6 { // two were being made, and each other one takes the place of one
				t.Errorf("%d plans of one caller were made before one of %s", made, k.get(t, id, 0).By)
			}
		}
	})
}

func TestTheOldestPlansMakePlaceWhenAllTogetherAreTooLong(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		k.room = 3 // of a test's plans, each has one guest
		held := k.hold("h0")
		var ids []string
		for _, ref := range []string{"main", "topic", "main", "topic"} { // one that is replaced counts until it expires
			ids = append(ids, k.requested(t, aUser, ref).ID)
		}
		for i, there := range []bool{false, false, true, true} {
			if _, err := k.Get(t.Context(), ids[i], 0); (err == nil) != there || err != nil && !errors.Is(err, ErrUnknownPlan) {
				t.Errorf("plan %d: %v", i, err)
			}
		}
		if _, err := k.Get(t.Context(), held, 0); err != nil {
			t.Error("the one that is held:", err)
		}
	})
}

func TestArchivesAreDroppedWhenTheyAreTooMany(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		file := make([]byte, MaxArchive)
		var ids []string
		request := func(n int) {
			ids = append(ids, k.request(t, aUser, PlanRequest{Archive: file, Name: fmt.Sprint("pull/", n)}).ID)
		}
		request(0)
		k.get(t, ids[0], time.Minute)
		for n := range maxArchives / MaxArchive {
			request(n + 1)
		}
		if got := k.get(t, ids[0], 0); got.Phase != plan.Ready {
			t.Errorf("a plan that is ready: %+v", got)
		}
		request(9) // the second is still being made
		if got := k.get(t, ids[1], 0); got.Phase != plan.Failed || got.Error != errNoArchive.Error() {
			t.Errorf("a plan that is being made: %+v", got)
		}
		for _, id := range ids[2:] {
			if got := k.get(t, id, time.Minute); got.Phase != plan.Ready {
				t.Errorf("%+v", got)
			}
		}
		k.adopt("b2")
		if got := k.get(t, ids[0], time.Minute); got.Phase != plan.Failed || !strings.Contains(got.Error, "upload it again") {
			t.Errorf("made again without its archive: %+v", got)
		}
	})
}

func TestTwoPlansAreMadeAtOnceAndTerraformKeepsNobodyWaiting(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		block := make(chan struct{})
		k.terraform = func(*reconcile.Preview, context.Context, string, func(plan.Shard)) error { <-block; return nil }
		var ids []string
		for n := range 6 {
			ref := fmt.Sprint("r", n)
			k.house.set(func() { k.house.refs[ref] = ref })
			ids = append(ids, k.request(t, anAdmin, PlanRequest{Ref: ref}).ID)
		}
		pass(6 * time.Second)
		for _, id := range ids {
			if got := k.get(t, id, 0); got.Phase != plan.Ready {
				t.Errorf("%+v", got)
			}
		}
		if k.house.atOnce != 2 || k.busy[secondLayer] != 2 {
			t.Errorf("at once: %d and %d", k.house.atOnce, k.busy[secondLayer])
		}
		close(block)
	})
}

func TestWhatWasNeverMadeIsMadeFirst(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		for n := range 10 {
			ref := fmt.Sprint("r", n)
			k.house.set(func() { k.house.refs[ref] = ref })
			k.requested(t, aUser, ref)
		}
		k.adopt("b2")
		pass(time.Second)
		if got := k.get(t, k.request(t, aUser, PlanRequest{Ref: "main"}).ID, 4*time.Second); got.Phase != plan.Ready {
			t.Errorf("%+v", got)
		}
	})
}

func TestTheReconcilerNeverWaitsForPlans(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		k.requested(t, aUser, "main")
		hangs := make(chan struct{})
		k.house.set(func() { k.house.hangs = hangs })
		go k.Get(t.Context(), "x", 0)
		go k.approveAsShown(anAdmin, "x")
		k.request(t, aUser, PlanRequest{Ref: "topic"})
		pass(time.Millisecond)
		began := time.Now()
		k.adopt("b2")
		k.hold("h2")
		k.List()
		if took := time.Since(began); took != 0 {
			t.Errorf("waited %s", took)
		}
		close(hangs)
	})
}

func TestListsAreShortAndNewestFirst(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		old, held := k.requested(t, anAdmin, "main"), k.hold("h2")
		got := k.List()
		if len(got) != 2 || got[0].ID != held || got[1].ID != old.ID {
			t.Fatalf("%+v", got)
		}
		want := old
		want.Pools, want.Caches, want.Guests, want.Terraform = []plan.Pool{}, []plan.Cache{}, []plan.Guest{}, nil
		if diff := cmp.Diff(want, got[1]); diff != "" {
			t.Error(diff)
		}
	})
}

func TestRequestsOfNothingOrOfTooMuchAreRefused(t *testing.T) {
	keep(t, func(t *testing.T, k *keeper) {
		for name, r := range map[string]PlanRequest{
			"nothing":               {},
			"a name of nothing":     {Name: "pull/1"},
			"both":                  {Ref: "main", Archive: []byte("zip")},
			"a ref with a name":     {Ref: "main", Name: "pull/1"},
			"a ref with a line end": {Ref: "main\n"},
			"a name with an escape": {Archive: []byte("zip"), Name: "\x1b[2J"},
			"a ref without end":     {Ref: strings.Repeat("a", maxRef+1)},
			"an archive without":    {Archive: make([]byte, MaxArchive+1)},
		} {
			if _, err := k.Request(anAdmin, r); !errors.Is(err, lease.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if len(k.List()) > 0 {
			t.Error("refused requests are kept")
		}
	})
}

func TestTheDirectoryOfPreviewsIsPrivateAndEmptyAtTheStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "previews")
	if err := os.MkdirAll(filepath.Join(dir, "old", "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := NewPlans(PlansOptions{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewPlans(PlansOptions{Dir: file}); err == nil {
		t.Error("a file is taken for a directory")
	}
}

// TestPlansKeepTheirPromisesUnderAnyOrderOfEvents lets requests, moves of the base, held revisions, approvals and time come in
// any order, and looks at all that is kept after each.
func TestPlansKeepTheirPromisesUnderAnyOrderOfEvents(t *testing.T) {
	dir := t.TempDir()
	file := make([]byte, MaxArchive)
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(struct{ testing.TB }{t}, func(rt *rapid.T) { // without the deadline, which cannot be asked for in a bubble
			m := &machine{newMachineKeeper(rt, dir), 1}
			defer m.end()
			rt.Repeat(map[string]func(*rapid.T){
				"request": func(rt *rapid.T) {
					by := rapid.SampledFrom([]lease.Caller{anAdmin, aUser}).Draw(rt, "by")
					ref := rapid.SampledFrom([]string{"main", "topic", "nowhere"}).Draw(rt, "ref")
					m.try(rt, by, PlanRequest{Ref: ref})
				},
				"upload": func(rt *rapid.T) {
					size := rapid.SampledFrom([]int{1, MaxArchive / 2, MaxArchive}).Draw(rt, "size")
					m.try(rt, aUser, PlanRequest{Archive: file[:size], Name: rapid.StringMatching("pull/[1-9]").Draw(rt, "name")})
				},
				"move": func(*rapid.T) {
					m.moves++
					m.k.adopt(fmt.Sprint("b", m.moves))
				},
				"follow": func(rt *rapid.T) {
					if len(m.k.house.approved) > 0 {
						_, head, _ := strings.Cut(rapid.SampledFrom(m.k.house.approved).Draw(rt, "approved"), "+")
						m.k.adopt(head)
					}
				},
				"move unheard": func(*rapid.T) {
					m.moves++
					m.k.house.set(func() { m.k.house.base = fmt.Sprint("b", m.moves) })
				},
				"commit": func(rt *rapid.T) {
					m.k.house.set(func() { m.k.house.refs["main"] = rapid.StringMatching("h[1-3]").Draw(rt, "head") })
				},
				"hold": func(rt *rapid.T) {
					head := rapid.StringMatching("h[1-3]").Draw(rt, "head")
					if id := m.k.hold(head); m.k.hold(head) != id {
						rt.Fatal("the same digest has two plans")
					}
				},
				"approve": func(rt *rapid.T) { m.approve(rt) },
				"get": func(rt *rapid.T) {
					for _, p := range m.k.List() {
						if _, err := m.k.Get(rt.Context(), p.ID, 0); err != nil {
							rt.Fatal(err)
						}
					}
				},
				"wait": func(rt *rapid.T) {
					pass(rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, 30 * time.Second, 4 * time.Minute}).Draw(rt, "for"))
				},
				"": m.check,
			})
			m.calm(rt)
		})
	})
}

type machine struct {
	k     *machineKeeper
	moves int
}

// machineKeeper is a keeper with few places and an end of its own.
type machineKeeper struct {
	keeper
	stop  context.CancelFunc
	ended chan error
}

func newMachineKeeper(rt *rapid.T, dir string) *machineKeeper {
	k := &machineKeeper{keeper: keeper{house: &house{base: "b1", refs: map[string]string{"main": "h1", "topic": "t1"}, took: time.Second}}, ended: make(chan error)}
	var err error
	if k.Plans, err = NewPlans(PlansOptions{Dir: dir, Loop: k.house, Source: k.house, Max: 12, Keep: 5 * time.Minute}); err != nil {
		rt.Fatal(err)
	}
	k.terraform = func(_ *reconcile.Preview, ctx context.Context, _ string, done func(plan.Shard)) error {
		done(plan.Shard{Shard: "p-1"})
		<-time.After(10 * time.Second) // whether it is called off or not
		done(plan.Shard{Shard: "p-2"})
		return ctx.Err()
	}
	var ctx context.Context
	ctx, k.stop = context.WithCancel(context.Background())
	go func() { k.ended <- k.Run(ctx) }()
	return k
}

func (m *machine) end() {
	m.k.stop()
	<-m.k.ended
}

func (m *machine) try(rt *rapid.T, by lease.Caller, r PlanRequest) {
	p, err := m.k.Request(by, r)
	if errors.Is(err, ErrTooManyPlans) {
		return
	}
	if err != nil || p.Phase != plan.Making {
		rt.Fatalf("%+v, %v", p, err)
	}
}

// approve approves any of the plans: it works where the plan is ready and of the base in force, and then approves its digest.
func (m *machine) approve(rt *rapid.T) {
	list := m.k.List()
	if len(list) == 0 {
		return
	}
	p := rapid.SampledFrom(list).Draw(rt, "plan")
	before := slices.Clone(m.k.house.approved)
	got, err := m.k.approveAsShown(anAdmin, p.ID)
	asked := m.k.house.approved[len(before):]
	current := p.Phase == plan.Ready && p.Base == m.k.house.base
	switch {
	case p.Approved != nil && err == nil && len(asked) == 0: // once more
	case err == nil && current && cmp.Equal(asked, []string{p.Digest}) && got.Approved != nil && got.Approved.Digest == p.Digest:
	case err != nil && !current && len(asked) == 0:
	default:
		rt.Fatalf("approving %+v on base %s: asked for %v; %+v, %v", p, m.k.house.base, asked, got, err)
	}
}

// check looks at everything that is kept.
func (m *machine) check(rt *rapid.T) {
	synctest.Wait()
	m.k.mu.Lock()
	defer m.k.mu.Unlock()
	live, archives, held := map[string]int{}, 0, 0
	for id, k := range m.k.plans {
		archives += len(k.request.Archive)
		if len(k.request.Archive) > 0 && (k.settled || k.plan.Phase != plan.Ready && k.plan.Phase != plan.Making) {
			rt.Errorf("%s is %s and keeps an archive", id, k.plan.Phase)
		}
		if k.held {
			held++
		} else if k.plan.Expires.IsZero() {
			rt.Errorf("%s never expires", id)
		}
		if k.plan.Phase != plan.Replaced && k.key != "" {
			live[k.key]++
		}
		if by := m.k.plans[k.plan.ReplacedBy]; (k.plan.Phase == plan.Replaced) != (by != nil) {
			rt.Errorf("%s is %s by %q", id, k.plan.Phase, k.plan.ReplacedBy)
		}
		if a := k.plan.Approved; a != nil && (a.Digest != k.plan.Digest || !slices.Contains(m.k.house.approved, a.Digest)) {
			rt.Errorf("%s with digest %s has the approval of %s", id, k.plan.Digest, a.Digest)
		}
		if k.plan.Phase == plan.Ready && k.plan.Digest != k.plan.Base+"+"+k.plan.Head {
			rt.Errorf("%s mixes two makings: %+v", id, k.plan)
		}
		if k.plan.Terraform != nil && k.by.Role == lease.User {
			rt.Errorf("Terraform was asked for a user")
		}
		if t := k.plan.Terraform; t != nil && len(t.Shards) > 2 {
			rt.Errorf("%s shows shards of two makings: %+v", id, t)
		}
	}
	for key, n := range live {
		if n > 1 {
			rt.Errorf("%d live plans of %s", n, key)
		}
	}
	if len(m.k.plans) > m.k.o.Max || archives > maxArchives || held > 1 {
		rt.Errorf("%d plans, %d held, %d bytes of archives", len(m.k.plans), held, archives)
	}
	if m.k.busy[firstLayer] > plansAtOnce || m.k.busy[secondLayer] > plansAtOnce {
		rt.Errorf("at once: %v", m.k.busy)
	}
}

// calm waits until nothing is to be done: then every plan is made, on the base in force or as it was approved, and no
// directory is left.
func (m *machine) calm(rt *rapid.T) {
	m.k.Moved()
	pass(2 * time.Minute)
	m.k.mu.Lock()
	defer m.k.mu.Unlock()
	for _, k := range slices.Collect(maps.Values(m.k.plans)) {
		if unfinished(k.plan) || k.todo != noLayer || k.cancel != nil {
			rt.Errorf("not made: %+v", k)
		}
		if k.plan.Phase == plan.Ready && k.plan.Base != m.k.house.base && !k.settled {
			rt.Errorf("on an old base: %+v", k.plan)
		}
	}
	if left, err := os.ReadDir(m.k.o.Dir); err != nil || len(left) > 0 {
		rt.Errorf("left behind: %v, %v", left, err)
	}
}
