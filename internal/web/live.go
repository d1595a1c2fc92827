package web

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"greenroom/lease/client"
)

const (
	pace        = 250 * time.Millisecond // between two words to one page, at least
	pulse       = 10 * time.Second       // between two looks at what no event tells, such as a run of Terraform
	writeTime   = 10 * time.Second       // that one word may take
	maxPages    = 20                     // that are followed with one token
	updating    = "Greenroom-Updating"   // header of a request for a page that is open already
	reconnectMS = "1000"
)

// followers counts the pages that are open, by token, so that nobody can take all the room that there is.
type followers struct {
	mu      sync.Mutex
	byToken map[string]int
}

func (f *followers) come(token string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byToken[token] >= maxPages {
		return false
	}
	f.byToken[token]++
	return true
}

func (f *followers) leave(token string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byToken[token]--; f.byToken[token] == 0 {
		delete(f.byToken, token)
	}
}

// Live is GET /live: it tells an open page when to look again, and nothing of what it will see. So the page is always shown by
// the rights that its visitor has then, and there is one way only in which it is made.
func (s *Site) Live() http.Handler {
	return secured(func(w http.ResponseWriter, r *http.Request) {
		who, ok := s.visitor(r)
		switch {
		case !ok:
			http.Error(w, "sign in first", http.StatusUnauthorized)
			return
		case s.o.Follow == nil:
			http.Error(w, "there is nothing to follow", http.StatusNotFound)
			return
		case !s.followers.come(who.token):
			http.Error(w, "too many pages are open; this one looks again by the clock", http.StatusServiceUnavailable)
			return
		}
		defer s.followers.leave(who.token)
		news, err := s.o.Follow(r.Context())
		if err != nil {
			http.Error(w, "too many pages are open; this one looks again by the clock", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("X-Accel-Buffering", "no") // nginx would keep events back
		if r.Method == http.MethodHead {
			return
		}
		s.follow(word{w}, r, news)
	})
}

// follow tells of what happens until the page is closed, its visitor may look no more, or the server ends.
func (s *Site) follow(out word, r *http.Request, news <-chan client.Event) {
	if out.open() != nil {
		return
	}
	about := r.URL.Query()
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	var due <-chan time.Time // nil: there is nothing to tell
	last := time.Now()
	for {
		select {
		case e, ok := <-news:
			if !ok || e.Kind == client.FeedEnded {
				return // the browser comes again
			}
			if due == nil && concerns(about, e) {
				due = time.After(pace - time.Since(last))
			}
			continue
		case <-due:
		case <-tick.C:
		}
		if _, ok := s.visitor(r); !ok || out.say("event: changed\ndata:\n\n") != nil {
			return
		}
		due, last = nil, time.Now()
	}
}

// concerns tells whether an event may change what a page shows. One that leaves a name open concerns everybody.
func concerns(about url.Values, e client.Event) bool {
	for name, has := range map[string]string{"pool": e.Pool, "cache": e.Cache, "guest": e.Guest} {
		if want := about.Get(name); want != "" && has != "" && has != want {
			return false
		}
	}
	return true
}

// word is the way to one page.
type word struct{ http.ResponseWriter }

// open lifts the limits on the time of a whole call: from now on each word has its own.
func (w word) open() error {
	rc := http.NewResponseController(w.ResponseWriter)
	if err := rc.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return w.say("retry: " + reconnectMS + "\n\n")
}

func (w word) say(text string) error {
	rc := http.NewResponseController(w.ResponseWriter)
	if err := rc.SetWriteDeadline(time.Now().Add(writeTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	return rc.Flush()
}
