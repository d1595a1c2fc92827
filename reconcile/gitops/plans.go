package gitops

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"greenroom/lease"
	"greenroom/reconcile"
	"greenroom/reconcile/plan"
	"greenroom/specs"
)

// The facts that a call on the plans can run into.
var (
	ErrUnknownPlan  = errors.New("unknown plan: plans are kept for an hour, and not over a restart") // never made, or expired
	ErrNotReady     = errors.New("the plan is not ready")                                            // being made, failed or replaced
	ErrStale        = errors.New("the plan is made again, or says something else by now; look at it once more")
	ErrTooManyPlans = errors.New("too many plans are being made; try again in a moment")
	ErrNotAdmin     = errors.New("only admins approve plans")
)

// Bounds of the plans.
const (
	MaxArchive = 8 << 20 // bytes of one archive

	maxArchives  = 64 << 20 // bytes of all archives that are kept
	maxWanted    = 100_000  // guests that the specs of an archive keep ready: a forecast of so many takes seconds
	maxGuests    = 500_000  // in the lists of all plans: who uploads specs can have hundreds of thousands in each
	maxError     = 64 << 10 // bytes of what is said of a failure: who uploads specs can have faults without end in them
	plansAtOnce  = 2        // plans of which one layer is made
	maxAsked     = 20       // plans that are made for one caller, one after the other
	firstWithin  = 2 * time.Minute
	secondWithin = 10 * time.Minute
	remakeAfter  = 100 * time.Millisecond // moves of the base within it make plans again once
)

// PlanRequest says which revision to preview: what a ref names, or what is in an archive.
type PlanRequest struct {
	Ref     string
	Archive []byte // a zip; it must not be changed any more
	Name    string // what an archive is, for people ("pull/12"); it takes the place of the ref
}

// previewer is the reconciler.
type previewer interface {
	Preview(ctx context.Context, head reconcile.Revision) (*reconcile.Preview, error)
	InForce() string
	Approve(by, digest string) error
}

// reader is where revisions come from. Of an archive, absolute lists the module directories that it may name by an absolute
// path; nil allows all of them.
type reader interface {
	Read(ctx context.Context, ref string) reconcile.Revision
	Archive(ctx context.Context, zip []byte, absolute []string) reconcile.Revision
}

// PlansOptions are the options of the plans. Dir, Loop and Source are needed.
type PlansOptions struct {
	Dir      string // of Terraform's previews; emptied at the start, because what is in it is of a former life
	Loop     previewer
	Source   reader
	Absolute func() []string // absolute module directories that callers who are no admins may name; default none
	Keep     time.Duration   // from the request on; default 1h
	Max      int             // plans; default 200. The oldest makes place
	Log      *slog.Logger
	Now      func() time.Time
}

// Plans makes previews and keeps them for a while, in memory alone: they are cheap to make and soon out of date. Run makes
// them; the other methods may be called concurrently, and no lock is held while the reconciler or the source is asked.
type Plans struct {
	o         PlansOptions
	terraform func(*reconcile.Preview, context.Context, string, func(plan.Shard)) error
	wake      chan struct{}
	room      int // for guests in the lists of all plans

	mu    sync.Mutex
	plans map[string]*kept     // by id
	count int                  // of plans so far
	moved bool                 // the base has, and approved plans have not been looked at since
	busy  [secondLayer + 1]int // makings under way, by layer
}

// layer is one of the two parts of a plan.
type layer int

const (
	noLayer     layer = iota
	firstLayer        // what Greenroom decides; for everyone
	secondLayer       // what Terraform plans; only for admins, because a plan of Terraform's executes what a revision says
)

// kept is one plan with what is needed to make it, and to make it again.
type kept struct {
	plan     plan.Plan // as it is shown; lists in it are replaced, never changed
	number   int       // in the order of requests
	key      string    // of requests that replace each other; empty: none does
	by       lease.Caller
	request  PlanRequest
	revision *reconcile.Revision // of one that is held, instead of a request
	held     bool                // then it does not expire
	made     bool                // once at least
	settled  bool                // approved, and in force by now: a record of what was approved, not made again

	preview  *reconcile.Preview // for the second layer
	approval *plan.Approval     // given, or being given
	todo     layer
	at       time.Time          // not to be made before
	cancel   context.CancelFunc // of the making under way, until it has returned
	changed  chan struct{}      // closed with the next change
}

