package lease_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/redis/go-redis/v9"

	"greenroom/lease"
	"greenroom/lease/leasetest"
)

// holdBack keeps the next command from the store, which closes came, until it may go on.
func holdBack(rdb redis.UniversalClient) (came chan struct{}, goOn func()) {
	var armed atomic.Bool
	armed.Store(true)
	came, gate := make(chan struct{}), make(chan struct{})
	rdb.AddHook(hook{process: func(next redis.ProcessHook) redis.ProcessHook {
		return func(ctx context.Context, cmd redis.Cmder) error {
			if armed.CompareAndSwap(true, false) {
				close(came)
				<-gate
			}
			return next(ctx, cmd)
		}
	}})
	return came, func() { close(gate) }
}

// together has calls on cache ci carried out as one batch, in this order.
func (b *bench) together(calls ...func()) {
	b.t.Helper()
	var all sync.WaitGroup
	came, goOn := holdBack(b.rdb)
	all.Go(func() { b.must(b.SweepCache(b.t.Context(), "ci")) })
	<-came
	for i, call := range calls {
		all.Go(call)
		for late := time.Now().Add(20 * time.Second); b.Waiting("ci") <= i; runtime.Gosched() {
			if time.Now().After(late) {
				b.t.Fatalf("call %d is not in line", i+1)
			}
		}
	}
	goOn()
	all.Wait()
}

func (b *bench) release(l lease.Lease) lease.Lease {
	b.t.Helper()
	l, err := b.Release(b.t.Context(), alice, l.ID, lease.Release{Outcome: "pass"})
	b.must(err)
	return l
}

// The mirror that comes with a batch shows the shelf as the batch leaves it, whatever of that is written only at its end.
func TestABatchMirrorsTheShelfThatItLeaves(t *testing.T) {
	for _, order := range []string{"release, acquire", "acquire, release", "acquire, acquire", "release, acquire, release, acquire", "release, release, acquire"} {
		t.Run(order, func(t *testing.T) {
			leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
				b := open(t, rdb, ci())
				b.shelf("ci", 4)
				held := []lease.Lease{b.acquire(lease.Request{}), b.acquire(lease.Request{})} // each alone: there is no mirror
				var calls []func()
				var taken []*lease.Lease
				for what := range strings.SplitSeq(order, ", ") {
					if what == "acquire" {
						l := &lease.Lease{}
						taken = append(taken, l)
						calls = append(calls, func() { *l = b.acquire(lease.Request{}) })
						continue
					}
					l := held[0]
					held = held[1:]
					calls = append(calls, func() { b.release(l) })
				}
				b.together(calls...)
				for _, l := range taken {
					held = append(held, *l)
				}
				for i := 0; len(held) < 4; i++ {
					held = append(held, b.acquire(lease.Request{}))
					if n := b.Turned("ci"); n != i+1 {
						t.Errorf("the mirror has decided %d batches, want %d", n, i+1)
					}
				}
				of := map[string]string{}
				for _, l := range held {
					if of[l.Guest] != "" {
						t.Errorf("%s is leased to %s and to %s", l.Guest, of[l.Guest], l.ID)
					}
					of[l.Guest] = l.ID
				}
			})
		})
	}
}

