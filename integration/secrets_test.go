package integration

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/lease/leasetest"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/gitops"
	"greenroom/reconcile/gitops/gitopstest"
)

// hoard is secrets by what they are of.
type hoard map[string]string

// leaks tells which of them are in a text, as they are or in base64.
func (s hoard) leaks(text string) (out []string) {
	for _, what := range slices.Sorted(maps.Keys(s)) {
		for _, form := range []string{s[what], base64.StdEncoding.EncodeToString([]byte(s[what]))[:len(s[what])]} {
			if i := strings.Index(text, form); i >= 0 {
				out = append(out, fmt.Sprintf("%s in …%q…", what, text[max(0, i-200):min(len(text), i+len(form)+40)]))
				break
			}
		}
	}
	return out
}

func (s hoard) with(more hoard) hoard {
	all := maps.Clone(s)
	maps.Copy(all, more)
	return all
}

// dens are the files of a fleet whose guests are born of secrets: a pool that works, and one whose runs fail and shout them.
func dens(t testing.TB, s hoard) map[string]string {
	t.Helper()
	variables := func(fails string) string {
		return fmt.Sprintf(`
  module    = "./modules/den"
  variables = {
    motto     = %q
    api_token = %q
    settings  = { db = { password = %q, host = "db" } }
    dsn       = "postgres://app:%s@db/app"
    fails     = %s
  }
  user_data = "#!/bin/sh\n: %s\n"
`, s["a variable declared sensitive"], s["a variable named so"], s["a variable deep inside"], s["the password of a URL"], fails, s["user data"])
	}
	files := rooms(t, fleet{}, "den")
	out := map[string]string{"fleet/fleet.hcl": fmt.Sprintf(`
pool "local" {%s  max = 4
}

pool "broken" {%s  max = 1
  spare = 1
}

cache "ci" {
  owner = "platform"
  pools = [pool.local]
  warm  = 1
  size  = 2
}
`, variables("false"), variables("true"))}
	for name, body := range files {
		if to, ok := strings.CutPrefix(name, "fleet/modules/room/"); ok {
			out["fleet/modules/den/"+to] = body
		}
	}
	out["fleet/modules/den/outputs.tf"] = `
output "guests" {
  value = {
    for name, facts in terraform_data.facts :
    name => merge(facts.output, { attributes = merge(facts.output.attributes, { password = sha256("${name} of ${var.pool}") }) })
  }
}

output "minted" {
  value     = terraform_data.minted.output
  sensitive = true
}
`
	out["fleet/modules/den/secrets.tf"] = `
variable "motto" {
  type      = string
  sensitive = true
}
variable "api_token" { type = string }
variable "settings" { type = any }
variable "dsn" { type = string }
variable "fails" { type = bool }

resource "terraform_data" "minted" {
  input = sensitive(sha256("minted for ${var.pool}"))
}

resource "terraform_data" "config" {
  for_each         = var.guests
  triggers_replace = each.value.incarnation
  input = {
    motto    = var.motto
    plain    = var.api_token
    note     = "call it with ${var.api_token}."
    coded    = base64encode(var.api_token)
    settings = var.settings
    list     = [var.dsn, var.settings.db.password]
    minted   = terraform_data.minted.output
    password = sha256("${each.key} of ${var.pool}")
    born     = each.value.user_data
  }

  provisioner "local-exec" {
    command = var.fails ? "echo said: \"$A\" \"$B\" \"$C\" \"$D\" \"$E\" \"$F\"; env >&2; exit 1" : "true"
    environment = {
      A = var.api_token
      B = var.settings.db.password
      C = var.dsn
      D = each.value.user_data
      E = base64encode(var.api_token)
      F = nonsensitive(var.motto)
    }
  }
}
`
	return out
}

func hexSum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// planted are the secrets that are planted for a test.
func planted(generation string) hoard {
	s := hoard{}
	for _, what := range []string{"a variable declared sensitive", "a variable named so", "a variable deep inside", "the password of a URL", "user data"} {
		s[what] = "planted-" + hexSum(what + generation)[:24]
	}
	return s
}

// visitor is somebody who has a token, with everything that they see.
type visitor struct {
	*house
	name, token string
	seen        map[string]string // by where
}

// looks asks the API for everything that can be asked for.
func (v *visitor) looks() {
	v.Helper()
	paths := []string{"/metrics", "/readyz", "/v1/status", "/v1/pools", "/v1/pools/broken", "/v1/shards", "/v1/caches", "/v1/leases", "/v1/plans", "/v1/guests", "/v1/caches/ci/guests", "/v1/tokens"}
	for _, g := range must(v.api.Guests(v.Context(), ""))(v) {
		paths = append(paths, "/v1/guests/"+g.Name, "/v1/guests/"+g.Name+"/events?n=200")
	}
	for _, p := range must(v.api.Plans(v.Context()))(v) {
		paths = append(paths, "/v1/plans/"+p.ID+"?wait=30s")
	}
	for _, path := range paths {
		v.seen["GET "+path] += v.call(v.token, "GET", path, "").body
	}
}

