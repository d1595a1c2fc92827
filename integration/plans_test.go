package integration

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/lease/leasetest"
	"greenroom/reconcile/gitops"
	"greenroom/reconcile/gitops/gitopstest"
	"greenroom/reconcile/plan"
)

// decoded reads JSON that must be whole.
func decoded[V any](t testing.TB, text string) (v V) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %.500q", err, text)
	}
	return v
}

// zipped makes an archive of files, whatever they are called.
func zipped(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		w := must(z.Create(name))(t)
		must(w.Write([]byte(files[name])))(t)
	}
	noError(t, z.Close())
	return out.Bytes()
}

// upload asks for the plan of an archive over TCP, with a token (the first admin's where it is empty).
func (h *house) upload(token, name string, archive []byte) answered {
	h.Helper()
	if token == "" {
		token = h.admin()
	}
	req := must(http.NewRequest(http.MethodPost, "http://"+h.addr()+"/v1/plans?name="+url.QueryEscape(name), bytes.NewReader(archive)))(h)
	req.Header.Set("Content-Type", "application/zip")
	req.Header.Set("Authorization", "Bearer "+token)
	return h.send(req)
}

func (h *house) admin() string {
	h.Helper()
	return strings.TrimSpace(string(must(os.ReadFile(h.path("state/admin.token")))(h)))
}

// made waits until a plan that was asked for is made, Terraform's part included.
func (h *house) made(token string, asked answered) plan.Plan {
	h.Helper()
	p := decoded[plan.Plan](h, asked.body)
	for p.Phase == plan.Making || p.Terraform != nil && p.Terraform.Phase == plan.Making {
		p = decoded[plan.Plan](h, h.call(token, "GET", "/v1/plans/"+p.ID+"?wait=30s", "").body)
	}
	return p
}

// asks asks for the plan of a ref over TCP, and waits until it is made.
func (h *house) asks(token, ref string) plan.Plan {
	h.Helper()
	return h.made(token, h.call(token, "POST", "/v1/plans", `{"ref": "`+ref+`"}`))
}

// branch pushes files to a branch that begins at what is checked out, which stays so.
func (f *followed) branch(name string, files map[string]string) (commit string) {
	f.Helper()
	at := f.repo.Git("rev-parse", "HEAD")
	commit = f.repo.Commit(files)
	f.repo.Git("push", "-q", "origin", "HEAD:refs/heads/"+name)
	f.repo.Git("reset", "-q", "--hard", at)
	return commit
}

func TestAnyRevisionIsPlannedAndNothingIsTouched(t *testing.T) {
	t.Parallel()
	redis := leasetest.Redis(t)
	repo := gitopstest.Init(t)
	f := settle(t, repo, options{raced: true, redis: redis.URL}, spec(fleet{max: 8, warm: 2, size: 2}))
	user := must(f.api.CreateToken(t.Context(), client.NewToken{Name: "ann", Owner: "web", Role: lease.User}))(t).Secret
	more := f.branch("more", spec(fleet{max: 8, warm: 3, size: 3}))
	born := f.branch("born", spec(fleet{max: 8, warm: 2, size: 2, pool: `user_data = "#!/bin/sh\ntrue"`}))
	repo.Git("tag", "-a", "-m", "a release", "v1", more)
	repo.Git("push", "-q", "origin", "v1")

	f.part("by a branch, a tag, a commit or a directory, with exit codes", func(t *testing.T) { f.plansAnything(t, more) })
	f.part("again when the base moves", func(t *testing.T) {
		p := f.asks("", "more")
		old := f.revision
		f.merge(spec(fleet{max: 8, warm: 2, size: 2, pool: `labels = { os = "linux" }`}))
		again := decoded[plan.Plan](t, f.call("", "GET", "/v1/plans/"+p.ID+"?wait=30s", "").body)
		if p.Base != old || again.Base != f.revision || again.Head != more || again.ID != p.ID || again.Phase != plan.Ready || !again.Expires.Equal(p.Expires) {
			t.Errorf("the plan was of base %s, and is of %s, %s to %s; until %v, and %v", p.Base, again.Base, again.Phase, again.Head, p.Expires, again.Expires)
		}
	})
	f.part("in the place of an older one of the same ref", func(t *testing.T) {
		older, newer := f.asks("", "more"), f.asks(user, "more")
		now := decoded[plan.Plan](t, f.call(user, "GET", "/v1/plans/"+older.ID, "").body)
		if now.Phase != plan.Replaced || now.ReplacedBy != newer.ID {
			t.Errorf("the older plan is %s by %s, want replaced by %s", now.Phase, now.ReplacedBy, newer.ID)
		}
		shown, stderr, code := f.cli("plan", "show", older.ID)
		if code != 2 || !strings.Contains(shown, newer.ID) || !strings.Contains(stderr, "replaced by plan "+newer.ID) {
			t.Errorf("plan show, exit status %d: %s%s", code, shown, stderr)
		}
	})
	held := f.acquire()
	f.shelved(2)
	f.converged()
	f.part("without writing anything", func(t *testing.T) { f.writesNothing(t, redis.Client, user, born) })
	f.release(held.ID)
	f.part("while the reconciler goes on", func(t *testing.T) { f.goesOn(t) })
}

