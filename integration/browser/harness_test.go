// Package browser tests the status pages as people meet them: the built binary, real guests, a real Chromium. It is a module
// of its own so that what drives the browser stays out of Greenroom's dependencies.
//
// The docs' screenshots are written by
//
//	go test -C integration/browser -run Screenshots . -args -update
//
// and -look DIR writes a picture of every page that is audited, to be looked at.
package browser

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long a test waits for anything; a machine that is slow gets the time it needs.
const patience = time.Minute

const noPools = "# nothing is wanted\n"

// fleet is what the pages show: two teams, and one cache whose only guest is replaced whenever it is tainted.
const fleet = `
pool "local" {
  module    = "local"
  max       = 8
  spare     = 1
  labels    = { os = "debian-12", arch = "amd64" }
  capacity  = { cpus = 2, memory = 2048 }
  variables = { isolation = "process" }
}

pool "large" {
  module    = "local"
  max       = 4
  variables = { isolation = "process" }
}

cache "ci" {
  owner = "platform"
  pools = [pool.local]
  warm  = 2
  size  = 4
  max   = 6
  reuse { uses = 50 }
}

cache "nightly" {
  owner = "research"
  pools = [pool.large]
  warm  = 1
  size  = 2
  max   = 2
}

pool "single" {
  module    = "local"
  max       = 1
  variables = { isolation = "process" }
}

cache "release" {
  owner = "platform"
  pools = [pool.single]
  warm  = 1
  size  = 1
  max   = 1
  reuse { uses = 20 }
}
`

// house is one server with guests that every test looks at, and the Chromium that they look with.
type house struct {
	dir, binary, url string
	admin            string // token
	jenkins, carol   string // tokens of users, of the teams platform and research
	server           *exec.Cmd
	log              safeBuffer
	browser          context.Context
	sessions         map[string]context.Context // that are signed in, by token
}

var home house

func TestMain(m *testing.M) {
	code := 1
	end, err := home.open()
	if err == nil {
		code = m.Run()
	} else {
		log.Print(err)
	}
	if err := end(); err != nil {
		log.Print(err)
		code = 1
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			log.Print(err)
			code = 1
		}
	}
	os.Exit(code)
}

// open brings everything up; what is returned takes it down again, as far as it came.
func (h *house) open() (end func() error, err error) {
	var enders []func() error
	end = func() error {
		var errs []error
		for _, e := range slices.Backward(enders) {
			errs = append(errs, e())
		}
		return errors.Join(errs...)
	}
	if h.dir, err = os.MkdirTemp("", "gr-"); err != nil {
		return end, err
	}
	enders = append(enders, func() error { return os.RemoveAll(h.dir) })
	h.binary = filepath.Join(h.dir, "greenroom")
	build := exec.Command("go", "build", "-C", "../..", "-trimpath", "-o", h.binary, "./cmd/greenroom")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as the Makefile does, so that both share what is compiled
	if out, err := build.CombinedOutput(); err != nil {
		return end, fmt.Errorf("%v: %w\n%s", build.Args, err, out)
	}
	if err := h.serve(); err != nil {
		return end, err
	}
	enders = append(enders, h.stop)
	h.sessions = map[string]context.Context{}
	var closeBrowser func() error
	h.browser, closeBrowser, err = openBrowser(h.dir)
	if err != nil {
		return end, err
	}
	enders = append(enders, closeBrowser)
	return end, h.settle()
}

// serve starts the server and waits until it answers.
func (h *house) serve() error {
	if err := h.declare(fleet); err != nil {
		return err
	}
	h.server = h.command(context.Background(), "serve", "--specs", "specs", "--listen", "127.0.0.1:0")
	h.server.Stderr = &h.log
	if err := h.server.Start(); err != nil {
		return err
	}
	return h.until("the server answers", func() error {
		_, rest, _ := strings.Cut(h.log.String(), " addr=")
		addr, _, found := strings.Cut(rest, " ")
		if !found {
			return fmt.Errorf("it does not say where it listens:\n%s", h.log.String())
		}
		h.url = "http://" + addr
		_, err := h.get("/healthz")
		return err
	})
}

