// Package web is the pages that Greenroom serves to people: how the fleet stands, plans, and signing in to see and change them.
//
// It exists so that a link in a pull request or an alert leads to something that can be read by everybody who has a token:
// rendered on the server, of use without JavaScript and without a request to anywhere else, so that the strictest of content
// security policies holds. What the pages show and what their forms do they ask of the HTTP API, as whoever looks, so that the rules
// of who may do what, and when, stand there alone. The package knows nothing of routing and nothing of how plans are made.
package web

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"html/template"
	"log/slog"
	"net/http"
	"time"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/reconcile/plan"
	"greenroom/specs"
)

// store is what the pages read that no call of the API tells: the settings in force, and which guests there ever were.
type store interface {
	Fleet() *specs.Fleet
	Slots(ctx context.Context, pool string) ([]int, error)
}

// Options are what the pages stand on. API, Store and Lookup are needed.
type Options struct {
	API    http.Handler // of the paths below /v1: the pages call it with the token of whoever looks
	Store  store
	Plans  bool                                     // there may be some to lead to: specs are followed
	Lookup func(secret string) (lease.Caller, bool) // whose token it is, compared in constant time
	Log    *slog.Logger                             // default: slog.Default()
	Now    func() time.Time                         // default: time.Now

	// Follow hands on what happens in the house until ctx ends or the server does, which closes the channel. nil: no page is
	// brought up to date while it is open.
	Follow func(ctx context.Context) (<-chan client.Event, error)
}

// Site is the pages. Each of its methods returns the handler of one path; the router in front of them fills in path values
// and refuses other methods.
type Site struct {
	o         Options
	templates map[string]*template.Template
	sessions  *sessions
	attempts  *limiter
	followers *followers
}

// New returns the pages of one server. Nobody is signed in.
func New(o Options) *Site {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Site{
		o: o, templates: parse(o.Now), sessions: &sessions{now: o.Now, byHash: map[hash]session{}},
		attempts:  &limiter{now: o.Now, buckets: map[string]bucket{}},
		followers: &followers{byToken: map[string]int{}},
	}
}

//go:embed pages
var files embed.FS

// page is what every template gets.
type page struct {
	Title   string
	Nav     string   // the page of the navigation that it is or belongs to
	Who     *visitor // nil: nobody is signed in
	Plans   bool     // there are some
	Refresh int      // seconds; 0: never
	Live    *live    // nil: it stays as it is
	Done    string   // what came of what was asked for on the page before
	Fault   string   // why it was not done
	Body    any
}

// parse reads the templates, which tell times as seen from that of a clock.
func parse(clock func() time.Time) map[string]*template.Template {
	set, t := map[string]*template.Template{}, times{clock}
	funcs := template.FuncMap{
		"clock": t.clock, "ago": t.ago, "until": t.until, "stamp": stamp, "now": clock, "standing": standing,
		"lasted": func(from, to time.Time) string { return lasted(to.Sub(from)) },
		"brief":  func(d client.Duration) string { return brief(time.Duration(d)) },
	}
	for _, name := range []string{"plan", "plans", "signin", "message", "moment", "fleet", "pool", "cache", "guest", "queue"} {
		one := template.New(name).Funcs(funcs)
		set[name] = template.Must(one.ParseFS(files, "pages/layout.html", "pages/parts.html", "pages/"+name+".html"))
	}
	return set
}

// render writes a page, or nothing of it.
func (s *Site) render(w http.ResponseWriter, status int, name string, p page) {
	p.Plans = s.o.Plans
	var body bytes.Buffer
	if err := s.templates[name].ExecuteTemplate(&body, "layout.html", p); err != nil {
		s.o.Log.Error("the page "+name+" could not be rendered", "err", err)
		http.Error(w, "the page could not be rendered", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(harmless(body.Bytes())) // who has gone away is told nothing
}

// harmless makes visible whatever in a page would act on who reads it, such as characters that turn the direction of writing.
// The templates themselves have none. See plan.Clean.
func harmless(body []byte) []byte {
	body = bytes.ReplaceAll(body, []byte("\t"), []byte("    "))
	lines := bytes.Split(body, []byte("\n"))
	for i, line := range lines {
		lines[i] = []byte(plan.Clean(string(line)))
	}
	return bytes.Join(lines, []byte("\n"))
}

// message is a page of one sentence.
func (s *Site) message(w http.ResponseWriter, status int, who *visitor, title, text string) {
	s.render(w, status, "message", page{Title: title, Who: who, Body: text})
}

// policy lets a page load its stylesheet and icon and send its forms, both only from and to here, and nothing else. A live page may also
// load the script, and that may ask here.
const (
	policy     = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
	livePolicy = policy + "; script-src 'self'; connect-src 'self'"
)

func secured(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next(w, r)
	})
}

// Stylesheet is GET /static/greenroom.css. It is the same for everybody.
func (s *Site) Stylesheet() http.Handler {
	css, _ := files.ReadFile("pages/greenroom.css") // it is embedded
	return constant("text/css; charset=utf-8", append(css, coloured()...))
}

// Script is GET /static/live.js, which brings open pages up to date. It is the same for everybody.
func (s *Site) Script() http.Handler {
	js, _ := files.ReadFile("pages/live.js")
	return constant("text/javascript; charset=utf-8", js)
}

// Icon is GET /static/icon.svg.
func (s *Site) Icon() http.Handler {
	svg, _ := files.ReadFile("pages/icon.svg")
	return constant("image/svg+xml", svg)
}

