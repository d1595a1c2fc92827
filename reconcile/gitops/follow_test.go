package gitops

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"greenroom/reconcile"
	"greenroom/reconcile/condition"
	"greenroom/specs"
)

func fleetNamed(name string) reconcile.Revision {
	return reconcile.Revision{Name: name, Fleet: &specs.Fleet{Revision: name}}
}

func faultOf(reason, revision, message string) reconcile.Revision {
	return reconcile.Revision{Name: revision, Fault: &condition.Fault{Reason: reason, Revision: revision, Message: message}}
}

// looks runs a follower over what it is to find, and returns when it looked, in seconds, and what it offered.
func looks(t *testing.T, find []reconcile.Revision, between func(f *follower, poke chan<- struct{})) (at []int, offered []string) {
	t.Helper()
	poke := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	start := time.Now()
	f := &follower{every: 30 * time.Second, poke: poke, jitter: func() float64 { return 0 }}
	f.offer = func(r reconcile.Revision) {
		if r.Fault != nil {
			offered = append(offered, r.Fault.Reason)
		} else {
			offered = append(offered, r.Name)
		}
	}
	f.look = func(context.Context) (reconcile.Revision, bool) {
		at = append(at, int(time.Since(start).Seconds()))
		if len(at) == len(find)+1 {
			cancel()
			return reconcile.Revision{}, false
		}
		if between != nil {
			between(f, poke)
		}
		r := find[len(at)-1]
		return r, r.Name != "same"
	}
	f.run(ctx)
	return at, offered
}

func TestASourceThatFailsIsLookedAtLessAndLess(t *testing.T) {
	away := faultOf(condition.Unreachable, "", "")
	synctest.Test(t, func(t *testing.T) {
		find := []reconcile.Revision{fleetNamed("a")}
		for range 10 {
			find = append(find, away)
		}
		at, offered := looks(t, append(find, fleetNamed("a"), fleetNamed("same")), nil)
		want := []int{0, 30, 32, 36, 44, 60, 92, 156, 284, 540, 840, 1140, 1170, 1200}
		if d := cmp.Diff(want, at); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff([]string{"a", condition.Unreachable, "a"}, offered); d != "" {
			t.Error(d)
		}
	})
}

func TestAPokeEndsThePauseOnceAndStartsItAnew(t *testing.T) {
	away := faultOf(condition.Unreachable, "", "")
	synctest.Test(t, func(t *testing.T) {
		at, _ := looks(t, []reconcile.Revision{away, away, away, away, away}, func(f *follower, poke chan<- struct{}) {
			if f.failures == 2 { // at 2+4 seconds
				for range 3 {
					select {
					case poke <- struct{}{}:
					default:
					}
				}
			}
		})
		if d := cmp.Diff([]int{0, 2, 6, 6, 8, 12}, at); d != "" {
			t.Error(d)
		}
	})
}

func TestAFaultIsOfferedWhenItIsAnotherOne(t *testing.T) {
	detached := fleetNamed("b")
	detached.Detached = true
	for name, c := range map[string]struct {
		find []reconcile.Revision
		want []string
	}{
		"the same revision": {[]reconcile.Revision{fleetNamed("a"), fleetNamed("a")}, []string{"a"}},
		"another revision":  {[]reconcile.Revision{fleetNamed("a"), fleetNamed("b")}, []string{"a", "b"}},
		"the same, detached by now": {
			[]reconcile.Revision{fleetNamed("b"), detached},
			[]string{"b", "b"},
		},
		"a network fault in other words": {
			[]reconcile.Revision{faultOf(condition.Unreachable, "", "port 1"), faultOf(condition.Unreachable, "", "port 2")},
			[]string{condition.Unreachable},
		},
		"another reason": {
			[]reconcile.Revision{faultOf(condition.Unreachable, "", ""), faultOf(condition.Unauthorized, "", "")},
			[]string{condition.Unreachable, condition.Unauthorized},
		},
		"other faults in the specs": {
			[]reconcile.Revision{faultOf(condition.SpecInvalid, "x", "1"), faultOf(condition.SpecInvalid, "x", "1"), faultOf(condition.SpecInvalid, "x", "2"), faultOf(condition.SpecInvalid, "y", "2")},
			[]string{condition.SpecInvalid, condition.SpecInvalid, condition.SpecInvalid},
		},
		"a fault that is over": {
			[]reconcile.Revision{fleetNamed("a"), faultOf(condition.RefMissing, "", ""), fleetNamed("a")},
			[]string{"a", condition.RefMissing, "a"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if _, got := looks(t, c.find, nil); !cmp.Equal(got, c.want) {
					t.Errorf("%v, want %v", got, c.want)
				}
			})
		})
	}
}

func TestNoticesThatComeTogetherAreOneLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hint, count := make(chan struct{}, 1), 0
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		f := &follower{every: time.Hour, hint: hint, jitter: func() float64 { return 0 }, offer: func(reconcile.Revision) {}}
		f.look = func(context.Context) (reconcile.Revision, bool) {
			count++
			return fleetNamed("a"), true
		}
		go func() {
			for range 20 {
				sleep(ctx, time.Millisecond)
				select {
				case hint <- struct{}{}:
				default:
				}
			}
		}()
		f.run(ctx)
		if count != 2 {
			t.Errorf("%d looks, want the first and one more", count)
		}
	})
}
