package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"greenroom/lease"
	"greenroom/lease/client"
)

const (
	maxBody     = 1 << 20
	maxReason   = 1 << 10 // bytes
	maxPoll     = 60 * time.Second
	callTimeout = maxPoll + 15*time.Second
)

// access is who may make a call, and when.
type access struct {
	admin   bool // only admins
	anytime bool // also while the store can't be used
	told    bool // what the call changes is logged where that is done
	bounded bool // the call ends soon by itself: the store bounds each of its calls, and what else may wait has a deadline of its own
}

// none is the body of a call that takes none: nothing at all, or {}.
type none struct{}

// shape is one way in which a body may come: its media type, the most bytes of it, and what reads them.
type shape struct {
	media string
	limit int64
	read  func(body []byte) error // keeps nothing of body
}

// shaped is what may come in other shapes than JSON.
type shaped interface{ shapes() []shape }

// request is a decoded call; an absent body is the zero value.
type request[In any] struct {
	Body In
	http *http.Request
}

func (r request[In]) path(name string) string  { return r.http.PathValue(name) }
func (r request[In]) query(name string) string { return r.http.URL.Query().Get(name) }

// lease is the lease that a path is about. It is cut out of it, because values of a path take a map.
func (r request[In]) lease() string {
	id, _, _ := strings.Cut(strings.TrimPrefix(r.http.URL.Path, leasesPath+"/"), "/")
	return id
}

// wait is how long the caller wants to wait, at most maxPoll.
func (r request[In]) wait() (time.Duration, error) {
	var d client.Duration
	if q := r.query("wait"); q != "" {
		if err := d.UnmarshalText([]byte(q)); err != nil {
			return 0, malformed("wait: %v", err)
		}
	}
	return min(time.Duration(d), maxPoll), nil
}

// untilClosing ends with ctx, or when the server does: a long poll is answered as things stand then.
func (a *api) untilClosing(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-a.Closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// answer is what a call comes to; the zero status is 200.
type answer struct {
	status   int
	location string
	body     any
	stream   func(w http.ResponseWriter) // writes the answer itself, for as long as it likes; nil: body is all
}

// handler is one call of the API. The caller's identity is an argument, so that no call can forget to ask for it.
type handler[In any] func(ctx context.Context, who lease.Caller, r request[In]) (answer, error)

// handle makes every call alike: it identifies the caller, checks its role, decodes the body, and writes the answer or
// the problem.
func handle[In any](a *api, who access, h handler[In]) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if !who.bounded { // a timer for each call on a lease would be dear
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, callTimeout)
			defer cancel()
		}
		out, err := call(ctx, a, who, h, w, r)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		if out.stream != nil {
			out.stream(w)
			return
		}
		if out.location != "" {
			w.Header().Set("Location", out.location)
		}
		write(w, max(out.status, http.StatusOK), jsonMedia, out.body)
	})
}

func call[In any](ctx context.Context, a *api, may access, h handler[In], w http.ResponseWriter, r *http.Request) (answer, error) {
	who, err := a.identify(r)
	if err != nil {
		return answer{}, err
	}
	if may.admin && who.Role != lease.Admin {
		return answer{}, &fault{http.StatusForbidden, "forbidden", fmt.Sprintf("only admins may do this, and %s has the role %s", who.Name, who.Role)}
	}
	req := request[In]{http: r}
	if err := readBody(w, r, &req.Body); err != nil {
		return answer{}, err
	}
	if err := a.Outage(); err != nil && !may.anytime {
		return answer{}, err
	}
	out, err := h(ctx, who, req)
	if err == nil && may.admin && !may.told && r.Method != http.MethodGet && r.Method != http.MethodHead {
		a.Log.Info("did what an admin ordered", "method", r.Method, "path", r.URL.Path, "by", who.Name, "reason", reasonIn(req.Body))
	}
	return out, err
}

// reasonIn is what an admin gives as the reason of an order.
func reasonIn(body any) string {
	switch body := body.(type) {
	case client.Reason:
		return body.Reason
	case client.Toggle:
		return body.Reason
	}
	return ""
}

// fail answers err, and logs it when it is a fault of ours.
func (a *api) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	if p.Code == "internal" {
		a.Log.Error("a call failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	writeProblem(w, p)
}

func readBody(w http.ResponseWriter, r *http.Request, into any) error {
	buf := borrow()
	defer giveBack(buf)
	header := r.Header.Get("Content-Type")
	if header == jsonMedia[0] { // as nearly all
		if err := readAll(buf, w, r, maxBody); err != nil || buf.Len() == 0 {
			return err
		}
		return decode(buf.Bytes(), into)
	}
	shapes := []shape{{jsonMedia[0], maxBody, func(body []byte) error { return decode(body, into) }}}
	if more, ok := into.(shaped); ok {
		shapes = append(shapes, more.shapes()...)
	}
	media, _, _ := mime.ParseMediaType(header) // one that can't be read is none of them
	i := slices.IndexFunc(shapes, func(s shape) bool { return s.media == media })
	if err := readAll(buf, w, r, shapes[max(i, 0)].limit); err != nil || buf.Len() == 0 {
		return err
	}
	if i >= 0 {
		return shapes[i].read(buf.Bytes())
	}
	var want []string
	for _, s := range shapes {
		want = append(want, s.media)
	}
	return &fault{
		http.StatusUnsupportedMediaType, "unsupported_media",
		fmt.Sprintf("the body's content type is %.60q; send %s", header, strings.Join(want, " or ")),
	}
}

// readAll reads a body of at most limit bytes.
func readAll(into *bytes.Buffer, w http.ResponseWriter, r *http.Request, limit int64) error {
	if r.ContentLength >= 0 {
		into.Grow(int(min(r.ContentLength, limit)) + bytes.MinRead)
	}
	body := r.Body
	if r.ContentLength < 0 || r.ContentLength > limit { // else there is no more than that (RFC 9112 section 6.2)
		body = http.MaxBytesReader(w, body, limit)
	}
	_, err := into.ReadFrom(body)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return &fault{http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the body has more than %d MiB", limit>>20)}
	case err != nil:
		return malformed("the body could not be read to its end")
	}
	return nil
}

func malformed(format string, args ...any) error {
	return &fault{http.StatusBadRequest, "malformed", fmt.Sprintf(format, args...)}
}

// brief bounds what people write, which is kept and shown to others.
func brief(reason string) error {
	if len(reason) > maxReason {
		return fmt.Errorf("%w: the reason has %d bytes, at most %d are kept", lease.ErrInvalid, len(reason), maxReason)
	}
	return nil
}

// decode reads exactly one JSON object and refuses what it does not know.
func decode(body []byte, into any) error {
	if decodePlain(body, into) {
		return nil
	}
	return decodeAny(body, into)
}

// decodeAny is decode of bodies of all kinds.
func decodeAny(body []byte, into any) error {
	if first := bytes.TrimLeft(body, " \t\r\n"); len(first) == 0 || first[0] != '{' {
		return malformed("the body is no JSON object")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return decodeFault(body, reflect.TypeOf(into), err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return malformed("there is more after the JSON object, from byte %d on", dec.InputOffset())
	}
	return nil
}

// recovered answers a panic of next as a fault of ours and logs it once.
func (a *api) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(v)
			}
			a.fail(w, r, fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
		}()
		next.ServeHTTP(w, r)
	})
}
