package web

import (
	"crypto/rand"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// formLife is how long a form for signing in may lie open.
const formLife = time.Hour

// signInPage is what the template of the form gets.
type signInPage struct{ CSRF, Next, Fault string }

// SignIn is GET and POST /signin: it takes a token of the API and gives a session for it.
func (s *Site) SignIn() http.Handler {
	return secured(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			s.signIn(w, r)
			return
		}
		s.askForToken(w, r, http.StatusOK, r.URL.Query().Get("next"), "")
	})
}

// askForToken shows the form. Nobody is known yet whose token a form could have, so that it has one that a cookie repeats:
// another site can send us a form, but not set a cookie.
func (s *Site) askForToken(w http.ResponseWriter, r *http.Request, status int, next, fault string) {
	csrf := cookie(r, "form") // of another tab, so that its form stays good
	if len(csrf) != len(rand.Text()) {
		csrf = rand.Text()
	}
	setCookie(w, r, "form", csrf, formLife)
	s.render(w, status, "signin", page{Title: "Sign in", Body: signInPage{csrf, local(next), fault}})
}

func (s *Site) signIn(w http.ResponseWriter, r *http.Request) {
	from := address(r)
	if wait, ok := s.attempts.take(from); !ok {
		w.Header().Set("Retry-After", wait)
		s.message(w, http.StatusTooManyRequests, nil, "Too many attempts", "There were too many attempts to sign in from your address. Wait a minute, and try again.")
		return
	}
	if !genuine(w, r, cookie(r, "form")) {
		s.askForToken(w, r, http.StatusForbidden, r.PostForm.Get("next"), "The form was too old, or did not come from this server. Try again; the browser has to accept cookies.")
		return
	}
	token, next := strings.TrimSpace(r.PostForm.Get("token")), r.PostForm.Get("next")
	who, ok := s.o.Lookup(token)
	if !ok {
		s.o.Log.Warn("a sign-in was refused", "remote", from)
		s.askForToken(w, r, http.StatusUnauthorized, next, "The token is unknown, revoked or expired. An admin makes one with \"greenroom token create\".")
		return
	}
	s.sessions.end(cookie(r, "session"))
	setCookie(w, r, "form", "", 0)
	setCookie(w, r, "session", s.sessions.begin(token), sessionLife)
	s.o.Log.Info("signed in", "by", who.Name, "remote", from)
	http.Redirect(w, r, local(next), http.StatusSeeOther)
}

// SignOut is POST /signout.
func (s *Site) SignOut() http.Handler {
	return s.changing(func(w http.ResponseWriter, r *http.Request, _ visitor) {
		s.sessions.end(cookie(r, "session"))
		setCookie(w, r, "session", "", 0)
		http.Redirect(w, r, "/signin", http.StatusSeeOther)
	})
}

// Bounds of attempts to sign in, for each address.
const (
	burst        = 10
	refill       = 2 * time.Second // one more
	maxAddresses = 10_000
)

// bucket has the attempts that an address has left, as of a time.
type bucket struct {
	left float64
	at   time.Time
}

// limiter slows those who try tokens. A token can't be guessed; what it saves is the work of looking, and the log.
type limiter struct {
	now func() time.Time

	mu      sync.Mutex
	buckets map[string]bucket
}

// take allows one attempt, or says after how many seconds there will be one.
func (l *limiter) take(address string) (wait string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, known := l.buckets[address]
	if !known {
		l.makeRoom()
		b.left = burst
	}
	b = l.filled(b)
	if b.left < 1 {
		l.buckets[address] = b
		return "2", false
	}
	b.left--
	l.buckets[address] = b
	return "", true
}

func (l *limiter) filled(b bucket) bucket {
	now := l.now()
	return bucket{min(b.left+float64(now.Sub(b.at))/float64(refill), burst), now}
}

// makeRoom forgets the addresses that have all attempts again, and any of them when none has.
func (l *limiter) makeRoom() {
	if len(l.buckets) < maxAddresses {
		return
	}
	for address, b := range l.buckets {
		if l.filled(b).left >= burst {
			delete(l.buckets, address)
		}
	}
	for address := range l.buckets {
		if len(l.buckets) < maxAddresses {
			return
		}
		delete(l.buckets, address)
	}
}

// address is where a request came from. An IPv6 network is one address: who has one has them all.
func address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return "local"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return "local"
	}
	if ip = ip.Unmap().WithZone(""); ip.Is6() {
		if network, err := ip.Prefix(64); err == nil {
			return network.String()
		}
	}
	return ip.String()
}