// plansAnything runs the command for everything that can be planned, and for what cannot.
func (f *followed) plansAnything(t *testing.T, more string) {
	broken := t.TempDir()
	noError(t, os.WriteFile(filepath.Join(broken, "fleet.hcl"), []byte("pool \"a\" {\n  module = \"local\"\n  max = \"many\"\n}\ncache \"b\" {\n  pools = [pool.c]\n}\n"), 0o600))
	const grows = "Plan: 1 to create, 2 kept, 2 settings changed."
	for _, c := range []struct {
		args []string
		code int
		says []string // on stdout, or on stderr where nothing is planned
	}{
		{[]string{"--ref", "more"}, 2, []string{grows, "Plan ", "of more", "good for 1 hour"}},
		{[]string{"--ref", "refs/heads/more"}, 2, []string{grows}},
		{[]string{"--ref", "v1"}, 2, []string{grows, "of v1"}},
		{[]string{"--ref", more}, 2, []string{grows}},
		{[]string{"--ref", more, "-o", "markdown"}, 2, []string{"<!-- greenroom-plan: " + more + " -->", "1 to create"}},
		{[]string{filepath.Join(f.repo.Checkout, "fleet"), "--name", "pull/12", "-o", "markdown"}, 0, []string{"<!-- greenroom-plan: pull/12 -->", "no changes: 2 kept"}},
		{[]string{"--ref", "main"}, 0, []string{"No changes"}},
		{[]string{"--ref", "main", "-o", "json"}, 0, []string{`"phase": "ready"`}},
		{[]string{"--ref", "nowhere"}, 1, []string{`no branch or tag "nowhere"`, `"main"`, `"more"`}},
		{[]string{"--ref", strings.Repeat("5", 40)}, 1, []string{"no branch has a commit"}},
		{[]string{"--ref", "a..b"}, 1, []string{"no name of a branch"}},
		{[]string{broken}, 1, []string{"max = \"many\"", "pools = [pool.c]", "fleet.hcl line 3", "fleet.hcl line 6"}},
		{[]string{broken, "--ref", "main"}, 1, []string{"--ref names a revision"}},
	} {
		stdout, stderr, code := f.cli(append([]string{"plan"}, c.args...)...)
		said := stdout
		if c.code == 1 {
			said = stderr
		}
		for _, text := range c.says {
			if code != c.code || !strings.Contains(said, text) {
				t.Errorf("plan %q: exit status %d, want %d and %q:\n%s%s", c.args, code, c.code, text, stdout, stderr)
			}
		}
	}
	before := time.Now()
	stdout, _, _ := f.cli("plan", "--ref", "v1", "-o", "json")
	p := decoded[plan.Plan](t, stdout)
	if p.Base != f.revision || p.Head != more || p.Ref != "v1" || p.Terraform == nil || len(p.Terraform.Shards) != 1 || p.Summary.Create != 1 {
		t.Errorf("the plan is %+v", p)
	}
	if early, late := before.Add(time.Hour), time.Now().Add(time.Hour); p.Expires.Before(early) || p.Expires.After(late) {
		t.Errorf("the plan expires at %v, want an hour after it was asked for, %v to %v", p.Expires, early, late)
	}
}

