package integration

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/modules"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/gitops/gitopstest"
	"greenroom/reconcile/plan"
)

// followed is a house whose server follows a directory of a repository: fleet, on the branch main.
type followed struct {
	*house
	repo *gitopstest.Repo
}

// hookSecret is that of every house which follows a repository; a webhook spares the wait for the next look.
const hookSecret = "hook-secret-7d1f0b63"

// follow makes a house that follows a repository, at options.source or else at its path.
func follow(t *testing.T, repo *gitopstest.Repo, o options) *followed {
	t.Helper()
	o.source = cmp.Or(o.source, repo.FileURL()) + "//fleet?ref=main"
	o.args = append([]string{"--specs-every", "300ms"}, o.args...)
	o.env = append(o.env, "GREENROOM_HOOK_SECRET="+hookSecret)
	return &followed{newHouse(t, o), repo}
}

// settle makes a house that follows a repository and has converged to some files in it.
func settle(t *testing.T, repo *gitopstest.Repo, o options, files map[string]string) *followed {
	t.Helper()
	f := follow(t, repo, o)
	f.wants(repo.CommitAndPush(files))
	f.start()
	f.converged()
	return f
}

// spec is the files of a fleet.
func spec(s fmt.Stringer) map[string]string { return map[string]string{"fleet/fleet.hcl": s.String()} }

// wants says that the checkout's commit is to come into force.
func (f *followed) wants(commit string) string {
	f.Helper()
	text := must(os.ReadFile(filepath.Join(f.repo.Checkout, "fleet/fleet.hcl")))(f)
	f.revision, f.pools = commit, strings.Count("\n"+string(text), "\npool \"")
	return commit
}

// merge pushes files, good specs among them, and waits until the fleet has converged to them.
func (f *followed) merge(files map[string]string) (commit string) {
	f.Helper()
	f.wants(f.repo.CommitAndPush(files))
	f.converged()
	return f.revision
}

// delivery is one call of a forge's webhook.
type delivery struct {
	forge, id, body string
	secret          string // empty: it is not signed
}

// pushOf is what forges say of a push to a branch, as far as it matters.
func pushOf(branch string) string { return `{"ref": "refs/heads/` + branch + `", "commits": []}` }

// deliver sends a delivery over TCP as its forge does.
func (h *house) deliver(d delivery) answered {
	h.Helper()
	req := must(http.NewRequest(http.MethodPost, "http://"+h.addr()+"/v1/hooks/"+d.forge, strings.NewReader(d.body)))(h)
	mac := hmac.New(sha256.New, []byte(d.secret))
	mac.Write([]byte(d.body))
	signature := hex.EncodeToString(mac.Sum(nil))
	set := map[string]map[string]string{
		"github": {"X-GitHub-Event": "push", "X-GitHub-Delivery": d.id, "X-Hub-Signature-256": "sha256=" + signature},
		"gitea":  {"X-Gitea-Event": "push", "X-Gitea-Delivery": d.id, "X-Gitea-Signature": signature},
		"gitlab": {"X-Gitlab-Event": "Push Hook", "Idempotency-Key": d.id, "X-Gitlab-Token": d.secret},
	}
	req.Header.Set("Content-Type", "application/json")
	for name, value := range set[d.forge] {
		if d.secret != "" || !strings.HasSuffix(name, "Token") && !strings.Contains(name, "Signature") {
			req.Header.Set(name, value)
		}
	}
	return h.send(req)
}

// poke has the server look at the repository now, whatever pause it makes after failures.
func (f *followed) poke() {
	f.Helper()
	got := f.deliver(delivery{"github", rand.Text(), `{"ref": "refs/heads/main", "nonce": "` + rand.Text() + `"}`, hookSecret})
	if got.status != http.StatusAccepted {
		f.Fatalf("a webhook is answered with %d %s", got.status, got.body)
	}
}