// Who finds no match in a batch is in the next one, and so is everybody where nothing comes back.
func TestWhoseGuestComesBackGoesFirst(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := open(t, rdb, ci())
		b.MirrorFrom(1)
		b.shelf("ci", 4)
		b.acquire(lease.Request{}) // makes the mirror
		first, turned := b.acquire(lease.Request{}), b.Turned("ci")
		var second, third, fourth lease.Lease
		b.together(func() { second = b.acquire(lease.Request{}) }, func() { third = b.acquire(lease.Request{}) }, func() { b.release(first) })
		if n := b.Turned("ci") - turned; n != 2 || second.Guest != first.Guest || third.Guest == first.Guest {
			t.Errorf("of %s came %s, and %s besides, in %d batches", first.Guest, second.Guest, third.Guest, n)
		}
		events, err := b.Events(t.Context(), first.Guest, 3)
		b.must(err)
		for i, l := range []lease.Lease{second, first, first} {
			if want := []lease.State{lease.Leased, lease.Shelved, lease.Leased}[i]; events[i].Lease != l.ID || events[i].To != want {
				t.Errorf("event %d is %+v, want the way of %s to %s", i, events[i], l.ID, want)
			}
		}
		b.together(func() { b.release(third) }, func() { b.release(second) }, func() { fourth = b.acquire(lease.Request{}) })
		if n := b.Turned("ci") - turned; n != 4 || fourth.Guest != third.Guest || b.state(second.Guest) != lease.Shelved {
			t.Errorf("of %s came %s, and %s is %s, in %d batches", third.Guest, fourth.Guest, second.Guest, b.state(second.Guest), n)
		}
		fifth := b.acquire(lease.Request{})
		b.together(func() { b.release(fourth) }, func() { b.release(fifth) })
		if n := b.Turned("ci") - turned; n != 6 {
			t.Errorf("one that begins and two that end made %d batches", n-4)
		}
	})
}

// places are when a sweep looks at the leases, by guest.
func (b *bench) places() map[string]time.Time {
	all, err := b.rdb.ZRangeWithScores(b.t.Context(), b.key("in:local:leased"), 0, -1).Result()
	b.must(err)
	of := map[string]time.Time{}
	for _, z := range all {
		of[z.Member.(string)] = time.UnixMilli(int64(z.Score)).UTC()
	}
	return of
}

// A guest that goes to its next holder is left in its place among the deadlines, unless it comes due earlier now.
func TestALeaseEndsAtItsOwnDeadline(t *testing.T) {
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, ttl := range []time.Duration{20 * time.Minute, 10 * time.Minute, time.Minute} {
			t.Run(ttl.String(), func(t *testing.T) {
				b := open(t, rdb, ci())
				b.MirrorFrom(1)
				b.must(b.Sweep(t.Context()))
				b.shelf("ci", 3)
				b.acquire(lease.Request{}) // makes the mirror
				first, turned := b.acquire(lease.Request{TTL: 10 * time.Minute}), b.Turned("ci")
				var second lease.Lease
				b.together(func() { second = b.acquire(lease.Request{TTL: ttl}) }, func() { b.release(first) })
				if second.Guest != first.Guest || b.Turned("ci") != turned+1 {
					t.Fatalf("%s and then %s, in %d batches", first.Guest, second.Guest, b.Turned("ci")-turned)
				}
				want := first.Deadline
				if second.Deadline.Before(want) {
					want = second.Deadline
				}
				if got := b.places()[second.Guest]; !got.Equal(want) {
					t.Errorf("it is looked at at %v, want %v", got, want)
				}
				b.past("in:local:leased", second.Guest)
				b.must(b.Sweep(t.Context()))
				if diff := cmp.Diff(second, b.look(second.ID)); diff != "" || !b.places()[second.Guest].Equal(second.Deadline) {
					t.Errorf("after a look too early it is looked at at %v, and the lease is (-before +after):\n%s", b.places()[second.Guest], diff)
				}
				b.past("in:local:leased", second.Guest)
				b.pause(second)
				if l := b.look(second.ID); l.Deadline.Before(second.Deadline) || b.places()[second.Guest].After(l.Deadline) {
					t.Errorf("after a gap it ends at %v, before at %v, and is looked at at %v", l.Deadline, second.Deadline, b.places()[second.Guest])
				}
				b.runsOut(second)
				b.must(b.Sweep(t.Context()))
				if l := b.look(second.ID); l.How != lease.Expired || b.state(l.Guest) != lease.Shelved {
					t.Errorf("want it expired, got %+v", l)
				}
			})
		}
	})
}

