package web

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/reconcile/plan"
)

// act is something that an admin does to what a page shows. It answers with what came of it, in a sentence.
type act func(ctx context.Context, api *client.Client, name string, form url.Values) (string, error)

// shower shows the page of one thing, with why what was asked for was not done.
type shower func(w http.ResponseWriter, r *http.Request, who visitor, why fault)

// acting is the forms of a page below /kind/: what they ask for is done by the API, which also refuses it. What came of it
// stands on the page, to which the browser is sent so that loading it again does nothing twice.
func (s *Site) acting(kind string, show shower, acts map[string]act) http.Handler {
	return s.changing(func(w http.ResponseWriter, r *http.Request, who visitor) {
		do, ok := acts[r.PathValue("act")]
		if !ok {
			s.message(w, http.StatusNotFound, &who, "Not found", "There is no such action.")
			return
		}
		name := r.PathValue(kind)
		done, err := do(r.Context(), s.api(who), name, r.PostForm)
		if err != nil {
			status, text := problem(err)
			s.o.Log.Warn("what a page asked for was refused", "by", who.Name, "path", r.URL.Path, "err", err)
			show(w, r, who, fault{status, text})
			return
		}
		path := "/"
		if kind != "" {
			path = local("/" + kind + "s/" + name)
		}
		s.sessions.tell(who.session, notice{path, done})
		http.Redirect(w, r, path, http.StatusSeeOther)
	})
}

// ActOnFleet is POST /reconcile.
func (s *Site) ActOnFleet() http.Handler {
	reconcile := func(ctx context.Context, api *client.Client, _ string, _ url.Values) (string, error) {
		_, err := api.Reconcile(ctx)
		return "All pools are looked at now.", err
	}
	return s.acting("", s.fleet, map[string]act{"": reconcile})
}

// ActOnPool is POST /pools/{pool}/{act}.
func (s *Site) ActOnPool() http.Handler {
	return s.acting("pool", s.pool, map[string]act{
		"reconcile": func(ctx context.Context, api *client.Client, pool string, _ url.Values) (string, error) {
			_, err := api.Reconcile(ctx, pool)
			return "The pool is looked at now.", err
		},
		"pause": func(ctx context.Context, api *client.Client, pool string, form url.Values) (string, error) {
			_, err := api.Pause(ctx, pool, form.Get("reason"))
			return "The pool is paused: no more runs begin.", err
		},
		"resume": func(ctx context.Context, api *client.Client, pool string, _ url.Values) (string, error) {
			return "The pool goes on.", api.Resume(ctx, pool)
		},
	})
}

// ActOnCache is POST /caches/{cache}/{act}.
func (s *Site) ActOnCache() http.Handler {
	toggle := func(enabled bool) act {
		return func(ctx context.Context, api *client.Client, cache string, form url.Values) (string, error) {
			length, err := length(form.Get("for"))
			if err != nil {
				return "", err
			}
			c, err := api.SetEnabled(ctx, cache, enabled, client.Toggle{For: length, Reason: form.Get("reason")})
			return toggled(c), err
		}
	}
	return s.acting("cache", s.cache, map[string]act{
		"enable": toggle(true), "disable": toggle(false),
		"obey": func(ctx context.Context, api *client.Client, cache string, _ url.Values) (string, error) {
			c, err := api.DropOverride(ctx, cache)
			return toggled(c), err
		},
	})
}

// length reads a duration; an empty one is none.
func length(text string) (client.Duration, error) {
	var d client.Duration
	if text == "" {
		return 0, nil
	}
	if err := d.UnmarshalText([]byte(text)); err != nil {
		return 0, refusal(http.StatusBadRequest, err.Error())
	}
	return d, nil
}

// refusal is an error that reads as one of the API.
func refusal(status int, detail string) error {
	return &client.Error{Problem: client.Problem{Status: status, Detail: detail}}
}

func toggled(c client.Cache) string {
	word := map[bool]string{true: "grants leases", false: "grants no leases"}[c.Enabled]
	switch {
	case c.Override == nil:
		return "The cache " + word + ", as the spec says."
	case c.Override.Until.IsZero():
		return "The cache " + word + " until somebody takes that back."
	}
	return "The cache " + word + " until " + c.Override.Until.UTC().Format(time.DateTime) + "."
}

// ActOnGuest is POST /guests/{guest}/{act}.
func (s *Site) ActOnGuest() http.Handler {
	return s.acting("guest", s.guest, map[string]act{
		"taint": shown(func(ctx context.Context, api *client.Client, g lease.Guest, form url.Values) (string, error) {
			o, err := api.Taint(ctx, g.Name, form.Get("reason"))
			return fmt.Sprintf("It is ordered to be replaced %s.", o.When), err
		}),
		"remove": shown(func(ctx context.Context, api *client.Client, g lease.Guest, _ url.Values) (string, error) {
			o, err := api.RemoveGuest(ctx, g.Cache, g.Name)
			return fmt.Sprintf("It is ordered to be removed %s.", o.When), err
		}),
		"hold": shown(func(ctx context.Context, api *client.Client, g lease.Guest, form url.Values) (string, error) {
			length, err := length(form.Get("for"))
			if err != nil {
				return "", err
			}
			held, err := api.Hold(ctx, g.Name, length)
			return "It is held until " + held.Until.UTC().Format(time.DateTime) + ".", err
		}),
		"probe": shown(func(ctx context.Context, api *client.Client, g lease.Guest, _ url.Values) (string, error) {
			p, err := api.Probe(ctx, g.Name)
			word := map[bool]string{true: "It is alive: ", false: "It did not prove alive: "}[p.Alive]
			return word + plan.Clean(p.Result), err
		}),
	})
}

// shown makes sure that what happens to a guest happens to the machine that was looked at: another may have its name by now.
func shown(do func(ctx context.Context, api *client.Client, g lease.Guest, form url.Values) (string, error)) act {
	return func(ctx context.Context, api *client.Client, name string, form url.Values) (string, error) {
		g, err := api.Guest(ctx, name)
		if err != nil {
			return "", err
		}
		if form.Get("incarnation") != strconv.Itoa(g.Incarnation) {
			return "", refusal(http.StatusConflict, "there is another machine under this name since the page was made; look at it first")
		}
		return do(ctx, api, g, form)
	}
}
