package web

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"greenroom/lease/client"
)

// api is the HTTP API as a visitor may use it, without a network between: a page shows and does what the API tells and does for
// the same token, in the same words.
func (s *Site) api(who visitor) *client.Client {
	c, err := client.New(client.Options{
		Addr: "http://greenroom", Token: who.token, Retry: -1, HTTPClient: &http.Client{Transport: direct{s.o.API}},
	})
	if err != nil {
		panic(err) // the address above is one
	}
	return c
}

// direct is a transport that hands requests to a handler of this process.
type direct struct{ to http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	w := &written{header: http.Header{}}
	d.to.ServeHTTP(w, r)
	return &http.Response{
		StatusCode: cmp.Or(w.status, http.StatusOK), Header: w.header, Body: io.NopCloser(&w.body), Request: r, ProtoMajor: 1, ProtoMinor: 1,
	}, nil
}

// written is an answer in memory.
type written struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *written) Header() http.Header { return w.header }

func (w *written) WriteHeader(status int) { w.status = cmp.Or(w.status, status) }

func (w *written) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}

// problem says what an error of the API comes to on a page.
func problem(err error) (status int, text string) {
	if answered, ok := errors.AsType[*client.Error](err); ok && answered.Status >= 400 {
		return answered.Status, answered.Detail
	}
	return http.StatusServiceUnavailable, err.Error()
}

var problemTitles = map[int]string{
	http.StatusNotFound: "Not found", http.StatusForbidden: "Refused", http.StatusConflict: "Not as things stand",
	http.StatusBadRequest: "Not understood", http.StatusServiceUnavailable: "Not just now", http.StatusUnauthorized: "Signed out",
}

// sorry answers that a page can't be shown.
func (s *Site) sorry(w http.ResponseWriter, who visitor, err error) {
	status, text := problem(err)
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	s.message(w, status, &who, cmp.Or(problemTitles[status], "It did not work"), text+".")
}

// Bounds of how often a page without JavaScript may load itself again.
const (
	leastRefresh = 2
	mostRefresh  = 3600
)

// live is what a page needs to be brought up to date while it is open.
type live struct {
	Path  string // of the page, with its query: the answer to a form is shown at another
	About string // query of the stream that tells when to look again
	On    bool   // the page has a stream
}

// Asks tells that the path has a query.
func (l live) Asks() bool { return strings.Contains(l.Path, "?") }

// fault is why what a visitor has asked for was not done; the zero value: nothing was asked for.
type fault struct {
	status int
	text   string
}

// show is a page of how things stand.
func (s *Site) show(w http.ResponseWriter, r *http.Request, who visitor, why fault, name string, p page) {
	p.Who, p.Fault = &who, why.text
	if n, err := strconv.Atoi(r.URL.Query().Get("refresh")); err == nil {
		p.Refresh = min(max(n, leastRefresh), mostRefresh)
	}
	if p.Live.On = s.o.Follow != nil && p.Refresh == 0; p.Live.On {
		w.Header().Set("Content-Security-Policy", livePolicy)
	}
	if r.Header.Get(updating) == "" {
		p.Done = s.sessions.hear(who.session, r.URL.Path)
	}
	s.render(w, cmp.Or(why.status, http.StatusOK), name, p)
}