// A mirror whose version is true and that is wrong nevertheless writes nothing: the scripts decide, as if there were none.
func TestAWrongMirrorWritesNothing(t *testing.T) {
	take := func(b *bench, _ lease.Lease) (lease.Lease, error) {
		return b.Acquire(b.t.Context(), alice, lease.Request{Cache: "ci", Key: "3"})
	}
	give := func(b *bench, l lease.Lease) (lease.Lease, error) {
		return b.Release(b.t.Context(), alice, l.ID, lease.Release{Outcome: "pass"})
	}
	tests := []struct {
		name   string
		tamper func(b *bench, l lease.Lease) // with what the mirror knows
		call   func(b *bench, l lease.Lease) (lease.Lease, error)
	}{
		{"the guest is off the shelf", (*bench).unshelve, take},
		{"the id is taken", func(b *bench, _ lease.Lease) { b.release(b.acquire(lease.Request{Key: "3"})) }, take},
		{"the lease is over", func(b *bench, l lease.Lease) {
			b.rewrite(l, "active\n\n\n\n", fmt.Sprintf("ended\n%d\nexpired\n\n", l.Granted.UnixMilli()))
		}, give},
		{"the lease has another guest", func(b *bench, l lease.Lease) { b.rewrite(l, "\n"+l.Guest+"\n", "\nlocal-1\n") }, give},
		{"the lease is gone", func(b *bench, l lease.Lease) { b.must(b.rdb.Del(b.t.Context(), b.key("lease:"+l.ID)).Err()) }, give},
	}
	leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				play := func(turns int) []any {
					b := open(t, rdb, ci())
					b.MirrorFrom(turns)
					b.shelf("ci", 4)
					b.acquire(lease.Request{Key: "1"}) // makes the mirror
					l := b.acquire(lease.Request{Key: "2"})
					tt.tamper(b, l)
					if known := b.Turned("ci") > 0; known != (turns == 1) {
						t.Errorf("there is a mirror: %v", known)
					}
					b.MirrorFrom(1000) // no other mirror is made
					l, err := tt.call(b, l)
					if n := b.Turned("ci"); n > 0 {
						t.Errorf("the mirror goes on after %d batches", n)
					}
					return append([]any{l, fmt.Sprint(err)}, b.record()...)
				}
				if diff := cmp.Diff(play(1000), play(1), cmpopts.IgnoreTypes(time.Time{})); diff != "" {
					t.Errorf("by the scripts and with a wrong mirror (-scripts +mirror):\n%s", diff)
				}
			})
		}
	})
}

// unshelve has the guest on top of the shelf tainted behind the scripts' back.
func (b *bench) unshelve(lease.Lease) {
	ctx := b.t.Context()
	top, err := b.rdb.ZPopMax(ctx, b.key("in:local:shelved")).Result()
	b.must(err)
	b.must(b.rdb.ZAdd(ctx, b.key("in:local:tainted"), top...).Err())
	b.must(b.rdb.HSet(ctx, b.key("guest:"+top[0].Member.(string)), "state", "tainted\n\n0\n").Err())
}

// rewrite changes the record of a lease.
func (b *bench) rewrite(l lease.Lease, from, to string) {
	b.t.Helper()
	ctx := b.t.Context()
	text, err := b.rdb.Get(ctx, b.key("lease:"+l.ID)).Result()
	b.must(err)
	if !strings.Contains(text, from) {
		b.t.Fatalf("%q has no %q", text, from)
	}
	b.must(b.rdb.Set(ctx, b.key("lease:"+l.ID), strings.Replace(text, from, to, 1), 0).Err())
}

// record is what there is in cache ci: the guests with their histories, the leases that go on, and the counts.
func (b *bench) record() []any {
	b.t.Helper()
	ctx := b.t.Context()
	guests, err := b.CacheGuests(ctx, "ci")
	b.must(err)
	out := []any{guests}
	for _, g := range guests {
		events, err := b.Events(ctx, g.Name, 100)
		b.must(err)
		out = append(out, events)
	}
	leases, err := b.Leases(ctx, "ci", 100)
	b.must(err)
	slices.SortFunc(leases, func(x, y lease.Lease) int { return strings.Compare(x.ID, y.ID) })
	stock, err := b.Stock(ctx, "ci")
	b.must(err)
	return append(out, leases, stock)
}