// held waits until the status tells why the newest revision is not in force.
func (f *followed) held(reason, revision string) *condition.Fault {
	f.Helper()
	var fault *condition.Fault
	f.until("the status tells of "+reason, func() error {
		st, err := f.api.Status(f.Context())
		if fault = st.SpecFault; err == nil && (fault == nil || fault.Reason != reason || fault.Revision != revision) {
			err = fmt.Errorf("it tells of %+v", fault)
		}
		return err
	})
	return fault
}

// stays waits until the status tells why the newest revision is not in force, and asserts that the command and the metrics tell
// the same, and that the last good revision is in force and serves leases.
func (f *followed) stays(reason, revision string, texts ...string) *condition.Fault {
	f.Helper()
	fault := f.held(reason, revision)
	st := must(f.api.Status(f.Context()))(f)
	if st.SpecValid || st.Revision != f.revision || fault.Since.IsZero() || fault.Since.After(time.Now()) {
		f.Errorf("valid %t, revision %s in force, want %s; a fault since %v", st.SpecValid, st.Revision, f.revision, fault.Since)
	}
	stdout, _, _ := f.cli("status")
	said := strings.Join(strings.Fields(stdout), " ")
	for _, text := range append(texts, reason+", found ", plan.Short(f.revision), plan.Short(revision)) {
		if !strings.Contains(said, text) {
			f.Errorf("the command does not say %q:\n%s", text, stdout)
		}
	}
	if n := f.metric("greenroom_spec_valid"); n != 0 {
		f.Errorf("greenroom_spec_valid is %v, want 0", n)
	}
	if n := f.metric(fmt.Sprintf("greenroom_spec_info{revision=%q}", f.revision)); n != 1 {
		f.Errorf("greenroom_spec_info of the revision in force is %v, want 1", n)
	}
	since := f.metric(fmt.Sprintf("greenroom_spec_fault_since_seconds{reason=%q,revision=%q}", reason, revision))
	if want := float64(fault.Since.UnixMilli()) / 1000; since != want {
		f.Errorf("greenroom_spec_fault_since_seconds is %v, want %v", since, want)
	}
	f.release(f.acquire().ID)
	return fault
}

// clears waits until the newest revision is in force, and asserts that nothing is told of a fault any more.
func (f *followed) clears() {
	f.Helper()
	f.until("the fault is over", func() error {
		st, err := f.api.Status(f.Context())
		if err == nil && (!st.SpecValid || st.SpecFault != nil || st.Revision != f.revision) {
			err = fmt.Errorf("revision %s, fault %+v", st.Revision, st.SpecFault)
		}
		return err
	})
	if n := f.metric("greenroom_spec_valid"); n != 1 {
		f.Errorf("greenroom_spec_valid is %v, want 1", n)
	}
	if _, text, _ := f.get("/metrics"); strings.Contains(text, "greenroom_spec_fault_since_seconds{") {
		f.Error("the metrics still tell of a fault")
	}
	if stdout, _, _ := f.cli("status"); strings.Contains(stdout, "FAULT") || strings.Contains(stdout, "HELD") {
		f.Errorf("the command still tells of a fault:\n%s", stdout)
	}
}

// rooms is a fleet with scripts and a module of its own, all of which tell which commit they are of.
func rooms(t testing.TB, of fleet, commit string) map[string]string {
	t.Helper()
	of.cache = "  prepare = \"scripts/prepare.sh\"\n  reset   = \"scripts/reset.sh\"\n"
	files := map[string]string{
		"fleet/fleet.hcl":          strings.Replace(of.String(), `module = "local"`, `module = "./modules/room"`, 1),
		"fleet/scripts/prepare.sh": "echo prepared by " + commit + " > prepared\n",
		"fleet/scripts/reset.sh":   "echo reset by " + commit + " > reset\n",
		"fleet.hcl":                "this is not what is followed {\n",
	}
	tree, _ := modules.Lookup("local")
	noError(t, fs.WalkDir(tree, ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			var body []byte
			body, err = fs.ReadFile(tree, name)
			files["fleet/modules/room/"+name] = string(body)
		}
		return err
	}))
	files["fleet/modules/room/outputs.tf"] = `
output "guests" {
  value = {
    for name, facts in terraform_data.facts :
    name => merge(facts.output, { attributes = merge(facts.output.attributes, { room = "` + commit + `" }) })
  }
}
`
	return files
}