func constant(kind string, body []byte) http.Handler {
	return secured(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Cache-Control", "max-age=300")
		_, _ = w.Write(body)
	})
}

// view is a page for somebody who is signed in. Who that is, is an argument, so that none can forget to ask for it.
type view func(w http.ResponseWriter, r *http.Request, who visitor)

// reading is a page that changes nothing. Who is not signed in is sent to do so first.
func (s *Site) reading(v view) http.Handler {
	return secured(func(w http.ResponseWriter, r *http.Request) {
		who, ok := s.visitor(r)
		switch {
		case ok:
			v(w, r, who)
		case r.Header.Get("Sec-Fetch-Site") == "cross-site" && r.URL.RawQuery == "":
			// A link on another site has been followed, and a SameSite=Strict cookie stays away from that request. The page
			// that is shown for a moment asks once more, from here.
			s.render(w, http.StatusOK, "moment", page{Title: "One moment", Body: local(r.URL.Path) + "?again"})
		default:
			http.Redirect(w, r, "/signin?next="+local(r.URL.Path), http.StatusSeeOther)
		}
	})
}

// Unknown is what a browser is shown at a path that there is not.
func (s *Site) Unknown() http.Handler {
	return s.reading(func(w http.ResponseWriter, _ *http.Request, who visitor) {
		s.message(w, http.StatusNotFound, &who, problemTitles[http.StatusNotFound], "There is no such page.")
	})
}

// changing is a form of somebody who is signed in, sent from a page of ours.
func (s *Site) changing(v view) http.Handler {
	return secured(func(w http.ResponseWriter, r *http.Request) {
		who, ok := s.visitor(r)
		switch {
		case !ok:
			http.Redirect(w, r, "/signin", http.StatusSeeOther)
		case !genuine(w, r, who.CSRF):
			s.message(w, http.StatusForbidden, &who, "Refused", "The form did not come from a page of this server, or from one that is too old. Go back, load the page again, and try once more.")
		default:
			v(w, r, who)
		}
	})
}

// Plans is GET /plans: those that are kept, the newest first.
func (s *Site) Plans() http.Handler {
	return s.reading(func(w http.ResponseWriter, r *http.Request, who visitor) {
		kept, err := s.api(who).Plans(r.Context())
		if err != nil {
			s.sorry(w, who, err)
			return
		}
		all := make([]plan.Layout, len(kept))
		for i, p := range kept {
			all[i] = plan.LayOut(p)
		}
		s.render(w, http.StatusOK, "plans", page{Title: "Plans", Nav: "plans", Who: &who, Body: all})
	})
}

// planPage is what the template of a plan gets.
type planPage struct {
	plan.Layout
	Base, Head string
	SameCaches []plan.Section
	SamePools  []string
	MayApprove bool
	CSRF       string
	Fault      string // why the approval that was asked for was not given
}

// Plan is GET /plans/{id}.
func (s *Site) Plan() http.Handler {
	return s.reading(func(w http.ResponseWriter, r *http.Request, who visitor) { s.plan(w, r, who, fault{}) })
}

func (s *Site) plan(w http.ResponseWriter, r *http.Request, who visitor, why fault) {
	p, err := s.api(who).GetPlan(r.Context(), r.PathValue("id"), 0)
	if err == nil {
		s.showPlan(w, who, p, why)
		return
	}
	if status, _ := problem(err); status == http.StatusNotFound {
		s.message(w, status, &who, "No such plan", "There is no such plan, or none any more: they are kept for an hour. Ask for a new one with \"greenroom plan\".")
		return
	}
	s.sorry(w, who, err)
}

// again is after how many seconds a page looks again for what is still being made.
const again = 2

func (s *Site) showPlan(w http.ResponseWriter, who visitor, p plan.Plan, why fault) {
	l := plan.LayOut(p)
	body := planPage{Layout: l, MayApprove: approvable(p, who.Caller), CSRF: who.CSRF, Fault: plan.Clean(why.text)}
	body.Base, body.Head = l.Compared()
	_, body.SamePools = l.Unchanged()
	for _, section := range l.Sections {
		if !section.Changes() && (len(section.Guests) > 0 || !section.Cache.Invisible) {
			body.SameCaches = append(body.SameCaches, section)
		}
	}
	refresh := 0
	if p.Phase == plan.Making || p.Terraform != nil && p.Terraform.Phase == plan.Making {
		refresh = again
	}
	s.render(w, cmp.Or(why.status, http.StatusOK), "plan", page{Title: "Plan of " + cmp.Or(l.Plan.Ref, "no ref"), Nav: "plans", Who: &who, Refresh: refresh, Body: body})
}

// approvable tells whether the page has a button to approve the plan; whether that is done the API decides.
func approvable(p plan.Plan, who lease.Caller) bool {
	return who.Role == lease.Admin && p.Phase == plan.Ready && p.Held()
}

// ApprovePlan is POST /plans/{id}/approve. What is approved is what the page has shown: a plan that has been made again
// since, with another digest, has to be read first.
func (s *Site) ApprovePlan() http.Handler {
	return s.changing(func(w http.ResponseWriter, r *http.Request, who visitor) {
		id := r.PathValue("id")
		if _, err := s.api(who).ApprovePlan(r.Context(), id, r.PostFormValue("digest")); err != nil {
			status, text := problem(err)
			s.o.Log.Warn("a plan was not approved", "by", who.Name, "plan", id, "err", err)
			s.plan(w, r, who, fault{status, text})
			return
		}
		http.Redirect(w, r, local("/plans/"+id), http.StatusSeeOther)
	})
}