// Where nobody knows whether turns were written, their mirror is used no more, and what is asked for again is there once.
func TestAMirrorWhoseAnswerIsLostIsUsedNoMore(t *testing.T) {
	for _, carriedOut := range []bool{true, false} {
		t.Run(fmt.Sprint("carried out: ", carriedOut), func(t *testing.T) {
			leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
				b := open(t, rdb, ci())
				b.MirrorFrom(1)
				b.shelf("ci", 3)
				b.acquire(lease.Request{})
				b.MirrorFrom(1000)
				l := b.acquire(lease.Request{})
				lost := func(what string, call func() error) {
					t.Helper()
					if b.Turned("ci") == 0 {
						t.Fatalf("no mirror for the %s", what)
					}
					cut(rdb, carriedOut, b.SingleTurns())
					if err := call(); !errors.Is(err, lease.ErrUnavailable) {
						t.Fatalf("%s: want ErrUnavailable, got %v", what, err)
					}
					if n := b.Turned("ci"); n > 0 {
						t.Errorf("after a lost %s the mirror goes on after %d batches", what, n)
					}
				}
				lost("release", func() error { return second(b.Release(t.Context(), alice, l.ID, lease.Release{})) })
				if again := b.release(l); again.Phase != lease.Ended || again.Replayed != carriedOut || b.state(l.Guest) != lease.Shelved {
					t.Errorf("released again: %+v", again)
				}
				b.MirrorFrom(1)
				b.release(b.acquire(lease.Request{}))
				b.MirrorFrom(1000)
				r := lease.Request{Cache: "ci", Key: "lost"}
				lost("acquire", func() error { return second(b.Acquire(t.Context(), alice, r)) })
				if again := b.acquire(r); again.Phase != lease.Active || again.Replayed != carriedOut {
					t.Errorf("acquired again: %+v", again)
				}
				stock, err := b.Stock(t.Context(), "ci")
				b.must(err)
				if stock.Leases != 2 || stock.In(lease.Leased) != 2 || stock.In(lease.Shelved) != 1 {
					t.Errorf("%d leases, guests %v", stock.Leases, stock.Counts)
				}
			})
		})
	}
}

// party is a cache that many use at once, and what they believe.
type party struct {
	*bench
	users []*user
	keeps sync.Mutex // who replaces guests

	mu     sync.Mutex        // of what follows
	held   map[string]string // guest -> its lease
	grants int64
	ends   int64
}

// user is one of the many.
type user struct {
	*party
	name string
	rng  *rand.Rand
	mine []lease.Lease
	used []lease.Request // that were granted
	sent int
}

// Whatever many callers do at once, each guest is one's and the record is in order.
func TestManyAtOnceBreakNoPromise(t *testing.T) {
	for name, from := range map[string]int{"mirrored always": 1, "mirrored together": 0} {
		t.Run(name, func(t *testing.T) {
			leasetest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
				spec := ci()
				spec.Size, spec.Max, spec.Lease.TTL = 12, 16, time.Hour
				p := &party{bench: open(t, rdb, spec), held: map[string]string{}}
				if from > 0 {
					p.MirrorFrom(from)
				}
				p.fleet.Pool("local").Max = spec.Max
				p.must(p.Sweep(t.Context()))
				p.shelf("ci", spec.Max)
				for n := range 32 {
					p.users = append(p.users, &user{party: p, name: fmt.Sprint("user ", n), rng: rand.New(rand.NewPCG(uint64(n), 1))})
				}
				written := p.writtenTurns()
				for range 3 {
					p.all(func(u *user) error {
						for range 60 {
							if err := u.act(); err != nil {
								return err
							}
						}
						return u.waitNoMore()
					})
					p.check()
					p.comeHome(spec.Size)
					p.check()
				}
				if n := written.Load(); n < 20 {
					t.Errorf("a mirror has decided %d batches only", n)
				}
			})
		})
	}
}

