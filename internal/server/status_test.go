package server

import (
	"errors"
	"fmt"
	"testing"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/lease/leasetest"
	"greenroom/reconcile"
	"greenroom/reconcile/condition"
)

func TestReadinessAsksTheStoreNothing(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	h.parts.Reconciler = reconcile.New(reconcile.Options{Store: h.store})
	h.serveAgain()
	count := &trips{}
	h.rdb.AddHook(count)
	if p, _ := h.refused(503, "not_ready", sent{method: "GET", path: "/readyz"}); p.Detail != "no usable Terraform was found" || count.n.Load() > 0 {
		t.Errorf("answered %q after %d round trips", p.Detail, count.n.Load())
	}
}

func TestAllCachesAreReadInOneRoundTrip(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	ask[struct{ Caches []client.Cache }](h, 200, sent{token: h.admin, method: "GET", path: "/v1/caches"}) // brings the script
	count := &trips{}
	h.rdb.AddHook(count)
	got := ask[struct{ Caches []client.Cache }](h, 200, sent{token: h.admin, method: "GET", path: "/v1/caches"})
	if len(got.Caches) != 4 || count.n.Load() != 1 {
		t.Errorf("%d caches in %d round trips", len(got.Caches), count.n.Load())
	}
}

// knowing is a loop that knows of its troubles.
type knowing struct {
	*fakeLoop
	trouble error
}

func (k knowing) Trouble() error { return k.trouble }

func TestAStoreThatOnlyTheLoopFindsAwayIsAwayForReadiness(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	h.parts.Reconciler = knowing{h.loop, fmt.Errorf("%w: no space left on device", lease.ErrUnavailable)}
	h.serveAgain()
	for _, outage := range []error{nil, fmt.Errorf("%w: no space left on device", lease.ErrUnavailable)} {
		h.outage = outage
		if p, _ := h.refused(503, "not_ready", sent{method: "GET", path: "/readyz"}); p.Detail != "the store cannot be reached: no space left on device" {
			t.Errorf("with the outage %v: %q", outage, p.Detail)
		}
	}
	h.outage, h.parts.Reconciler = nil, knowing{h.loop, errors.New("a trouble")}
	h.serveAgain()
	if p, _ := h.refused(503, "not_ready", sent{method: "GET", path: "/readyz"}); p.Detail != "a trouble" {
		t.Errorf("not ready: %q", p.Detail)
	}
}

func TestAStoreThatTheLoopHasNotFoundAwayIsNotReadyInTheStatus(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	h.loop.status.Conditions = []condition.Condition{
		{Type: condition.Ready, Status: true, Reason: "Serving"}, {Type: condition.Stalled, Reason: "NotStalled"}, {Type: condition.Waiting, Reason: "NotWaiting"},
	}
	h.outage = fmt.Errorf("%w: no space left on device", lease.ErrUnavailable)
	st := ask[client.Status](h, 200, sent{token: h.admin, method: "GET", path: "/v1/status"})
	ready, waiting := condition.Of(st.Conditions, condition.Ready), condition.Of(st.Conditions, condition.Waiting)
	if st.Store != h.outage.Error() || ready.Status || ready.Reason != "StoreUnavailable" || !waiting.Status || len(st.Conditions) != 3 {
		t.Errorf("%q, %+v", st.Store, st.Conditions)
	}
	if !h.loop.status.Conditions[0].Status {
		t.Error("what the loop keeps was changed")
	}
}