// NewPlans returns plans that are not made yet: Run does that.
func NewPlans(o PlansOptions) (*Plans, error) {
	o.Keep, o.Max = cmp.Or(o.Keep, time.Hour), cmp.Or(o.Max, 200)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Absolute == nil {
		o.Absolute = func() []string { return nil }
	}
	if err := emptied(o.Dir); err != nil {
		return nil, fmt.Errorf("the directory of plan previews: %w", err)
	}
	return &Plans{o: o, terraform: (*reconcile.Preview).Terraform, wake: make(chan struct{}, 1), room: maxGuests, plans: map[string]*kept{}}, nil
}

func emptied(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// Request takes a request and returns at once, with a plan that is being made. It replaces the one of the same ref, or of the
// same caller (name and owner) and the same name.
func (p *Plans) Request(by lease.Caller, r PlanRequest) (plan.Plan, error) {
	key, shown, err := r.check(by)
	if err != nil {
		return plan.Plan{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweep()
	if p.askedBy(by, key) >= maxAsked || !p.makeRoom(key) {
		return plan.Plan{}, ErrTooManyPlans
	}
	k := p.add(by, key, shown)
	p.dropArchives(len(r.Archive))
	k.request, k.todo, k.at = r, firstLayer, p.o.Now()
	k.plan.Expires = k.at.Add(p.o.Keep)
	p.nudge()
	return k.show(), nil
}

// askedBy counts the plans that wait to be made for a caller, but for the one that a request of this key replaces. Those of admins do not
// count.
func (p *Plans) askedBy(by lease.Caller, key string) (n int) {
	for _, k := range p.plans {
		if k.by == by && by.Role == lease.User && k.key != key && !k.made && k.plan.Phase == plan.Making {
			n++
		}
	}
	return n
}

func (r PlanRequest) check(by lease.Caller) (key, shown string, err error) {
	bad := func(format string, args ...any) (string, string, error) {
		return "", "", fmt.Errorf("%w: "+format, append([]any{lease.ErrInvalid}, args...)...)
	}
	shown = cmp.Or(r.Name, r.Ref, "archive")
	switch {
	case (r.Ref == "") == (len(r.Archive) == 0):
		return bad("a plan is of a ref or of an archive, of one of them")
	case r.Ref != "" && r.Name != "":
		return bad("only an archive is given a name; a plan of a ref bears the ref's")
	case !printable(shown, maxRef):
		return bad("a ref or name has %d printable bytes at most", maxRef)
	case len(r.Archive) > MaxArchive:
		return bad("the archive has %d bytes, and %d are allowed", len(r.Archive), MaxArchive)
	case r.Ref != "":
		return "ref " + r.Ref, shown, nil
	}
	// Names of tokens are not unique: many teams have one that is called "ci".
	return fmt.Sprintf("archive of %q of %q: %s", by.Name, by.Owner, shown), shown, nil
}

// add registers an empty plan in the place of the one with its key.
func (p *Plans) add(by lease.Caller, key, shown string) *kept {
	p.count++
	k := &kept{number: p.count, key: key, by: by, changed: make(chan struct{})}
	k.plan = blank(plan.Plan{ID: strings.ToLower(rand.Text()), Ref: shown, By: by.Name})
	for _, old := range p.plans {
		if old.key == key && old.plan.Phase != plan.Replaced {
			old.stop("a newer request has replaced the plan")
			old.plan.Phase, old.plan.ReplacedBy, old.request.Archive = plan.Replaced, k.plan.ID, nil
			p.release(old)
			old.touch()
		}
	}
	p.plans[k.plan.ID] = k
	return k
}

// blank is a plan of which nothing is known yet. Its lists are empty rather than null for those who read JSON.
func blank(p plan.Plan) plan.Plan {
	p.Phase, p.Pools, p.Caches, p.Guests = plan.Making, []plan.Pool{}, []plan.Cache{}, []plan.Guest{}
	return p
}

// makeRoom removes the oldest plans until one more may be kept. Those that are held stay, and those that somebody still
// waits for; but one with the key goes anyway. False: there is no room.
func (p *Plans) makeRoom(key string) bool {
	for len(p.plans) >= p.o.Max {
		k := p.oldest(func(k *kept) bool {
			return !k.held && (k.made || k.plan.Phase != plan.Making || k.key == key)
		})
		if k == nil {
			return false
		}
		p.remove(k)
	}
	return true
}

// dropLong removes the oldest plans while all of them together list too many guests, save one that was just made and those that are
// held.
func (p *Plans) dropLong(made *kept) {
	guests := 0
	for _, k := range p.plans {
		guests += len(k.plan.Guests)
	}
	for guests > p.room {
		k := p.oldest(func(k *kept) bool { return k != made && !k.held && len(k.plan.Guests) > 0 })
		if k == nil {
			return
		}
		guests -= len(k.plan.Guests)
		p.remove(k)
	}
}

// dropArchives forgets the oldest archives until there is room for one of size bytes. A plan that is ready stays as it is.
func (p *Plans) dropArchives(size int) {
	for {
		all := size
		for _, k := range p.plans {
			all += len(k.request.Archive)
		}
		if size == 0 || all <= maxArchives {
			return
		}
		k := p.oldest(func(k *kept) bool { return len(k.request.Archive) > 0 })
		k.request.Archive = nil
		if k.plan.Phase == plan.Making {
			p.fail(k, "", errNoArchive.Error())
		}
	}
}

var errNoArchive = errors.New("the archive was dropped to make room for newer ones; upload it again")

func (p *Plans) oldest(which func(*kept) bool) *kept {
	var found *kept
	for _, k := range p.plans {
		if which(k) && (found == nil || k.number < found.number) {
			found = k
		}
	}
	return found
}

func (p *Plans) remove(k *kept) {
	k.stop("")
	delete(p.plans, k.plan.ID)
	k.touch()
}

// sweep removes what has expired.
func (p *Plans) sweep() {
	for _, k := range p.plans {
		if k.expired(p.o.Now()) {
			p.remove(k)
		}
	}
}

func (k *kept) expired(now time.Time) bool { return !k.held && !now.Before(k.plan.Expires) }

// release lets a plan that was held expire.
func (p *Plans) release(k *kept) {
	if k.held {
		k.held, k.plan.Expires = false, p.o.Now().Add(p.o.Keep)
	}
}

// touch tells those who wait that the plan has changed.
func (k *kept) touch() {
	close(k.changed)
	k.changed = make(chan struct{})
}

// stop calls off what is made or about to be made of a plan. A second layer that is half done is given up, and why.
func (k *kept) stop(why string) {
	k.todo, k.preview = noLayer, nil
	if k.cancel != nil {
		k.cancel()
	}
	if k.plan.Terraform != nil && k.plan.Terraform.Phase == plan.Making {
		k.plan.Terraform = &plan.Terraform{Phase: plan.Failed, Error: why, Shards: k.plan.Terraform.Shards}
	}
}

// show copies a plan for somebody who may drop parts of it. Its lists are shared with others.
func (k *kept) show() plan.Plan { return k.plan }

func (p *Plans) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Get returns one plan. With wait it waits for as long while the plan is being made, its Terraform layer included.
func (p *Plans) Get(ctx context.Context, id string, wait time.Duration) (plan.Plan, error) {
	over := time.NewTimer(wait)
	defer over.Stop()
	base := p.o.Loop.InForce()
	p.settle(base, func(k *kept) bool { return k.plan.ID == id && k.plan.Base != base })
	for {
		shown, changed, err := p.look(id)
		if err != nil || !unfinished(shown) {
			return shown, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return shown, nil
		case <-over.C:
			return shown, nil
		}
	}
}

func unfinished(p plan.Plan) bool {
	return p.Phase == plan.Making || p.Terraform != nil && p.Terraform.Phase == plan.Making
}

func (p *Plans) look(id string) (plan.Plan, <-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.plans[id]
	if k == nil || k.expired(p.o.Now()) {
		return plan.Plan{}, nil, ErrUnknownPlan
	}
	return k.show(), k.changed, nil
}

// List returns the plans, the newest first, without what is long in them.
func (p *Plans) List() []plan.Plan {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweep()
	list := []plan.Plan{}
	for _, k := range slices.SortedFunc(maps.Values(p.plans), func(a, b *kept) int { return b.number - a.number }) {
		short := k.show()
		short.Pools, short.Caches, short.Guests, short.Terraform = []plan.Pool{}, []plan.Cache{}, []plan.Guest{}, nil
		list = append(list, short)
	}
	return list
}

// Hold registers the plan of a revision that must not come into force before somebody approves it, and returns its id. The
// same digest is the same plan, and another takes the place of the one before. It is the reconciler's Held: it never waits.
func (p *Plans) Hold(r reconcile.Revision, pv *reconcile.Preview) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, k := range p.plans {
		if k.key == heldKey && k.plan.Phase == plan.Ready && k.plan.Digest == pv.Plan.Digest {
			k.held, k.plan.Expires = true, time.Time{}
			return id
		}
	}
	p.sweep()
	if !p.makeRoom(heldKey) {
		p.remove(p.oldest(func(*kept) bool { return true }))
	}
	k := p.add(lease.Caller{Name: "greenroom", Role: lease.System}, heldKey, r.Name)
	k.revision, k.held = &r, true
	p.publish(k, pv)
	p.nudge()
	return k.plan.ID
}

const heldKey = "held"

// Moved says that another revision is in force: every plan is made again. It is the reconciler's Adopted: it never waits.
func (p *Plans) Moved() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moved = true
	for _, k := range p.plans {
		p.release(k)
		if k.approval == nil || k.plan.Phase != plan.Ready { // else it depends on what is in force now
			p.again(k)
		}
	}
	p.nudge()
}

// again has a plan made anew, with the same id, unless it is failed or replaced.
func (p *Plans) again(k *kept) {
	switch {
	case k.plan.Phase != plan.Ready && k.plan.Phase != plan.Making:
		return
	case k.todo == firstLayer: // not begun
		return
	}
	k.stop("")
	old := k.plan
	k.plan = blank(plan.Plan{ID: old.ID, Ref: old.Ref, By: old.By, Expires: old.Expires})
	k.todo, k.at = firstLayer, p.o.Now().Add(remakeAfter)
	k.touch()
}

// settle decides about plans whose base has moved. What was approved and has come into force is over and done with: it stays
// as it is, so that who asks later, or approves once more, finds what was approved. The others are made again.
func (p *Plans) settle(base string, which func(*kept) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.plans {
		switch {
		case k.settled || k.plan.Phase != plan.Ready || !which(k):
		case k.approval != nil && k.plan.Head == base:
			k.stop("the revision has come into force meanwhile")
			p.release(k)
			k.settled, k.key, k.request.Archive = true, "", nil
			k.touch()
		default:
			p.again(k)
			p.nudge()
		}
	}
}

// Approve lets the revision of a plan come into force though it is held. The digest is that of what was looked at: a plan
// that says something else by now is not approved. Once more is the same as once.
func (p *Plans) Approve(by lease.Caller, id, digest string) (plan.Plan, error) {
	if by.Role != lease.Admin {
		return plan.Plan{}, ErrNotAdmin
	}
	base := p.o.Loop.InForce()
	approval := &plan.Approval{By: by.Name, At: p.o.Now()}
	seen, err := p.approve(id, digest, base, approval)
	if err != nil || seen.Approved != nil {
		return seen, err
	}
	if err := p.o.Loop.Approve(by.Name, approval.Digest); err != nil {
		p.approved(id, approval, false)
		return plan.Plan{}, fmt.Errorf("approving plan %s: %w", id, err)
	}
	p.o.Log.Info("approved a plan", "plan", id, "by", by.Name, "revision", seen.Head)
	p.approved(id, approval, true)
	seen.Approved = approval
	return seen, nil
}

// approve tells whether a plan may be approved, and notes that it is about to be: else its own coming into force could have
// it made again before the approval is written down.
func (p *Plans) approve(id, digest, base string, approval *plan.Approval) (plan.Plan, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.plans[id]
	switch {
	case k == nil || k.expired(p.o.Now()):
		return plan.Plan{}, ErrUnknownPlan
	case k.plan.Phase == plan.Making && k.made:
		return plan.Plan{}, ErrStale
	case k.plan.Phase == plan.Replaced:
		return plan.Plan{}, fmt.Errorf("%w: plan %s has replaced it", ErrNotReady, k.plan.ReplacedBy)
	case k.plan.Phase != plan.Ready:
		return plan.Plan{}, fmt.Errorf("%w: it is %s", ErrNotReady, k.plan.Phase)
	case k.plan.Approved != nil && (k.settled || k.plan.Base == base || k.plan.Head == base):
		return k.show(), nil
	case k.plan.Base != base, k.plan.Digest != digest:
		return plan.Plan{}, ErrStale
	}
	approval.Digest, k.approval = k.plan.Digest, approval
	return k.show(), nil
}

// approved writes down how an approval ended.
func (p *Plans) approved(id string, approval *plan.Approval, given bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.plans[id]
	switch {
	case k == nil:
	case given && k.plan.Digest == approval.Digest:
		k.approval, k.plan.Approved = approval, approval
		k.touch()
	case !given && k.approval == approval:
		k.approval = k.plan.Approved
	}
}

// Run makes plans until ctx ends, two at once of each layer: what takes Terraform long keeps nobody waiting.
func (p *Plans) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	for {
		p.settleApproved()
		timer := time.NewTimer(p.start(ctx, &work))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-p.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// settleApproved looks at the plans that Moved has left alone.
func (p *Plans) settleApproved() {
	p.mu.Lock()
	moved := p.moved
	p.moved = false
	p.mu.Unlock()
	if moved {
		p.settle(p.o.Loop.InForce(), func(k *kept) bool { return k.approval != nil })
	}
}

// start begins what is due and has room, and returns the time to the next look.
func (p *Plans) start(ctx context.Context, work *sync.WaitGroup) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweep()
	now, next := p.o.Now(), p.o.Keep
	for _, k := range p.waiting() {
		switch {
		case k.at.After(now):
			next = min(next, k.at.Sub(now))
		case k.cancel == nil && p.busy[k.todo] < plansAtOnce:
			p.begin(ctx, work, k)
		}
	}
	for _, k := range p.plans {
		if !k.held {
			next = min(next, k.plan.Expires.Sub(now))
		}
	}
	return next
}

// waiting lists what is to be made: at first what was never made, because somebody waits for it; of that, what admins want, and then
// one of each caller in turn, so that who asks for much delays nobody but himself.
func (p *Plans) waiting() []*kept {
	var list []*kept
	for _, k := range p.plans {
		if k.todo != noLayer {
			list = append(list, k)
		}
	}
	slices.SortFunc(list, func(a, b *kept) int { return cmp.Or(a.at.Compare(b.at), a.number-b.number) })
	rank, served := map[*kept]int{}, map[lease.Caller]int{}
	for _, k := range p.plans {
		if k.cancel != nil {
			served[k.by]++
		}
	}
	for _, k := range list {
		switch {
		case k.made:
			rank[k] = len(p.plans) + 1
		case k.by.Role == lease.User:
			served[k.by]++
			rank[k] = served[k.by]
		}
	}
	slices.SortStableFunc(list, func(a, b *kept) int { return rank[a] - rank[b] })
	return list
}

// making is one layer of one plan on its way, with what it needs of the plan.
type making struct {
	plan     *kept
	id       string
	by       lease.Caller
	request  PlanRequest
	revision *reconcile.Revision
	preview  *reconcile.Preview
}

func (p *Plans) begin(ctx context.Context, work *sync.WaitGroup, k *kept) {
	ctx, k.cancel = context.WithCancel(ctx)
	m := making{plan: k, id: k.plan.ID, by: k.by, request: k.request, revision: k.revision, preview: k.preview}
	which := k.todo
	k.todo = noLayer
	p.busy[which]++
	work.Go(func() {
		if which == firstLayer {
			p.makeFirst(ctx, m)
		} else {
			p.makeSecond(ctx, m)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		k.cancel()
		k.cancel = nil
		p.busy[which]--
		p.nudge()
	})
}

// finish takes in what a making has brought, unless it was called off, which is done under the same lock.
func (p *Plans) finish(ctx context.Context, m making, take func(k *kept)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ctx.Err() == nil {
		take(m.plan)
		m.plan.touch()
	}
}

func (p *Plans) makeFirst(ctx context.Context, m making) {
	var r reconcile.Revision
	var pv *reconcile.Preview
	err := p.within(ctx, firstWithin, m, func(ctx context.Context) (err error) {
		if r = p.read(ctx, m); r.Fault != nil {
			return fmt.Errorf("%s: %w", r.Fault.Reason, r.Fault)
		}
		if len(m.request.Archive) > 0 {
			if n := wanted(r.Fleet); n > maxWanted {
				return fmt.Errorf("the specs keep %d guests ready (warm and spare, of all caches and pools); a preview of uploaded specs forecasts at most %d", n, maxWanted)
			}
		}
		pv, err = p.o.Loop.Preview(ctx, r)
		return err
	})
	p.finish(ctx, m, func(k *kept) {
		if err != nil {
			p.fail(k, r.Name, err.Error())
			return
		}
		p.publish(k, pv)
	})
}

// wanted is how many guests a fleet keeps ready.
func wanted(f *specs.Fleet) (n int) {
	for _, c := range f.AllCaches() {
		n += c.Warm
	}
	return n
}

// read reads a revision anew. What a ref names may have moved since, and then its new head is what is previewed.
func (p *Plans) read(ctx context.Context, m making) reconcile.Revision {
	switch {
	case m.revision != nil:
		return *m.revision
	case m.request.Ref != "":
		r := p.o.Source.Read(ctx, m.request.Ref)
		r.Detached = false // a branch need not descend from what is in force before it is merged
		return r
	case len(m.request.Archive) == 0:
		return faulty("ArchiveDropped", errNoArchive)
	case m.by.Role == lease.Admin:
		return p.o.Source.Archive(ctx, m.request.Archive, nil)
	}
	return p.o.Source.Archive(ctx, m.request.Archive, append([]string{}, p.o.Absolute()...)) // never nil, which allows all
}

func (p *Plans) makeSecond(ctx context.Context, m making) {
	dir := filepath.Join(p.o.Dir, m.id)
	err := p.within(ctx, secondWithin, m, func(ctx context.Context) error {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		return p.terraform(m.preview, ctx, dir, func(s plan.Shard) {
			p.finish(ctx, m, func(k *kept) { k.plan.Terraform = withShard(k.plan.Terraform, s) })
		})
	})
	if err := os.RemoveAll(dir); err != nil {
		p.o.Log.Warn("a Terraform preview is left behind until the next start", "plan", m.id, "err", err)
	}
	p.finish(ctx, m, func(k *kept) {
		t := &plan.Terraform{Phase: plan.Ready, Shards: k.plan.Terraform.Shards}
		if err != nil {
			t.Phase, t.Error = plan.Failed, err.Error()
		}
		k.plan.Terraform, k.preview = t, nil
	})
}

// withShard leaves t as it is, because somebody may be reading it.
func withShard(t *plan.Terraform, s plan.Shard) *plan.Terraform {
	shards := append(slices.Clone(t.Shards), s)
	slices.SortFunc(shards, func(a, b plan.Shard) int { return strings.Compare(a.Shard, b.Shard) })
	return &plan.Terraform{Phase: t.Phase, Shards: shards}
}

// within runs one making within its time. A panic in it is logged and becomes its error: a revision must not be able to stop
// the server.
func (p *Plans) within(ctx context.Context, limit time.Duration, m making, do func(context.Context) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer func() {
		if fault := recover(); fault != nil {
			p.o.Log.Error("making a plan panicked", "plan", m.id, "err", fmt.Sprintf("%v\n%s", fault, debug.Stack()))
			err = errors.New("a fault in Greenroom itself; its log tells more")
		}
	}()
	if err = do(ctx); err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("given up after %s: %w", limit, err)
	}
	return err
}

// publish shows the first layer at once, and has the second made of plans that an admin asked for or that are held.
func (p *Plans) publish(k *kept, pv *reconcile.Preview) {
	old := k.plan
	k.plan = pv.Plan
	k.plan.ID, k.plan.Ref, k.plan.By, k.plan.Expires = old.ID, old.Ref, old.By, old.Expires
	k.plan.Phase, k.plan.Made, k.made = plan.Ready, p.o.Now(), true
	if k.approval != nil && k.approval.Digest == k.plan.Digest {
		k.plan.Approved = k.approval
	} else {
		k.approval = nil
	}
	if k.by.Role == lease.Admin || k.held {
		k.plan.Terraform = &plan.Terraform{Phase: plan.Making, Shards: []plan.Shard{}}
		k.preview, k.todo, k.at = pv, secondLayer, k.plan.Made
	}
	p.dropLong(k)
}

func (p *Plans) fail(k *kept, head, why string) {
	k.stop("")
	if len(why) > maxError {
		why = strings.ToValidUTF8(why[:maxError], "") + "\n… and more"
	}
	k.plan.Phase, k.plan.Error, k.plan.Head, k.plan.Made = plan.Failed, why, head, p.o.Now()
	k.request.Archive, k.approval = nil, nil
	k.touch()
}