// writtenTurns counts the batches that a mirror has decided and that are written.
func (p *party) writtenTurns() *atomic.Int64 {
	n := &atomic.Int64{}
	p.rdb.AddHook(hook{process: func(next redis.ProcessHook) redis.ProcessHook {
		return func(ctx context.Context, cmd redis.Cmder) error {
			err := next(ctx, cmd)
			if script, ok := cmd.(*redis.Cmd); ok && err == nil && (slices.Contains(cmd.Args(), any("turns")) || slices.Contains(cmd.Args(), any(p.SingleTurns()))) {
				if results, _ := script.Slice(); fmt.Sprint(results[0]) != "[stale]" {
					n.Add(1)
				}
			}
			return err
		}
	}})
	return n
}

// all has every user do something, at once.
func (p *party) all(do func(*user) error) {
	p.t.Helper()
	var all sync.WaitGroup
	for _, u := range p.users {
		all.Go(func() {
			if err := do(u); err != nil {
				p.t.Errorf("%s: %v", u.name, err)
			}
		})
	}
	if all.Wait(); p.t.Failed() {
		p.t.FailNow()
	}
}

// act does one thing: a turn most often, and now and then what makes a mirror void.
func (u *user) act() error {
	ctx := u.t.Context()
	switch n := u.rng.IntN(1000); {
	case n < 470:
		return u.take()
	case n < 940:
		return u.give(lease.Release{Outcome: "pass"})
	case n < 965:
		return u.renew()
	case n < 980:
		return u.replay()
	case n < 984:
		return u.give(lease.Release{Discard: true})
	case n < 988:
		return u.runOut()
	case n < 992:
		return u.taint()
	case n < 994:
		return errors.Join(u.Toggle(ctx, admin, "ci", lease.Override{By: "root"}), u.Untoggle(ctx, admin, "ci"))
	case n < 996:
		return u.Adopt(ctx, u.fleet)
	case n < 998:
		return u.Sweep(ctx)
	}
	return u.keep()
}

func (u *user) take() error {
	u.sent++
	r := lease.Request{Cache: "ci", Key: fmt.Sprint(u.name, "/", u.sent)}
	if u.rng.IntN(200) == 0 {
		r.Wait = lease.Forever
	}
	l, err := u.Acquire(u.t.Context(), alice, r)
	switch {
	case errors.Is(err, lease.ErrNoneReady):
		return nil
	case err != nil:
		return err
	case l.Phase == lease.Active:
		u.used = append(u.used, r)
		err = u.granted(l)
	}
	u.mine = append(u.mine, l)
	return err
}

// granted notes whose a guest is, which must be nobody's.
func (p *party) granted(l lease.Lease) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.grants++
	if other := p.held[l.Guest]; other != "" {
		return fmt.Errorf("%s is leased to %s and to %s", l.Guest, other, l.ID)
	}
	p.held[l.Guest] = l.ID
	return nil
}

// some takes one lease out of the user's, which may have waited and been granted by now; false: there is none.
func (u *user) some() (lease.Lease, bool, error) {
	if len(u.mine) == 0 {
		return lease.Lease{}, false, nil
	}
	i := u.rng.IntN(len(u.mine))
	l := u.mine[i]
	u.mine = slices.Delete(u.mine, i, i+1)
	if l.Phase == lease.Active {
		return l, true, nil
	}
	l, err := u.Get(u.t.Context(), alice, l.ID)
	if err == nil && l.Phase == lease.Active {
		err = u.granted(l)
	}
	return l, true, err
}

func (u *user) give(how lease.Release) error {
	l, ok, err := u.some()
	if !ok || err != nil {
		return err
	}
	return u.end(l, how)
}

