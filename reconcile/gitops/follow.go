package gitops

import (
	"context"
	"time"

	"greenroom/reconcile"
	"greenroom/reconcile/condition"
)

const (
	firstPause   = 2 * time.Second
	longestPause = 5 * time.Minute
	debounce     = 50 * time.Millisecond
)

// follower looks at a source again and again.
type follower struct {
	look   func(context.Context) (r reconcile.Revision, news bool)
	offer  func(reconcile.Revision)
	every  time.Duration
	poke   <-chan struct{}
	hint   <-chan struct{} // that something may have changed; ends no pause
	jitter func() float64  // 0 to 1

	last     reconcile.Revision // offered
	offered  bool
	failures int
}

func (f *follower) run(ctx context.Context) {
	for {
		r, news := f.look(ctx)
		if ctx.Err() != nil {
			return
		}
		if news && f.differs(r) {
			f.last, f.offered = r, true
			f.offer(r)
		}
		if !f.wait(ctx, f.pause(r)) {
			return
		}
	}
}

// differs tells a revision or fault from the one that was offered last. Of a source that can't be read only the reason counts:
// what is said of it beyond that may differ from one try to the next.
func (f *follower) differs(r reconcile.Revision) bool {
	was, is := f.last.Fault, r.Fault
	switch {
	case !f.offered || (was == nil) != (is == nil):
		return true
	case is == nil:
		return f.last.Name != r.Name || f.last.Detached != r.Detached
	}
	return was.Reason != is.Reason || was.Revision != is.Revision || is.Reason == condition.SpecInvalid && was.Message != is.Message
}

// pause is how long to wait for the next look: longer and longer while the source can't be read.
func (f *follower) pause(r reconcile.Revision) time.Duration {
	if r.Fault == nil || f.cheap(r.Fault.Reason) {
		f.failures = 0
		return f.every
	}
	pause := longestPause
	if f.failures < 8 {
		pause = min(pause, firstPause<<f.failures)
	}
	f.failures++
	return pause + time.Duration(f.jitter()*float64(pause)/4)
}

// cheap tells that looking again soon costs nobody much.
func (f *follower) cheap(reason string) bool {
	return reason == condition.SpecInvalid || reason == condition.RefMissing || reason == condition.Unreachable && f.hint != nil
}

// wait waits for the next look. False: ctx has ended.
func (f *follower) wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-f.poke:
		f.failures = 0
		return true
	case <-timer.C:
		return true
	case <-f.hint:
	}
	timer.Reset(debounce) // for the events that come with it
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	}
	select {
	case <-f.hint:
	default:
	}
	return true
}