// roomIs asserts that the only guest is made, prepared and reset by one commit.
func (f *followed) roomIs(commit string) {
	f.Helper()
	run := func() string {
		stdout, stderr, code := f.cli("run", "--cache", "ci", "--", "cat prepared; cat reset 2>&1")
		if code != 0 && !strings.Contains(stdout, "No such file") {
			f.Errorf("exit status %d: %s%s", code, stdout, stderr)
		}
		return stdout
	}
	if said := run(); !strings.HasPrefix(said, "prepared by "+commit+"\n") || strings.Contains(said, "reset by") {
		f.Errorf("a guest that was never leased says %q, want it prepared by %s", said, commit)
	}
	f.shelved(1)
	if said := run(); !strings.HasPrefix(said, "prepared by "+commit+"\nreset by "+commit+"\n") {
		f.Errorf("a guest that was leased before says %q, want it reset by %s", said, commit)
	}
	f.shelved(1)
	for _, g := range f.guests() {
		if !strings.Contains(string(g.Attributes), `"room":"`+commit+`"`) {
			f.Errorf("guest %s has the attributes %s, want those of %s", g.Name, g.Attributes, commit)
		}
	}
}

func TestAPushConvergesWithItsScriptsAndModules(t *testing.T) {
	t.Parallel()
	one := fleet{max: 1, warm: 1, size: 1}
	t.Run("over https with a token", func(t *testing.T) {
		t.Parallel()
		const right, wrong = "gr-right-token-7f3a9c", "gr-wrong-token-51d2e8"
		repo := gitopstest.Init(t)
		server := repo.ServeTLS(right)
		token := filepath.Join(t.TempDir(), "token")
		noError(t, os.WriteFile(token, []byte(wrong+"\n"), 0o600))
		f := follow(t, repo, options{
			raced: true, source: server.URL, env: []string{"SSL_CERT_FILE=" + server.CertFile}, args: []string{"--specs-token-file", token, "--log-level", "debug"},
		})
		commit := repo.CommitAndPush(rooms(t, one, "one"))
		f.start()
		f.until("the status says that the token is refused", func() error {
			st, err := f.api.Status(t.Context())
			if err == nil && (st.SpecFault == nil || st.SpecFault.Reason != condition.Unauthorized || !strings.Contains(st.SpecFault.Message, token)) {
				err = fmt.Errorf("it says %+v", st.SpecFault)
			}
			return err
		})
		stdout, _, _ := f.cli("status")
		if !strings.Contains(stdout, "SourceUnauthorized") || !strings.Contains(stdout, "nothing is in force yet") {
			t.Errorf("the command says\n%s", stdout)
		}
		noError(t, os.WriteFile(token, []byte("ci:"+right+"\n"), 0o600)) // a name, and a token
		f.poke()
		f.wants(commit)
		f.converged()
		f.clears()
		_, body, _ := f.get("/v1/status")
		_, series, _ := f.get("/metrics")
		for _, secret := range []string{right, wrong} {
			if strings.Contains(stdout+body+series+f.server.log.String(), secret) {
				t.Errorf("the token %s is shown in the status, the metrics or the log", secret)
			}
		}
		f.roomIs("one")
		f.merge(rooms(t, one, "two"))
		f.roomIs("two")
	})
	t.Run("over file", func(t *testing.T) {
		t.Parallel()
		f := settle(t, gitopstest.Init(t), options{}, rooms(t, one, "one"))
		f.roomIs("one")
		f.merge(rooms(t, one, "two"))
		f.roomIs("two")
	})
}

// mishap is something that keeps the newest specs from being had.
type mishap struct {
	name   string
	crash  bool                   // the server is killed meanwhile
	harm   func() (commit string) // empty: none can be read
	reason string
	says   []string
	mend   func() // nil: the commit is reverted
}

