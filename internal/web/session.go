package web

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"greenroom/lease"
)

// Bounds of sessions.
const (
	sessionLife = 12 * time.Hour
	maxSessions = 10_000
	maxPerToken = 20 // so that nobody's token can push out the sessions of others
	maxForm     = 16 << 10
)

type hash [sha256.Size]byte

// session is somebody who is signed in. Whoever that is now is asked of the token each time, so that a token that is revoked
// or expired ends its sessions.
type session struct {
	token  string // the secret itself; it is nowhere but here and, for the time of a request, in its visitor
	csrf   string
	ends   time.Time
	notice notice
}

// notice is what a page is to say the next time that it is shown.
type notice struct{ path, text string }

// sessions are kept in memory by the hashes of their ids: looking one up takes no time that would tell of an id.
type sessions struct {
	now func() time.Time

	mu     sync.Mutex
	byHash map[hash]session
}

// begin makes a session and returns its id, 130 random bits.
func (s *sessions) begin(token string) (id string) {
	id = rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.makeRoom(token)
	s.byHash[sha256.Sum256([]byte(id))] = session{token: token, csrf: rand.Text(), ends: s.now().Add(sessionLife)}
	return id
}

// makeRoom drops the sessions that are over, and the oldest one of a token that has too many, or of all.
func (s *sessions) makeRoom(token string) {
	var oldest, own hash
	mine := 0
	for h, one := range s.byHash {
		if !s.now().Before(one.ends) {
			delete(s.byHash, h)
			continue
		}
		if o, ok := s.byHash[oldest]; !ok || one.ends.Before(o.ends) {
			oldest = h
		}
		if one.token != token {
			continue
		}
		if o, ok := s.byHash[own]; !ok || one.ends.Before(o.ends) {
			own = h
		}
		mine++
	}
	if mine >= maxPerToken {
		delete(s.byHash, own)
	}
	if len(s.byHash) >= maxSessions {
		delete(s.byHash, oldest)
	}
}

func (s *sessions) find(id string) (session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, ok := s.byHash[sha256.Sum256([]byte(id))]
	return one, ok && s.now().Before(one.ends)
}

func (s *sessions) end(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byHash, sha256.Sum256([]byte(id)))
}

// tell leaves a notice for a page of a session; only the last one is kept.
func (s *sessions) tell(id string, n notice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := sha256.Sum256([]byte(id))
	if one, ok := s.byHash[h]; ok {
		one.notice = n
		s.byHash[h] = one
	}
}

// hear takes the notice for a page, which is said once.
func (s *sessions) hear(id, path string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := sha256.Sum256([]byte(id))
	one, ok := s.byHash[h]
	if !ok || one.notice.path != path {
		return ""
	}
	text := one.notice.text
	one.notice = notice{}
	s.byHash[h] = one
	return text
}

// visitor is somebody who is signed in. Templates see no more than the fields that are exported.
type visitor struct {
	lease.Caller
	CSRF    string
	session string // its id
	token   string
}

// visitor finds out who asks for a page.
func (s *Site) visitor(r *http.Request) (visitor, bool) {
	id := cookie(r, "session")
	one, ok := s.sessions.find(id)
	if !ok {
		return visitor{}, false
	}
	who, ok := s.o.Lookup(one.token)
	if !ok {
		s.sessions.end(id)
		return visitor{}, false
	}
	return visitor{Caller: who, CSRF: one.csrf, session: id, token: one.token}, true
}

// Over TLS the names of cookies have the prefix that keeps other hosts of the domain from setting them (RFC 6265bis).
func cookieName(r *http.Request, kind string) string {
	if secure(r) {
		return "__Host-greenroom-" + kind
	}
	return "greenroom-" + kind
}

// secure tells that the browser came by TLS, to us or to the proxy in front of us. A lie about it harms only the liar.
func secure(r *http.Request) bool {
	return r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

func cookie(r *http.Request, kind string) string {
	c, err := r.Cookie(cookieName(r, kind))
	if err != nil {
		return ""
	}
	return c.Value
}

// setCookie gives the browser a value for so long; not positive: takes it away.
func setCookie(w http.ResponseWriter, r *http.Request, kind, value string, life time.Duration) {
	c := &http.Cookie{Name: cookieName(r, kind), Value: value, Path: "/", MaxAge: int(life.Seconds()), Secure: secure(r), HttpOnly: true, SameSite: http.SameSiteStrictMode}
	if life <= 0 {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// genuine tells that a form was sent from a page of ours: it has the token that only such a page was given.
func genuine(w http.ResponseWriter, r *http.Request, csrf string) bool {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if r.ParseForm() != nil || !sameOrigin(r) {
		return false
	}
	return csrf != "" && subtle.ConstantTimeCompare([]byte(r.PostForm.Get("csrf")), []byte(csrf)) == 1
}

// sameOrigin believes the browser when it says that a request came from elsewhere. It says nothing over plain HTTP, and
// "null" from pages with our referrer policy: then the token of the form has to do.
func sameOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return true
	case "":
	default:
		return false
	}
	origin := cmp.Or(r.Header.Get("Origin"), "null")
	if origin == "null" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host == r.Host
}

var ours = regexp.MustCompile(`^/((plans|pools|caches|guests)/[A-Za-z0-9_-]{1,100}|plans|queue)?$`)

// local is a path of a page to go to; what is none is the first page.
func local(path string) string {
	if ours.MatchString(path) {
		return path
	}
	return "/"
}