// end ends a lease, which may have run out.
func (p *party) end(l lease.Lease, how lease.Release) error {
	p.letGo(l)
	ended, err := p.Release(p.t.Context(), alice, l.ID, how)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ends++
	if l.Phase == lease.Queued && !ended.Granted.IsZero() { // just now
		p.grants++
		l.Guest = ended.Guest
	}
	if ended.Phase != lease.Ended || ended.Guest != l.Guest {
		return fmt.Errorf("%s of %s ended as %+v", l.ID, l.Guest, ended)
	}
	return nil
}

// letGo notes that a guest may be another's from now on.
func (p *party) letGo(l lease.Lease) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held[l.Guest] == l.ID {
		delete(p.held, l.Guest)
	}
}

func (u *user) renew() error {
	l, ok, err := u.some()
	if !ok || err != nil {
		return err
	}
	u.mine = append(u.mine, l)
	now, err := u.Renew(u.t.Context(), alice, l.ID)
	switch {
	case errors.Is(err, lease.ErrQueued) && l.Phase == lease.Queued:
		return nil
	case err == nil && l.Phase == lease.Active && now.Guest != l.Guest:
		return fmt.Errorf("%s was on %s and is on %s", l.ID, l.Guest, now.Guest)
	}
	return err
}

// runOut has a lease expire while it is given back.
func (u *user) runOut() error {
	l, ok, err := u.some()
	switch {
	case !ok || err != nil:
		return err
	case l.Phase == lease.Active:
		u.letGo(l)
		u.runsOut(l)
	}
	return u.end(l, lease.Release{})
}

// replay sends a request again that was granted before.
func (u *user) replay() error {
	if len(u.used) == 0 {
		return nil
	}
	l, err := u.Acquire(u.t.Context(), alice, u.used[u.rng.IntN(len(u.used))])
	if err == nil && !l.Replayed {
		err = fmt.Errorf("%s was granted again", l.ID)
	}
	return err
}

func (u *user) taint() error {
	guests, err := u.CacheGuests(u.t.Context(), "ci")
	if err != nil {
		return err
	}
	g := guests[u.rng.IntN(len(guests))]
	_, err = u.Taint(u.t.Context(), admin, g, lease.Taint{Reason: "dead", Condemn: u.rng.IntN(2) == 0, From: []lease.State{lease.Shelved}})
	if errors.Is(err, lease.ErrLeased) || errors.Is(err, lease.ErrConflict) {
		return nil
	}
	return err
}

// keep replaces what is tainted, as one does at a time.
func (u *user) keep() error {
	if !u.keeps.TryLock() {
		return nil
	}
	defer u.keeps.Unlock()
	ctx := u.t.Context()
	guests, err := u.CacheGuests(ctx, "ci")
	for _, g := range guests {
		if g.State != lease.Tainted {
			continue
		}
		if g, err = u.Claim(ctx, g, lease.Replacing, "run", "", 0); err == nil {
			g, err = u.Publish(ctx, g, "run", g.Incarnation+1, lease.Machine{Host: "h", Port: 1})
		}
		if err == nil {
			_, err = u.Booted(ctx, g)
		}
		if err != nil {
			return err
		}
	}
	return err
}

// waitNoMore cancels what waits, unless it was granted.
func (u *user) waitNoMore() error {
	for _, l := range u.mine {
		if l.Phase != lease.Queued {
			continue
		}
		if err := u.end(l, lease.Release{}); err != nil {
			return err
		}
	}
	u.mine = slices.DeleteFunc(u.mine, func(l lease.Lease) bool { return l.Phase == lease.Queued })
	return nil
}

// comeHome gives back at once all that is leased: that fills the shelf to its size, and no further.
func (p *party) comeHome(size int) {
	p.t.Helper()
	ctx := p.t.Context()
	guests, err := p.CacheGuests(ctx, "ci")
	p.must(err)
	shelved, back := 0, 0
	for _, g := range guests {
		switch {
		case g.State == lease.Shelved:
			shelved++
		case g.State == lease.Leased && g.Condemned == "":
			back++
		}
	}
	p.all(func(u *user) error {
		for len(u.mine) > 0 {
			if err := u.give(lease.Release{}); err != nil {
				return err
			}
		}
		return nil
	})
	stock, err := p.Stock(ctx, "ci")
	p.must(err)
	if n := stock.In(lease.Shelved); n != max(shelved, min(shelved+back, size)) { // a new guest may be one too many
		p.t.Errorf("%d guests on a shelf of %d, where %d were and %d came back", n, size, shelved, back)
	}
}