// writesNothing makes plans of all kinds, and asserts that neither the store nor anything of the server's has changed.
func (f *followed) writesNothing(t *testing.T, rdb redis.UniversalClient, user, born string) {
	dir := t.TempDir()
	noError(t, os.WriteFile(filepath.Join(dir, "fleet.hcl"), []byte(fleet{max: 4, warm: 1, size: 1, pool: `user_data = "other"`}.String()), 0o600))
	archive := must(gitops.Zip(dir))(t)
	records, files := dump(t, rdb), f.stateFiles()
	if len(records) < 20 || len(files) < 20 {
		t.Fatalf("%d records, %d files: what is compared is not there", len(records), len(files))
	}
	for name, ask := range map[string]func() plan.Plan{
		"an admin's, of a ref":      func() plan.Plan { return f.asks("", "born") },
		"an admin's, of an archive": func() plan.Plan { return f.made("", f.upload("", "pull/1", archive)) },
		"a user's, of a ref":        func() plan.Plan { return f.asks(user, born) },
		"a user's, of an archive":   func() plan.Plan { return f.made(user, f.upload(user, "pull/2", archive)) },
	} {
		p := ask()
		admin := strings.HasPrefix(name, "an admin")
		if p.Phase != plan.Ready || !p.Summary.Changes() || admin != (p.Terraform != nil) {
			t.Errorf("%s: it is %s %q, %s, Terraform %+v", name, p.Phase, p.Error, p.Summary, p.Terraform)
		}
		if admin && len(resources(p, t)) == 0 {
			t.Errorf("%s: Terraform has planned nothing", name)
		}
		if diff := cmp.Diff(records, dump(t, rdb)); diff != "" {
			t.Errorf("%s: it has changed the store: %s", name, diff)
		}
		if diff := cmp.Diff(files, f.stateFiles()); diff != "" {
			t.Errorf("%s: it has changed files: %s", name, diff)
		}
	}
}

// dump is every record of the store byte by byte, save for the times of the last sweeps, which the clock moves.
func dump(t testing.TB, rdb redis.UniversalClient) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, key := range must(rdb.Keys(t.Context(), "*").Result())(t) {
		if !strings.HasSuffix(key, ":swept") {
			out[key] = must(rdb.Dump(t.Context(), key).Result())(t)
		}
	}
	return out
}

// stateFiles is every file in the state directory with its time and a digest of what is in it, save for those that are there
// for plans. States of Terraform are among them.
func (h *house) stateFiles() map[string]string {
	h.Helper()
	out := map[string]string{}
	noError(h, filepath.WalkDir(h.path("state"), func(path string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(h.path("state"), path)
		if err == nil && e.IsDir() && slices.Contains([]string{"plans", "previewed-modules", "source.git", "guests"}, name) {
			return fs.SkipDir
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			var body []byte
			body, err = os.ReadFile(path)
			out[name] = fmt.Sprintf("%v %v %x", info.Mode(), info.ModTime(), sha256.Sum256(body))
		}
		return err
	}))
	return out
}

// goesOn makes a plan that Terraform cannot finish before the test lets it, and meanwhile the fleet changes.
func (f *followed) goesOn(t *testing.T) {
	gate := filepath.Join(t.TempDir(), "gate")
	noError(t, syscall.Mkfifo(gate, 0o600))
	files := spec(text(fleet{max: 8, warm: 2, size: 2}.String() + "pool \"slow\" {\n  module = \"./slow\"\n  max = 1\n  spare = 1\n}\n"))
	files["fleet/slow/main.tf"] = `
variable "guests" { type = map(object({ incarnation = number, user_data = string })) }
variable "pool" { type = string }
variable "ssh_authorized_keys" { type = list(string) }
resource "terraform_data" "guest" {
  for_each = var.guests
  input    = file("` + gate + `")
}
output "guests" {
  value = { for name, g in terraform_data.guest : name => { id = g.id, host = g.output, port = 1, user = "", host_key = "", attributes = {} } }
}
`
	slow := f.branch("slow", files)
	asked := decoded[plan.Plan](t, f.call("", "POST", "/v1/plans", `{"ref": "slow"}`).body)
	now := func() plan.Plan { return decoded[plan.Plan](t, f.call("", "GET", "/v1/plans/"+asked.ID, "").body) }
	var writer *os.File
	f.until("Terraform reads what is not there yet", func() (err error) {
		writer, err = os.OpenFile(gate, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		return err
	})
	defer writer.Close()
	unfinished := func(when string) {
		t.Helper()
		if p := now(); p.Phase != plan.Making && (p.Terraform == nil || p.Terraform.Phase != plan.Making) {
			t.Errorf("%s: the slow plan is %s, Terraform's part %+v", when, p.Phase, p.Terraform)
		}
	}
	l := f.acquire()
	f.shelved(2)
	unfinished("after a guest was leased and another made in its place")
	f.merge(spec(fleet{max: 8, warm: 3, size: 3}))
	f.shelved(3)
	unfinished("after another revision was carried out")
	f.release(l.ID)

	noError(t, os.WriteFile(gate+".open", []byte("127.0.0.1"), 0o600))
	noError(t, os.Rename(gate+".open", gate))
	noError(t, writer.Close())
	p := f.made("", f.call("", "GET", "/v1/plans/"+asked.ID, ""))
	if p.Phase != plan.Ready || p.Base != f.revision || p.Head != slow || resources(p, t)["create slow-1"] != 1 {
		t.Errorf("the slow plan is %s, of base %s, want %s: %+v", p.Phase, p.Base, f.revision, p.Terraform)
	}
}