func TestWhateverBecomesOfTheSourceTheLastGoodRevisionStaysInForce(t *testing.T) {
	t.Parallel()
	repo := gitopstest.Init(t)
	repo.Git("--git-dir", repo.Dir, "config", "receive.denyDeleteCurrent", "ignore")
	server := repo.Serve()
	f := follow(t, repo, options{raced: true, source: server.URL})
	of := fleet{max: 4, warm: 1, size: 2}
	first := repo.Commit(rooms(t, of, "one"))
	repo.Git("push", "-q", "origin", "HEAD:elsewhere")
	f.start()
	f.until("the status says that there is no such branch", func() error {
		st, err := f.api.Status(t.Context())
		if err == nil && (st.SpecFault == nil || st.SpecFault.Reason != condition.RefMissing || !strings.Contains(st.SpecFault.Message, `"elsewhere"`)) {
			err = fmt.Errorf("it says %+v", st.SpecFault)
		}
		return err
	})
	repo.Push()
	f.wants(first)
	f.converged()
	f.clears()
	held, before := f.acquire(), f.living()
	f.shelved(1)

	good := rooms(t, of, "one")["fleet/fleet.hcl"]
	away := repo.Dir + ".away"
	link := func(to, name string) {
		name = filepath.Join(repo.Checkout, "fleet", name)
		noError(t, os.RemoveAll(name))
		noError(t, os.Symlink(to, name))
	}
	pushed := func(files map[string]string) func() string { return func() string { return repo.CommitAndPush(files) } }
	noise := make([]byte, 64<<10)
	rand.Read(noise)
	for _, m := range []mishap{
		{
			"a fault in a spec", true, pushed(map[string]string{"fleet/fleet.hcl": strings.Replace(good, "max    = 4", `max = "many"`, 1)}),
			condition.SpecInvalid,
			[]string{"fleet.hcl line 4", `max = "many"`, "number"},
			nil,
		},
		{
			"links and paths that lead out", false, func() string {
				link("/etc/passwd", "scripts/reset.sh")
				link("../../top", "modules/room")
				return repo.CommitAndPush(map[string]string{"top/main.tf": "", "fleet/fleet.hcl": strings.Replace(good, "scripts/prepare.sh", "../../../etc/passwd", 1)})
			},
			condition.SpecInvalid,
			[]string{"3 faults", `prepare = "../../../etc/passwd"`, `reset = "scripts/reset.sh"`, `module = "./modules/room"`, "link"},
			nil,
		},
		{"a file that is no text", false, pushed(map[string]string{"fleet/noise.hcl": string(noise)}), condition.SpecInvalid, []string{"noise.hcl"}, nil},
		{
			"expressions that never end", false, pushed(map[string]string{"fleet/hostile.hcl": hostile, "fleet/much.txt": strings.Repeat("much", 200_000)}),
			condition.TooLarge,
			[]string{"MiB of memory", "for, range"},
			nil,
		},
		{
			"no specs where they were", false, func() string { repo.Git("mv", "fleet", "fleets"); return repo.CommitAndPush(nil) },
			condition.SpecInvalid,
			[]string{"has no directory fleet"},
			nil,
		},
		{
			"a branch that is deleted", true, func() string { repo.Git("push", "-q", "origin", ":main"); return "" },
			condition.RefMissing,
			[]string{`no branch or tag "main"`, `"elsewhere"`},
			func() { repo.Push() },
		},
		{
			"a repository that is gone", true, func() string { noError(t, os.Rename(repo.Dir, away)); return "" },
			condition.Unreachable,
			[]string{server.URL, "not found"},
			func() { noError(t, os.Rename(away, repo.Dir)) },
		},
		{
			"a forge that is down", true, func() string { server.SetDown(true); return "" },
			condition.Unreachable,
			[]string{server.URL, "503"},
			func() { server.SetDown(false) },
		},
	} {
		f.part(m.name, func(*testing.T) { f.survives(m) })
	}
	f.part("what strangers upload", f.survivesUploads)

	if now := must(f.api.Lease(t.Context(), held.ID))(t); now.Phase != lease.Active || principal(now.Guest) != principal(held.Guest) {
		t.Errorf("the lease that was held all the time is %+v", now)
	}
	for name, pids := range before {
		if now := f.living()[name]; !slices.Equal(now, pids) {
			t.Errorf("guest %s was process %v and is %v", name, pids, now)
		}
	}
	f.merge(map[string]string{"fleet/fleet.hcl": strings.Replace(good, "warm  = 1", "warm  = 2", 1)})
	f.clears()
	f.shelved(2)
}