// settle waits for the guests and makes the tokens.
func (h *house) settle() error {
	secret, err := os.ReadFile(filepath.Join(h.dir, "state", "admin.token"))
	if err != nil {
		return err
	}
	h.admin = strings.TrimSpace(string(secret))
	for token, args := range map[*string][]string{&h.jenkins: {"--name", "jenkins", "--owner", "platform"}, &h.carol: {"--name", "carol", "--owner", "research"}} {
		var made struct{ Token string }
		if err := h.cli(&made, append([]string{"token", "create"}, args...)...); err != nil {
			return err
		}
		*token = made.Token
	}
	return h.until("the guests are shelved", func() error { return h.shelved(map[string]int{"ci": 2, "nightly": 1, "local": 1, "release": 1}) })
}

func (h *house) shelved(want map[string]int) error {
	for cache, n := range want {
		var c struct{ Guests map[string]int }
		if err := h.cli(&c, "cache", "show", cache); err != nil {
			return err
		}
		if c.Guests["shelved"] < n {
			return fmt.Errorf("cache %s has %v", cache, c.Guests)
		}
	}
	return nil
}

// stop retires every guest and ends the server, which must not have to cut off a page that is open.
func (h *house) stop() error {
	err := h.declare(noPools)
	if err == nil {
		err = h.until("every guest is retired", func() error {
			var guests []struct{ Name, State string }
			if err := h.cli(&guests, "guest", "list"); err != nil {
				return err
			}
			if len(guests) > 0 {
				return fmt.Errorf("there are still %v", guests)
			}
			return nil
		})
	}
	err = errors.Join(err, h.server.Process.Signal(syscall.SIGTERM), h.server.Wait())
	for _, bad := range []string{"panic:", "calls were cut off", "could not be rendered"} {
		if strings.Contains(h.log.String(), bad) {
			err = errors.Join(err, fmt.Errorf("the server's log has %q:\n%s", bad, h.log.String()))
		}
	}
	return err
}

// declare puts specs in place, as a commit would.
func (h *house) declare(spec string) error {
	specs := filepath.Join(h.dir, "specs")
	return errors.Join(os.MkdirAll(specs, 0o700), os.WriteFile(filepath.Join(h.dir, "new"), []byte(spec), 0o600),
		os.Rename(filepath.Join(h.dir, "new"), filepath.Join(specs, "fleet.hcl")))
}

// command is the binary as its user would run it, with no trace of another Greenroom.
func (h *house) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, h.binary, args...)
	cmd.Dir = h.dir
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "GREENROOM_") || strings.HasPrefix(v, "TF_")
	}), "GREENROOM_STATE_DIR="+filepath.Join(h.dir, "state"))
	return cmd
}

// cli runs a command to its end and reads its answer.
func (h *house) cli(answer any, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := h.command(ctx, append(args, "-o", "json")...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("greenroom %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(out, answer)
}

// lease is what the tests need of one.
type lease struct {
	ID    string
	Phase string
	Guest struct{ Name string }
}

// call makes a call of the API.
func (h *house) call(token, method, path, body string, answer any) error {
	req, err := http.NewRequest(method, h.url+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	text, err := do(req)
	if err != nil || answer == nil {
		return err
	}
	return json.Unmarshal(text, answer)
}

// post gives an admin's order.
func (h *house) post(path string, body any) error {
	text, err := json.Marshal(body)
	if err != nil || body == nil {
		return errors.Join(err, h.call(h.admin, http.MethodPost, path, "", nil))
	}
	return h.call(h.admin, http.MethodPost, path, string(text), nil)
}

func (h *house) get(path string) (string, error) {
	req, err := http.NewRequest(http.MethodGet, h.url+path, nil)
	if err != nil {
		return "", err
	}
	text, err := do(req)
	return string(text), err
}

func do(req *http.Request) ([]byte, error) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s %s", req.Method, req.URL.Path, resp.Status, text)
	}
	return text, err
}

// lease asks for a guest of a cache; it is given back at the end of the test.
func (h *house) lease(t *testing.T, token, cache string) lease {
	t.Helper()
	var l lease
	noError(t, h.call(token, "POST", "/v1/leases", `{"cache": "`+cache+`", "ttl": "10m"}`, &l))
	t.Cleanup(func() {
		noError(t, h.call(token, "DELETE", "/v1/leases/"+l.ID, "", nil))
	})
	return l
}

// until waits until ok returns nil.
func (h *house) until(what string, ok func() error) error {
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-deadline:
			return fmt.Errorf("waited %v until %s: %w", patience, what, err)
		case <-tick.C:
		}
	}
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// safeBuffer is a buffer that a process writes to while a test reads it.
type safeBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
