package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/reconcile/gitops"
)

// fault is an error of the API's own: of HTTP, JSON or authorization.
type fault struct {
	status int
	code   string
	detail string
}

func (f *fault) Error() string { return f.detail }

// facts maps what the packages below answer to a status and a stable code. The first match counts.
var facts = []struct {
	err    error
	status int
	code   string
}{
	{lease.ErrUnavailable, http.StatusServiceUnavailable, "unavailable"},
	{errNotReady, http.StatusServiceUnavailable, "not_ready"},
	{lease.ErrQueueFull, http.StatusServiceUnavailable, "queue_full"},
	{lease.ErrUnknownCache, http.StatusNotFound, "unknown_cache"},
	{lease.ErrUnknownPool, http.StatusNotFound, "unknown_pool"},
	{lease.ErrUnknownGuest, http.StatusNotFound, "unknown_guest"},
	{lease.ErrUnknownLease, http.StatusNotFound, "unknown_lease"},
	{errUnknownToken, http.StatusNotFound, "unknown_token"},
	{gitops.ErrUnknownPlan, http.StatusNotFound, "unknown_plan"},
	{gitops.ErrNotReady, http.StatusConflict, "plan_not_ready"},
	{gitops.ErrStale, http.StatusConflict, "plan_stale"},
	{gitops.ErrTooManyPlans, http.StatusServiceUnavailable, "too_many_plans"},
	{gitops.ErrForged, http.StatusUnauthorized, "forged"},
	{gitops.ErrReplayed, http.StatusConflict, "replayed"},
	{gitops.ErrHooksOff, http.StatusNotFound, "hooks_off"},
	{gitops.ErrUnknownForge, http.StatusNotFound, "not_found"},
	{gitops.ErrForm, http.StatusUnsupportedMediaType, "unsupported_media"},
	{gitops.ErrUnreadable, http.StatusBadRequest, "malformed"},
	{gitops.ErrNotAdmin, http.StatusForbidden, "forbidden"},
	{lease.ErrNotYours, http.StatusForbidden, "not_yours"},
	{lease.ErrImpossible, http.StatusUnprocessableEntity, "impossible"},
	{lease.ErrNoneReady, http.StatusConflict, "none_ready"},
	{lease.ErrReplay, http.StatusConflict, "idempotency_mismatch"},
	{lease.ErrQueued, http.StatusConflict, "queued"},
	{lease.ErrLeased, http.StatusConflict, "leased"},
	{lease.ErrConflict, http.StatusConflict, "conflict"},
	{lease.ErrHoldBudget, http.StatusConflict, "hold_budget"},
	{errLastAdmin, http.StatusConflict, "last_admin"},
	{lease.ErrFull, http.StatusConflict, "full"},
	{lease.ErrOver, http.StatusGone, "lease_over"},
	{lease.ErrInvalid, http.StatusBadRequest, "invalid"},
	{context.DeadlineExceeded, http.StatusServiceUnavailable, "unavailable"},
	{context.Canceled, http.StatusServiceUnavailable, "unavailable"},
}

// problemOf says how err is answered. What is nobody's business is answered as internal, without its text.
func problemOf(err error) client.Problem {
	if f, ok := errors.AsType[*fault](err); ok {
		return problem(f.status, f.code, f.detail)
	}
	for _, fact := range facts {
		if errors.Is(err, fact.err) {
			return problem(fact.status, fact.code, err.Error())
		}
	}
	return problem(http.StatusInternalServerError, "internal", "a fault of the server's own; its log says more")
}

func problem(status int, code, detail string) client.Problem {
	return client.Problem{
		Type: "urn:greenroom:problem:" + code, Title: http.StatusText(status), Status: status, Detail: detail, Code: code,
	}
}

func writeProblem(w http.ResponseWriter, p client.Problem) {
	switch p.Status {
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="greenroom"`)
	}
	write(w, p.Status, problemMedia, p)
}

// What most answers have in their headers is made once for all of them.
var jsonMedia, problemMedia, noStore = []string{"application/json"}, []string{"application/problem+json"}, []string{"no-store"}

// write sends v, unless it is nil. A caller that has gone away is no error of ours.
func write(w http.ResponseWriter, status int, media []string, v any) {
	if v == nil {
		w.WriteHeader(status)
		return
	}
	body := borrow()
	defer giveBack(body)
	if err := encode(body, v); err != nil {
		panic(err) // a shape that can't be JSON is a fault in the code
	}
	w.Header()["Content-Type"], w.Header()["Cache-Control"] = media, noStore
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
}

// encode writes what json.Encoder does; a lease, which most calls are answered with, faster.
func encode(into *bytes.Buffer, v any) error {
	l, ok := v.(client.Lease)
	if !ok {
		return json.NewEncoder(into).Encode(v)
	}
	text, err := l.AppendJSON(into.AvailableBuffer())
	into.Write(append(text, '\n'))
	return err
}

// bodies are buffers of requests and answers that are done with, but for the large ones.
const keptBody = 16 << 10

var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func borrow() *bytes.Buffer {
	body, _ := bodies.Get().(*bytes.Buffer)
	return body
}

// giveBack takes a buffer back of which nothing is in use any more.
func giveBack(body *bytes.Buffer) {
	if body.Cap() <= keptBody {
		body.Reset()
		bodies.Put(body)
	}
}
