// Package gitopstest gives tests real git repositories, and serves them as forges do: over HTTP with git's own backend, and over ssh.
package gitopstest

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// Isolate keeps git, and whoever starts it, from the configuration of the machine.
func Isolate(t testing.TB) {
	t.Helper()
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	t.Setenv("GIT_CONFIG_SYSTEM", os.DevNull)
	for _, name := range []string{"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"} {
		t.Setenv(name, "")
	}
}

// Repo is a bare repository that is pushed to from a checkout.
type Repo struct {
	Dir      string // of the bare repository
	Checkout string
	t        testing.TB
}

// New makes a repository with no commit; its branch is main.
func New(t testing.TB) *Repo {
	t.Helper()
	Isolate(t)
	return Init(t)
}

// Init is New for a test that runs beside others and therefore cannot change the environment of them all: whoever it starts, it
// gives an environment in which git is isolated.
func Init(t testing.TB) *Repo {
	t.Helper()
	top := t.TempDir()
	r := &Repo{Dir: filepath.Join(top, "fleet.git"), Checkout: filepath.Join(top, "checkout"), t: t}
	run(t, top, "init", "-q", "--bare", "-b", "main", r.Dir)
	run(t, top, "init", "-q", "-b", "main", r.Checkout)
	r.Git("remote", "add", "origin", r.Dir)
	return r
}

// FileURL is the repository's URL on this machine.
func (r *Repo) FileURL() string { return "file://" + r.Dir }

// Git runs git in the checkout and returns what it prints.
func (r *Repo) Git(args ...string) string {
	r.t.Helper()
	return run(r.t, r.Checkout, args...)
}

// Write puts files into the checkout.
func (r *Repo) Write(files map[string]string) {
	r.t.Helper()
	for name, text := range files {
		path := filepath.Join(r.Checkout, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
}

// Commit writes files, commits everything in the checkout and returns the commit.
func (r *Repo) Commit(files map[string]string) string {
	r.t.Helper()
	r.Write(files)
	r.Git("add", "-A")
	r.Git("commit", "-q", "--allow-empty", "-m", "change")
	return r.Git("rev-parse", "HEAD")
}

// Push pushes the branch that is checked out, with more arguments of git push if need be.
func (r *Repo) Push(args ...string) {
	r.t.Helper()
	r.Git(append([]string{"push", "-q", "origin", "HEAD"}, args...)...)
}

// CommitAndPush is what a merge does.
func (r *Repo) CommitAndPush(files map[string]string) string {
	r.t.Helper()
	commit := r.Commit(files)
	r.Push()
	return commit
}

func run(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull,
		"GIT_AUTHOR_NAME=Ann", "GIT_AUTHOR_EMAIL=ann@example.org", "GIT_COMMITTER_NAME=Ann", "GIT_COMMITTER_EMAIL=ann@example.org",
		"GIT_TERMINAL_PROMPT=0",
	)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// Server serves a repository over HTTPS or HTTP.
type Server struct {
	URL      string // of the repository
	CertFile string // to be trusted, as in SSL_CERT_FILE; empty: HTTP
	Requests atomic.Int64

	password atomic.Pointer[string]
	down     atomic.Bool
}

// Serve serves a repository over HTTP until the test ends, to everybody.
func (r *Repo) Serve() *Server {
	s := &Server{}
	web := httptest.NewServer(s.handler(r))
	r.t.Cleanup(web.Close)
	s.URL = web.URL + "/fleet.git"
	return s
}

// ServeTLS serves a repository over HTTPS until the test ends, to those who have the password.
func (r *Repo) ServeTLS(password string) *Server {
	r.t.Helper()
	s := &Server{CertFile: filepath.Join(r.t.TempDir(), "cert.pem")}
	s.SetPassword(password)
	web := httptest.NewUnstartedServer(s.handler(r))
	web.Config.ErrorLog = log.New(io.Discard, "", 0) // of clients that do not trust it
	web.StartTLS()
	r.t.Cleanup(web.Close)
	body := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	if err := os.WriteFile(s.CertFile, body, 0o600); err != nil {
		r.t.Fatal(err)
	}
	s.URL = web.URL + "/fleet.git"
	return s
}

// SetPassword sets who may read.
func (s *Server) SetPassword(password string) { s.password.Store(&password) }

// SetDown has every request fail, as a forge does that is being upgraded.
func (s *Server) SetDown(down bool) { s.down.Store(down) }

func (s *Server) handler(r *Repo) http.Handler {
	backend := &cgi.Handler{
		Stderr: io.Discard, Logger: log.New(io.Discard, "", 0),
		Path: filepath.Join(run(r.t, r.Dir, "--exec-path"), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + filepath.Dir(r.Dir), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_CONFIG_SYSTEM=" + os.DevNull},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s.Requests.Add(1)
		if s.down.Load() {
			http.Error(w, "down for maintenance", http.StatusServiceUnavailable)
			return
		}
		_, given, _ := req.BasicAuth()
		if want := s.password.Load(); want != nil && given != *want {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "you gave "+given, http.StatusUnauthorized) // as a careless forge would
			return
		}
		backend.ServeHTTP(w, req)
	})
}