// hostile is a spec that would take any machine all of its memory to evaluate.
const hostile = `pool "hostile" {
  module    = "local"
  max       = 1
  user_data = jsonencode([for a in range(100) : [for b in range(100) : "${file("much.txt")}${a}${b}"]])
}
`

func (f *followed) survives(m mishap) {
	f.Helper()
	var commit string
	f.healthyWhile(func() {
		commit = m.harm()
		f.poke()
		f.stays(m.reason, commit, m.says...)
	})
	if m.crash {
		f.kill()
		f.start()
		f.stays(m.reason, commit, m.says...)
	}
	if m.mend != nil {
		m.mend()
	} else {
		f.repo.Git("revert", "--no-edit", "HEAD")
		f.repo.Push()
		f.wants(f.repo.Git("rev-parse", "HEAD"))
	}
	f.poke()
	f.clears()
}

// healthyWhile asserts that the server says all the time that it lives.
func (h *house) healthyWhile(do func()) {
	h.Helper()
	stop, ended := make(chan struct{}), make(chan struct{})
	asked := 0
	go func() {
		defer close(ended)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for ; ; asked++ {
			if status, body, err := h.get("/healthz"); err != nil || status != http.StatusOK {
				h.Errorf("/healthz answers %d %s, %v", status, body, err)
			}
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	defer func() {
		close(stop)
		<-ended
		h.Logf("it was healthy %d times", asked+1)
	}()
	do()
}

// survivesUploads sends archives that are not what they should be, as anybody may who has a token.
func (f *followed) survivesUploads(t *testing.T) {
	mallory := must(f.api.CreateToken(t.Context(), client.NewToken{Name: "mallory", Owner: "web", Role: lease.User}))(t).Secret
	for _, c := range []struct {
		name   string
		body   []byte
		status int
		says   string
	}{
		{"a path that leads out", zipped(t, map[string]string{"fleet.hcl": "", "../out.hcl": ""}), 202, "../out.hcl"},
		{"an absolute path", zipped(t, map[string]string{"fleet.hcl": "", "/tmp/out.hcl": ""}), 202, "/tmp/out.hcl"},
		{"expressions that never end", zipped(t, map[string]string{"fleet.hcl": hostile, "much.txt": strings.Repeat("much", 200_000)}), 202, "MiB of memory"},
		{"a module of the host", zipped(t, map[string]string{"fleet.hcl": "pool \"p\" {\n  module = \"/etc\"\n  max = 1\n}\n"}), 202, "/etc"},
		{"a bomb", zipped(t, map[string]string{"fleet.hcl": "", "bomb.txt": strings.Repeat("0", 65<<20)}), 202, "64 MiB"},
		{"no archive", []byte("PK\x03\x04 and so on"), 202, "no zip"},
		{"too many bytes", make([]byte, 8<<20+1), 413, "8 MiB"},
	} {
		f.part(c.name, func(t *testing.T) {
			f.healthyWhile(func() {
				got := f.upload(mallory, "", c.body)
				if got.status != c.status {
					t.Fatalf("the answer is %d %s, want %d", got.status, got.body, c.status)
				}
				if c.status != http.StatusAccepted {
					if !strings.Contains(got.Detail, c.says) {
						t.Errorf("the answer is %s, want it to say %q", got.body, c.says)
					}
					return
				}
				for _, file := range []string{"/tmp/out.hcl", filepath.Join(f.dir, "out.hcl"), f.path("state/out.hcl"), f.path("state/plans/out.hcl")} {
					if _, err := os.Stat(file); err == nil {
						t.Errorf("there is a file %s", file)
					}
				}
				if p := f.made(mallory, got); p.Phase != plan.Failed || !strings.Contains(p.Error, c.says) {
					t.Errorf("the plan is %s: %q, want it to say %q", p.Phase, p.Error, c.says)
				}
			})
		})
	}
}

func TestALargeRepositoryCostsTheServerNoMemory(t *testing.T) {
	t.Parallel()
	empty := fleet{max: 2}
	peak := map[string]int{}
	for _, size := range []string{"small", "large"} {
		repo := gitopstest.Init(t)
		files := spec(empty)
		if size == "large" {
			for _, dir := range []string{repo.Checkout, repo.Dir} { // else git looks long for what random bytes have in common
				repo.Git("-C", dir, "config", "core.compression", "0")
				repo.Git("-C", dir, "config", "pack.window", "0")
			}
			for i := range 6 {
				noise := make([]byte, 8<<20)
				rand.Read(noise)
				files[fmt.Sprint("images/", i)] = string(noise)
			}
		}
		f := settle(t, repo, options{source: repo.Serve().URL}, files)
		f.merge(spec(fleet{max: 3}))
		status := readProcesses("status")[f.server.cmd.Process.Pid]
		_, rest, _ := strings.Cut(status, "\nVmHWM:")
		peak[size] = must(strconv.Atoi(strings.Fields(rest)[0]))(t)
	}
	t.Logf("the server's peak: %d KiB for a small repository, %d KiB for one of 48 MiB", peak["small"], peak["large"])
	if peak["large"] > peak["small"]+(24<<10) {
		t.Errorf("the server's peak is %d KiB, and %d KiB for a small repository", peak["large"], peak["small"])
	}
}

// loggedAt is when the server has said something after an earlier length of its log.
func (h *house) loggedAt(from int, what string) (at time.Time) {
	h.Helper()
	h.until("the log says "+what, func() error {
		for line := range strings.Lines(h.server.log.String()[from:]) {
			if strings.Contains(line, what) {
				text, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
				at = must(time.Parse(time.RFC3339Nano, text))(h)
				return nil
			}
		}
		return fmt.Errorf("it does not yet")
	})
	return at
}

// refusal is a delivery that must do nothing.
type refusal struct {
	what   string
	d      delivery
	status int
	code   string
}

func TestAWebhookStartsConvergenceAtOnceAndAForgedOneNothing(t *testing.T) {
	t.Parallel()
	const pause = time.Hour // between two looks that no webhook asks for
	repo := gitopstest.Init(t)
	server := repo.Serve()
	file := filepath.Join(t.TempDir(), "secret")
	noError(t, os.WriteFile(file, []byte(hookSecret+"\n"), 0o600))
	began := time.Now()
	f := settle(t, repo, options{raced: true, source: server.URL, args: []string{"--specs-every", pause.String(), "--hook-secret-file", file}}, spec(fleet{max: 8, warm: 1, size: 8}))
	start := f.loggedAt(0, "decided: provision").Sub(began)
	var taken []delivery
	usual := int64(0) // requests of a look that finds something new
	for i, name := range []string{"github", "gitlab", "gitea"} {
		commit := f.repo.CommitAndPush(spec(fleet{max: 8, warm: 2 + i, size: 8}))
		good := delivery{name, rand.Text(), strings.Replace(pushOf("main"), "{", `{"after": "`+commit+`", `, 1), hookSecret}
		changed := func(edit func(*delivery)) delivery { d := good; edit(&d); return d }
		refused := []refusal{
			{"a forged one", changed(func(d *delivery) { d.secret = "hook-secret-of-somebody" }), 401, "forged"},
			{"one that is not signed", changed(func(d *delivery) { d.secret = "" }), 401, "forged"},
			{"one of a forge that nobody knows", changed(func(d *delivery) { d.forge = "bitbucket" }), 404, "not_found"},
			{"one that is too large", changed(func(d *delivery) { d.body += strings.Repeat(" ", 5<<20) }), 413, "too_large"},
			{"one of another branch", changed(func(d *delivery) { d.id, d.body = rand.Text(), pushOf("side/"+name) }), 200, ""},
		}
		for _, d := range taken {
			refused = append(refused, refusal{"one that was taken", d, 409, "replayed"})
		}
		before := server.Requests.Load()
		for _, r := range refused {
			if got := f.deliver(r.d); got.status != r.status || got.Code != r.code {
				t.Errorf("%s: %s is answered with %d %s, want %d %s", name, r.what, got.status, got.body, r.status, r.code)
			}
		}
		if now := must(f.api.Status(t.Context()))(t); now.Revision != f.revision || server.Requests.Load() != before {
			t.Errorf("%s: deliveries that are refused have brought revision %s and %d requests to the repository", name, now.Revision, server.Requests.Load()-before)
		}

		from, sent := len(f.server.log.String()), time.Now()
		if got := f.deliver(good); got.status != http.StatusAccepted {
			t.Fatalf("%s: a webhook is answered with %d %s", name, got.status, got.body)
		}
		f.wants(commit)
		inForce, decided := f.loggedAt(from, "specs are in force").Sub(sent), f.loggedAt(from, "decided: provision").Sub(sent)
		f.converged()
		t.Logf("%s: from the webhook to specs in force %v, to the first decision %v; from the start of the server to its first %v", name, inForce, decided, start)
		if decided > pause/100 {
			t.Errorf("%s: the first decision came after %v: that was no webhook's doing", name, decided)
		}
		asked := server.Requests.Load() - before
		if usual = cmp.Or(usual, asked); asked != usual {
			t.Errorf("%s: the repository was asked %d times, and %d times before", name, asked, usual)
		}
		taken = append(taken, good)
	}
	elsewhere := taken[0]
	elsewhere.forge, elsewhere.id = "gitea", rand.Text()
	if got := f.deliver(elsewhere); got.status != http.StatusConflict {
		t.Errorf("a delivery that was taken of another forge is answered with %d %s, want 409", got.status, got.body)
	}

	f.stop()
	f.args, f.env = []string{"--specs-every", pause.String()}, nil
	f.start()
	if got := f.deliver(delivery{"github", rand.Text(), pushOf("main"), hookSecret}); got.status != http.StatusNotFound {
		t.Errorf("without a secret a webhook is answered with %d %s, want 404", got.status, got.body)
	}
}

// planOf shows a plan and returns what is shown and the exit code.
func (f *followed) planOf(id string, args ...string) (stdout string, code int) {
	f.Helper()
	stdout, stderr, code := f.cli(append([]string{"plan", "show", id}, args...)...)
	if code == 1 {
		f.Errorf("plan show %s: %s", id, stderr)
	}
	return stdout, code
}

func TestRewrittenHistoryIsHeldUntilItsPlanIsApprovedOrADescendantComes(t *testing.T) {
	t.Parallel()
	repo := gitopstest.Init(t)
	scale := func(warm int) map[string]string { return spec(fleet{max: warm, warm: warm, size: warm}) } // no lease makes room for one more
	f := settle(t, repo, options{raced: true}, scale(1))
	base := f.revision
	f.merge(scale(2))
	rewrite := func(warm int) (commit string) {
		repo.Git("reset", "-q", "--hard", base)
		commit = repo.Commit(scale(warm))
		repo.Push("--force")
		return commit
	}

	other := rewrite(3)
	fault := f.stays(condition.NotFastForward, other, "HELD", "does not descend from "+f.revision, "history was rewritten", "greenroom plan approve")
	stalled := condition.Of(must(f.api.Status(t.Context()))(t).Conditions, condition.Stalled)
	if !stalled.Status || stalled.Reason != condition.NotFastForward {
		t.Errorf("the fleet's condition is %+v, want it stalled", stalled)
	}
	if shown, code := f.planOf(fault.Plan); code != 2 || !strings.Contains(shown, "1 to create, 2 kept") || !strings.Contains(shown, "history") {
		t.Errorf("the plan, exit status %d:\n%s", code, shown)
	}
	f.shelved(2)
	if stdout, stderr, code := f.cli("plan", "approve", fault.Plan); code != 0 || !strings.Contains(stdout, "is approved") {
		t.Errorf("approve: exit status %d: %s%s", code, stdout, stderr)
	}
	f.wants(other)
	f.converged()
	f.clears()
	f.shelved(3)

	f.stays(condition.NotFastForward, rewrite(4), "HELD")
	repo.Git("reset", "-q", "--hard", other)
	f.wants(repo.Commit(scale(5)))
	repo.Push("--force")
	f.converged()
	f.clears()
	f.shelved(5)
}

func TestARevisionPastAGuardWaitsForAnAdminAndPassesOnce(t *testing.T) {
	t.Parallel()
	repo := gitopstest.Init(t)
	scale := func(warm int) map[string]string {
		return spec(text("guard {\n  max_retire = \"50%\"\n}\n" + fleet{max: 3, warm: warm, size: warm}.String()))
	}
	f := settle(t, repo, options{raced: true}, scale(3))
	base, alive := f.revision, f.living()
	shrunk := repo.CommitAndPush(scale(0))
	fault := f.stays(condition.GuardExceeded, shrunk, "HELD", "3 of 3", "50%")
	shown, code := f.planOf(fault.Plan, "-o", "json")
	p := decoded[plan.Plan](t, shown)
	if code != 2 || len(p.Breaches) != 1 || p.Summary.Retire != 3 || p.Terraform == nil || len(p.Terraform.Shards) == 0 {
		t.Errorf("the plan, exit status %d: %+v", code, p)
	}
	mallory := must(f.api.CreateToken(t.Context(), client.NewToken{Name: "mallory", Owner: "platform", Role: lease.User}))(t).Secret
	approve := func(token string, p plan.Plan) answered {
		return f.call(token, "POST", "/v1/plans/"+p.ID+"/approve", `{"digest": "`+p.Digest+`"}`)
	}
	if got := approve(mallory, p); got.status != http.StatusForbidden {
		t.Errorf("a user's approval is answered with %d %s, want 403", got.status, got.body)
	}

	f.kill()
	f.start()
	fault = f.stays(condition.GuardExceeded, shrunk, "HELD", "3 of 3", "50%")
	for name, pids := range alive {
		if now := f.living()[name]; !slices.Equal(now, pids) {
			t.Errorf("guest %s was process %v and is %v", name, pids, now)
		}
	}
	shown, _ = f.planOf(fault.Plan, "-o", "json")
	if got := approve("", decoded[plan.Plan](t, shown)); got.status != http.StatusOK {
		t.Fatalf("the approval is answered with %d %s", got.status, got.body)
	}
	f.kill()
	f.start()
	f.wants(shrunk)
	f.converged()
	f.clears()
	f.shelved(0)

	f.part("an approval is used up", func(t *testing.T) {
		repo.Git("reset", "-q", "--hard", base)
		repo.Push("--force")
		back := f.held(condition.NotFastForward, base)
		if _, stderr, code := f.cli("plan", "approve", back.Plan); code != 0 {
			t.Fatal(stderr)
		}
		f.wants(base)
		f.converged()
		f.shelved(3)
		repo.Git("reset", "-q", "--hard", shrunk) // the same change of the same revision
		repo.Push()
		f.stays(condition.GuardExceeded, shrunk, "HELD")
	})
	f.part("an approval waits for the merge, over a crash", func(t *testing.T) {
		repo.Git("reset", "-q", "--hard", base)
		lower := repo.Commit(scale(1))
		repo.Git("push", "-q", "origin", "HEAD:lower")
		shown, _, code := f.cli("plan", "--ref", "lower")
		id := strings.Fields(shown)[1]
		if code != 2 || !strings.Contains(shown, "50%") {
			t.Errorf("exit status %d:\n%s", code, shown)
		}
		if _, stderr, code := f.cli("plan", "approve", id); code != 0 {
			t.Fatal(stderr)
		}
		f.kill()
		f.start()
		f.stays(condition.GuardExceeded, shrunk, "HELD")
		repo.Push("--force")
		f.wants(lower)
		f.converged()
		f.clears()
		f.shelved(1)
	})
	f.merge(spec(fleet{max: 3, warm: 1, size: 1})) // without a guard, so that the fleet can be retired
}