// check compares the record with itself, and with what the users believe, while they do nothing.
func (p *party) check() {
	p.t.Helper()
	ctx := p.t.Context()
	guests, err := p.CacheGuests(ctx, "ci")
	p.must(err)
	held, in := map[string]string{}, map[string][]string{}
	for _, g := range guests {
		in[g.Name] = []string{string(g.State)}
		if g.Lease != "" {
			held[g.Name] = g.Lease
		}
		if g.Condemned != "" && g.State == lease.Shelved {
			p.t.Errorf("%s is shelved although it was condemned", g.Name)
		}
	}
	p.same("the guests of the leases", p.held, held)
	p.same("the indexes of the guests", in, p.indexes())

	active, err := p.Leases(ctx, "ci", 1000)
	p.must(err)
	places := p.places()
	p.same("the guests that have a deadline", slices.Sorted(maps.Keys(held)), slices.Sorted(maps.Keys(places)))
	over, err := p.rdb.LRange(ctx, p.key("over"), 0, -1).Result()
	p.must(err)
	if !slices.IsSortedFunc(over, func(x, y string) int { return strings.Compare(x[:13], y[:13]) }) {
		p.t.Error("the leases that are over are not in the order of their ends")
	}
	leases := map[string]lease.Phase{}
	for _, l := range active {
		leases[l.ID] = lease.Active
		if known := places[l.Guest]; known.After(l.Deadline) {
			p.t.Errorf("%s ends at %v and is looked at at %v", l.ID, l.Deadline, known)
		}
	}
	for _, entry := range over {
		_, id, _ := strings.Cut(entry, " ")
		if leases[id] != "" {
			p.t.Errorf("%s is over and %s", id, leases[id])
		}
		leases[id] = lease.Ended
	}
	p.same("the leases", leases, p.phases())

	stock, err := p.Stock(ctx, "ci")
	p.must(err)
	var ends int64
	for name, n := range stock.Stats {
		if strings.HasPrefix(name, "ended:") {
			ends += n
		}
	}
	p.same("grants, ends, leases that go on, guests, requests that wait",
		[]int64{p.grants, p.ends, int64(len(p.held)), int64(len(guests)), 0},
		[]int64{stock.Stats["hits"] + stock.Stats["misses"], ends, int64(stock.Leases), int64(stock.In(lease.States...)), int64(stock.Queue)})
	if p.t.Failed() {
		p.t.FailNow()
	}
}

func (p *party) same(what string, want, got any) {
	p.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		p.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// indexes are the states that each guest is in by the indexes.
func (p *party) indexes() map[string][]string {
	in, prefix := map[string][]string{}, p.key("in:local:")
	for _, key := range p.keys(prefix) {
		names, err := p.rdb.ZRange(p.t.Context(), key, 0, -1).Result()
		p.must(err)
		for _, name := range names {
			in[name] = append(in[name], strings.TrimPrefix(key, prefix))
		}
	}
	return in
}

// phases are those of all leases on record.
func (p *party) phases() map[string]lease.Phase {
	of, prefix := map[string]lease.Phase{}, p.key("lease:")
	keys := p.keys(prefix)
	if len(keys) == 0 {
		return of
	}
	records, err := p.rdb.MGet(p.t.Context(), keys...).Result()
	p.must(err)
	for i, record := range records {
		phase, _, _ := strings.Cut(record.(string), "\n")
		of[strings.TrimPrefix(keys[i], prefix)] = lease.Phase(phase)
	}
	return of
}

func (p *party) keys(prefix string) []string {
	keys, err := p.rdb.Keys(p.t.Context(), prefix+"*").Result()
	p.must(err)
	return keys
}