// says runs a command as the visitor.
func (v *visitor) says(args ...string) string {
	v.Helper()
	cmd := v.command(args...)
	cmd.Env = append(cmd.Env, "GREENROOM_SERVER=http://"+v.addr(), "GREENROOM_TOKEN="+v.token)
	out, err := cmd.CombinedOutput()
	if code := exitCode(v, err); code == 1 {
		v.Errorf("%s: %v: %s", v.name, args, out)
	}
	v.seen[strings.Join(args, " ")] += string(out)
	return string(out)
}

var formToken = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// browses signs in and reads the pages.
func (v *visitor) browses() {
	v.Helper()
	jar := must(cookiejar.New(nil))(v)
	web := &http.Client{Jar: jar, Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	read := func(method, path string, form url.Values) string {
		v.Helper()
		req := must(http.NewRequest(method, "http://"+v.addr()+path, strings.NewReader(form.Encode())))(v)
		if method == http.MethodPost {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		resp, err := web.Do(req)
		noError(v, err)
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			v.Errorf("%s: %s answers %d", v.name, path, resp.StatusCode)
		}
		return string(must(io.ReadAll(resp.Body))(v))
	}
	form := formToken.FindStringSubmatch(read(http.MethodGet, "/signin", nil))
	if form == nil {
		v.Fatal("the form for signing in has no token")
	}
	page := read(http.MethodPost, "/signin", url.Values{"csrf": {form[1]}, "token": {v.token}, "next": {"/plans"}})
	if !strings.Contains(page, "/plans/") {
		v.Errorf("%s: the page of plans names none:\n%s", v.name, page)
	}
	v.seen["the page /plans"] += page
	for _, p := range must(v.api.Plans(v.Context()))(v) {
		v.seen["the page of plan "+p.ID] += read(http.MethodGet, "/plans/"+p.ID, nil)
	}
}

// watchArguments looks at the arguments of all processes until stop, and returns those that had a secret in them.
func watchArguments(s hoard) (stop func() []string) {
	var found []string
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			for _, line := range readProcesses("cmdline") {
				found = append(found, s.leaks(strings.ReplaceAll(line, "\x00", " "))...)
			}
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	}()
	return sync.OnceValue(func() []string {
		close(done)
		<-ended
		return found
	})
}

func TestNoSecretIsShownAnywhere(t *testing.T) {
	t.Parallel()
	redis := leasetest.Redis(t)
	now, next := planted("now"), planted("next")
	server := hoard{
		"the token of the repository": "planted-token-" + hexSum("token")[:24], "the password of Redis": "planted-redis-" + hexSum("redis")[:24],
		"the secret of webhooks": hookSecret, "the server's environment": "planted-env-" + hexSum("env")[:24],
	}
	minted := hoard{"a sensitive output": hexSum("minted for local"), "a sensitive output of a pool that fails": hexSum("minted for broken")}
	handed := hoard{} // what guests tell their holders
	for i := range 4 {
		name := lease.GuestName("local", i+1)
		handed["an attribute of guest "+name] = hexSum(name + " of local")
	}
	noError(t, redis.Client.Do(t.Context(), "ACL", "SETUSER", "greenroom", "on", ">"+server["the password of Redis"], "~*", "&*", "+@all").Err())
	repo := gitopstest.Init(t)
	forge := repo.ServeTLS(server["the token of the repository"])
	token := filepath.Join(t.TempDir(), "token")
	noError(t, os.WriteFile(token, []byte(server["the token of the repository"]), 0o600))
	f := follow(t, repo, options{
		raced: true, source: forge.URL, redis: strings.Replace(redis.URL, "unix://", "unix://greenroom:"+server["the password of Redis"]+"@", 1),
		args: []string{"--specs-token-file", token, "--log-level", "debug"},
		env: []string{
			"SSL_CERT_FILE=" + forge.CertFile, "AWS_SECRET_ACCESS_KEY=" + server["the server's environment"],
			"TF_VAR_api_token=" + server["the server's environment"], "GREENROOM_SECRET=" + server["the server's environment"],
		},
	})
	secrets := now.with(server).with(minted)
	for what, secret := range next {
		secrets["next: "+what] = secret
	}
	arguments := watchArguments(secrets.with(handed))
	t.Cleanup(func() { arguments() })
	repo.CommitAndPush(dens(t, now))
	f.start()
	f.shelved(1)
	f.fails()
	f.branch("next", dens(t, next))

	admin := &visitor{f.house, "an admin", f.admin(), map[string]string{}}
	stranger := &visitor{f.house, "a user of another team", must(f.api.CreateToken(t.Context(), client.NewToken{Name: "mallory", Owner: "web", Role: lease.User}))(t).Secret, map[string]string{}}
	archive := must(gitops.Zip(filepath.Join(repo.Checkout, "fleet")))(t)
	for _, v := range []*visitor{admin, stranger} {
		for _, form := range [][]string{{"-o", "text"}, {"--full"}, {"-o", "json"}, {"-o", "markdown"}} {
			shown := v.says(append([]string{"plan", "--ref", "next"}, form...)...)
			if form[0] == "--full" && v == admin != strings.Contains(shown, "(sensitive)") {
				t.Errorf("%s: the plan does not tell Terraform's part as it should:\n%s", v.name, shown)
			}
		}
		f.made(v.token, f.upload(v.token, "an upload", archive))
		v.browses()
	}
	l := f.acquire()
	secrets["the token of an admin"], secrets["the token of a user"], secrets["the token of a lease"] = admin.token, stranger.token, l.Token
	env, _, _ := f.cli("run", "--lease", l.ID, "--", "env; cat /proc/$PPID/environ")
	if found := server.leaks(env); found != nil {
		t.Errorf("a guest knows secrets of the server: %v", found)
	}
	for _, v := range []*visitor{admin, stranger} {
		v.looks()
	}

	// A bad revision, with the fault in a line that has a secret; then a good one.
	bad := dens(t, next)["fleet/fleet.hcl"]
	bad = strings.Replace(bad, `settings  = {`, `settings  = { nobody = local.nowhere,`, 1)
	bad = strings.Replace(bad, `  user_data = "`, `  user_data = "${nowhere}`, 1)
	f.wants(repo.Git("rev-parse", "HEAD"))
	f.stays(condition.SpecInvalid, repo.CommitAndPush(map[string]string{"fleet/fleet.hcl": bad}), "local.nowhere")
	for _, v := range []*visitor{admin, stranger} {
		v.says("status")
		f.made(v.token, f.call(v.token, "POST", "/v1/plans", `{"ref": "main"}`))
		v.looks()
		v.browses()
	}
	f.release(l.ID)
	old := f.guests()["local-1"].Digest
	repo.CommitAndPush(dens(t, next))
	f.until("the guests are those of the next revision", func() error {
		c, err := f.api.Cache(t.Context(), "ci")
		for _, g := range f.guests() {
			if err == nil && g.Pool == "local" && (g.Digest == old || c.Guests[lease.Shelved] < 1) {
				err = fmt.Errorf("guest %s is %s", g.Name, g.State)
			}
		}
		return err
	})
	f.fails()
	for _, v := range []*visitor{admin, stranger} {
		for _, args := range [][]string{
			{"status"},
			{"status", "-o", "json"},
			{"guest", "list"},
			{"guest", "events", "local-1"},
			{"guest", "events", "broken-1"},
			{"pool", "show", "broken"},
			{"cache", "list"},
			{"plan", "list"},
		} {
			v.says(args...)
		}
		v.looks()
	}

	for _, v := range []*visitor{admin, stranger} {
		for where, text := range v.seen {
			hidden := secrets.with(handed)
			if v == admin && strings.Contains(where, "/guests") && !strings.HasSuffix(where, "/events?n=200") {
				hidden = secrets // whoever may lease a guest may know what is in it
			}
			for _, found := range hidden.leaks(text) {
				t.Errorf("%s sees in %q %s", v.name, where, found)
			}
		}
	}
	for _, found := range secrets.with(handed).leaks(f.server.log.String()) {
		t.Errorf("the log has %s", found)
	}
	for _, found := range arguments() {
		t.Errorf("a process has as argument %s", found)
	}
	f.keepsFiles(t, secrets.with(handed), now)
	t.Logf("looked at %d answers, pages and outputs of commands, and %d bytes of log", len(admin.seen)+len(stranger.seen), len(f.server.log.String()))
}

// fails waits until the pool whose runs shout secrets has failed, and asserts that what it says is told without them.
func (f *followed) fails() {
	f.Helper()
	f.until("the pool that fails says so", func() error {
		p, err := f.api.Pool(f.Context(), "broken")
		c := condition.Of(p.Conditions, condition.Waiting)
		if err == nil && (!c.Status || !strings.Contains(c.Message, "said: (sensitive) (sensitive) postgres://app:(sensitive)@db/app (sensitive)")) {
			err = fmt.Errorf("its conditions are %+v", p.Conditions)
		}
		return err
	})
}

// keepsFiles asserts that no file that others may read has a secret, while those that the server needs are there.
func (f *followed) keepsFiles(t *testing.T, secrets, needed hoard) {
	kept := map[string]bool{}
	noError(t, filepath.WalkDir(f.path("state"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		body := string(must(os.ReadFile(path))(t))
		found := secrets.leaks(body)
		if info.Mode().Perm()&0o077 != 0 && found != nil {
			t.Errorf("file %s (%v) has %v", path, info.Mode(), found)
		}
		for what, secret := range needed {
			kept[what] = kept[what] || strings.Contains(body, secret)
		}
		return nil
	}))
	if info := must(os.Stat(f.path("state")))(t); info.Mode().Perm() != 0o700 {
		t.Errorf("the state directory is %v", info.Mode())
	}
	for what := range needed {
		if !kept[what] {
			t.Errorf("%s is in no file at all: it was not planted", what)
		}
	}
}
