package integration

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oasdiff/yaml"

	"greenroom/lease"
	"greenroom/lease/client"
)

// The files in ci/ are run here as GitHub and GitLab run them: read as YAML, each script in the shell and with the environment
// that it has there, in a checkout of a real repository, against a real server. Only the API for comments is not theirs.

// workflow is GitHub's file. What is not known here fails to be read, because nobody would have run it.
type workflow struct {
	Name        string
	On          string
	Permissions map[string]string
	Concurrency struct {
		Group  string
		Cancel bool `json:"cancel-in-progress"`
	}
	Jobs map[string]struct {
		If       string
		RunsOn   string `json:"runs-on"`
		Timeout  int    `json:"timeout-minutes"`
		Defaults struct{ Run struct{ Shell string } }
		Env      map[string]string
		Steps    []step
	}
}

type step struct {
	Name, If, Uses, Run string
	With                map[string]any
	Env                 map[string]string
}

// template is a job in GitLab's file.
type template struct {
	Stage, Image, Timeout string
	Rules                 []struct{ If string }
	Interruptible         bool
	ResourceGroup         string `json:"resource_group"`
	Variables             map[string]string
	BeforeScript          []string `json:"before_script"`
	Script                []string
}

func readYAML(t testing.TB, name string, into any) {
	t.Helper()
	strict := func(d *json.Decoder) *json.Decoder { d.DisallowUnknownFields(); return d }
	if _, err := yaml.Unmarshal(must(os.ReadFile(filepath.Join("ci", name)))(t), into, yaml.DecodeOpts{}, strict); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func only[V any](t testing.TB, all map[string]V) V {
	t.Helper()
	if len(all) != 1 {
		t.Fatalf("%d jobs, want one", len(all))
	}
	return slices.Collect(maps.Values(all))[0]
}

// checkoutAction is the only action of others that a workflow may use, pinned to a commit.
var checkoutAction = regexp.MustCompile(`^actions/checkout@[0-9a-f]{40}$`)

// ciJob is one run of a file in ci/.
type ciJob struct {
	*house
	forge    *forge
	dir      string            // the checkout
	settings map[string]string // variables and secrets of the repository
	path     string
	fork     bool

	cancelAt string // a line of the log at which the job is cancelled
	cancelBy syscall.Signal
}

// outcome is what became of a job: skipped, or ended with a code.
type outcome struct {
	skipped      bool
	code         int // of the script that failed; 0: none has
	log, summary string
}

// newJob makes a job with a checkout of the repository.
func (h *house) newJob(f *forge, settings map[string]string) *ciJob {
	h.Helper()
	noError(h, os.MkdirAll(h.path("jobs"), 0o700))
	j := &ciJob{house: h, forge: f, dir: must(os.MkdirTemp(h.path("jobs"), "job-"))(h), settings: maps.Clone(settings)}
	if j.settings == nil {
		j.settings = map[string]string{}
	}
	h.git("clone", "--quiet", "--depth", "1", "file://"+h.path("repo"), j.at("src"))
	j.tools("curl", "jq", "greenroom")
	return j
}

func (j *ciJob) at(name string) string { return filepath.Join(j.dir, name) }

// push commits files to the repository.
func (h *house) push(files map[string]string) {
	h.Helper()
	if _, err := os.Stat(h.path("repo")); err != nil {
		h.git("init", "--quiet", "--initial-branch", "main", h.path("repo"))
	}
	for name, text := range files {
		noError(h, os.MkdirAll(filepath.Dir(h.path("repo/"+name)), 0o700))
		noError(h, os.WriteFile(h.path("repo/"+name), []byte(text), 0o600))
	}
	h.git("-C", h.path("repo"), "add", ".")
	h.git("-C", h.path("repo"), "-c", "user.name=alice", "-c", "user.email=alice@example.org", "commit", "--quiet", "--allow-empty", "--message", "change")
}

func (h *house) git(args ...string) {
	h.Helper()
	cmd := exec.Command("git", args...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		h.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
}

// tools makes the job's PATH: the machine's, with some programs that note their arguments, and no other greenroom.
func (j *ciJob) tools(names ...string) {
	j.Helper()
	noError(j, os.RemoveAll(j.at("bin")))
	noError(j, os.Mkdir(j.at("bin"), 0o700))
	j.path = j.at("bin")
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, "greenroom")); err != nil {
			j.path += ":" + dir
		}
	}
	for _, name := range names {
		program := plain
		if name != "greenroom" {
			program = must(exec.LookPath(name))(j)
		}
		text := fmt.Sprintf("#!/bin/sh\necho \"$0 $*\" >> '%s'\nexec '%s' \"$@\"\n", j.at("argv"), program)
		noError(j, os.WriteFile(j.at("bin/"+name), []byte(text), 0o700)) //nolint:gosec // a program
	}
}

// run runs a file of GitHub's or GitLab's, and looks through everything that others can see for secrets.
func (j *ciJob) run(file string) outcome {
	j.Helper()
	run := j.github
	if strings.HasPrefix(file, "gitlab") {
		run = j.gitlab
	}
	o := run(file)
	argv, _ := os.ReadFile(j.at("argv"))
	for name, value := range map[string]string{"the user's token": j.settings["GREENROOM_TOKEN"], "the forge's token": j.forge.token} {
		if value != "" && strings.Contains(o.log+o.summary+string(argv), value) {
			j.Errorf("%s: %s is shown in the log, the summary or the arguments of a program:\n%s%s%s", file, name, o.log, o.summary, argv)
		}
	}
	return o
}

// github runs a workflow as a runner of GitHub's does.
func (j *ciJob) github(file string) outcome {
	j.Helper()
	var w workflow
	readYAML(j, file, &w)
	job := only(j, w.Jobs)
	if job.If != "" && !j.holds(job.If, j.fact) {
		return outcome{skipped: true}
	}
	if job.Defaults.Run.Shell != "bash" {
		j.Fatalf("%s: the shell is %q, and bash is what is tested", file, job.Defaults.Run.Shell)
	}
	for _, name := range []string{"summary", "path"} {
		noError(j, os.WriteFile(j.at(name), nil, 0o600))
	}
	noError(j, os.MkdirAll(j.at("temp"), 0o700))
	var o outcome
	for _, s := range job.Steps {
		if s.Uses != "" {
			continue // the checkout, which is there
		}
		if o.code != 0 && s.If == "" {
			continue
		}
		if s.If != "" && s.If != "success() || failure()" {
			j.Fatalf("%s: nobody knows here what %q means", file, s.If)
		}
		env := map[string]string{
			"PATH": j.path, "HOME": j.dir, "CI": "true", "RUNNER_TEMP": j.at("temp"), "GITHUB_STEP_SUMMARY": j.at("summary"),
			"GITHUB_PATH": j.at("path"), "GITHUB_REPOSITORY": "acme/fleet", "GITHUB_API_URL": j.forge.url + "/api/v3",
		}
		for _, given := range []map[string]string{job.Env, s.Env} {
			for name, text := range given {
				env[name] = expression.ReplaceAllStringFunc(text, func(e string) string { return j.fact(expression.FindStringSubmatch(e)[1]) })
			}
		}
		code, log := j.script(s.Run, env, "bash", "--noprofile", "--norc", "-eo", "pipefail")
		o.log += "## " + s.Name + "\n" + log
		if o.code == 0 {
			o.code = code
		}
		for line := range strings.Lines(string(must(os.ReadFile(j.at("path")))(j))) {
			j.path = strings.TrimSpace(line) + ":" + j.path
		}
	}
	o.summary = string(must(os.ReadFile(j.at("summary")))(j))
	return o
}

var expression = regexp.MustCompile(`\$\{\{ ([^}]*) \}\}`)

// fact is the value of an expression of GitHub's.
func (j *ciJob) fact(name string) string {
	j.Helper()
	kind, rest, _ := strings.Cut(name, ".")
	if secret := strings.HasSuffix(rest, "_TOKEN"); kind == "secrets" && secret || kind == "vars" && !secret {
		return j.settings[rest]
	}
	facts := map[string]string{
		"github.token": j.forge.token, "github.repository": "acme/fleet", "github.event.pull_request.number": "7",
		"github.event.pull_request.head.repo.full_name": map[bool]string{false: "acme/fleet", true: "mallory/fleet"}[j.fork],
	}
	value, known := facts[name]
	if !known {
		j.Fatalf("nobody knows here what %q is", name)
	}
	return value
}

// gitlab runs a template as a runner of GitLab's does: all of it in one shell.
func (j *ciJob) gitlab(file string) outcome {
	j.Helper()
	var jobs map[string]template
	readYAML(j, file, &jobs)
	job := only(j, jobs)
	env := map[string]string{
		"PATH": j.path, "HOME": j.dir, "CI": "true", "TMPDIR": j.dir, "CI_PIPELINE_SOURCE": "merge_request_event", "CI_API_V4_URL": j.forge.url + "/api/v4",
		"CI_PROJECT_PATH": "acme/fleet", "CI_MERGE_REQUEST_IID": "7", "CI_MERGE_REQUEST_PROJECT_ID": "42",
		"CI_MERGE_REQUEST_SOURCE_PROJECT_ID": map[bool]string{false: "42", true: "43"}[j.fork],
	}
	for name, text := range job.Variables {
		env[name] = os.Expand(text, func(name string) string { return env[name] })
	}
	maps.Copy(env, j.settings) // a project's variables win
	if j.forge.token != "" {
		env["GITLAB_TOKEN"] = j.forge.token
	}
	value := func(name string) string {
		if text, err := strconv.Unquote(name); err == nil {
			return text
		}
		return env[strings.TrimPrefix(name, "$")]
	}
	for _, rule := range job.Rules {
		if !j.holds(rule.If, value) {
			return outcome{skipped: true}
		}
	}
	var o outcome
	o.code, o.log = j.script(strings.Join(append(job.BeforeScript, job.Script...), "\n"), env, "sh", "-e")
	return o
}

// holds tells whether a condition of the form "a == b && c == d" holds.
func (j *ciJob) holds(condition string, value func(string) string) bool {
	j.Helper()
	for c := range strings.SplitSeq(condition, " && ") {
		a, b, ok := strings.Cut(c, " == ")
		if !ok {
			j.Fatalf("nobody knows here what %q means", condition)
		}
		if value(a) != value(b) {
			return false
		}
	}
	return true
}

// script runs a script to its end in the checkout, with an environment and nothing else.
func (j *ciJob) script(text string, env map[string]string, shell ...string) (code int, log string) {
	j.Helper()
	noError(j, os.WriteFile(j.at("script"), []byte(text), 0o600))
	ctx, cancel := context.WithTimeout(j.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, shell[0], append(shell[1:], j.at("script"))...)
	cmd.Dir, cmd.WaitDelay = j.at("src"), 10*time.Second
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	out := &watchedLog{at: j.cancelAt, then: func() { cmd.Process.Signal(j.cancelBy) }}
	cmd.Stdout, cmd.Stderr = out, out
	code = exitCode(j, cmd.Run())
	return code, out.String()
}

// watchedLog is a logbook in which a text is waited for.
type watchedLog struct {
	logbook
	at   string
	then func()
}

func (l *watchedLog) Write(p []byte) (int, error) {
	n, err := l.logbook.Write(p)
	if l.at != "" && strings.Contains(l.String(), l.at) {
		l.at = ""
		l.then()
	}
	return n, err
}

// forge is what GitHub and GitLab know of the comments on one pull or merge request, with their API as far as the jobs use it.
type forge struct {
	*testing.T
	url   string
	token string // that a job has

	mu       sync.Mutex
	refuses  bool
	comments []comment
}

// comment has its writer where GitHub puts it and where GitLab does.
type comment struct {
	ID     int    `json:"id"`
	Body   string `json:"body"`
	User   writer `json:"user"`
	Author writer `json:"author"`
}

type writer struct {
	ID    int    `json:"id"`
	Login string `json:"login"`
}

var (
	bot     = writer{ID: 1001, Login: "github-actions[bot]"}
	mallory = writer{ID: 13, Login: "mallory"}
)

// strangersComments is how many others have commented before: more than a page of them.
const strangersComments = 120

func newForge(t *testing.T) *forge {
	f := &forge{T: t, token: "forge-secret-0123456789"}
	for n := range strangersComments {
		f.comments = append(f.comments, comment{ID: 500 + n, Body: fmt.Sprintf("comment %d", n), User: mallory, Author: mallory})
	}
	f.comments[3].Body = "<!-- greenroom-plan: acme/fleet/pull/7 -->\nmine"
	f.comments[4].Body = "<!-- greenroom-plan: acme/fleet/merge_requests/7 -->\nmine"
	mux := http.NewServeMux()
	const hub, lab = "/api/v3/repos/acme/fleet/issues", "/api/v4/projects/42/merge_requests/7/notes"
	for pattern, answer := range map[string]func(*http.Request) (int, any){
		"GET " + hub + "/7/comments": f.list, "POST " + hub + "/7/comments": f.create, "PATCH " + hub + "/comments/{id}": f.update,
		"GET " + lab: f.list, "POST " + lab: f.create, "PUT " + lab + "/{id}": f.update,
		"GET /api/v4/user": func(*http.Request) (int, any) { return http.StatusOK, bot },
	} {
		mux.HandleFunc(pattern, f.guarded(answer))
	}
	mux.HandleFunc("GET /greenroom", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, plain) })
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	f.url = s.URL
	return f
}

func (f *forge) guarded(answer func(*http.Request) (int, any)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		want, got := "Bearer "+f.token, r.Header.Get("Authorization")
		if strings.HasPrefix(r.URL.Path, "/api/v4") {
			want, got = f.token, r.Header.Get("PRIVATE-TOKEN")
		}
		var status int
		var body any
		switch {
		case got != want:
			f.Errorf("%s %s: authorized by %q, want %q", r.Method, r.URL, got, want)
			status, body = http.StatusUnauthorized, map[string]string{"message": "Bad credentials"}
		case f.refuses:
			status, body = http.StatusForbidden, map[string]string{"message": "Resource not accessible by integration"}
		default:
			status, body = answer(r)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(body)
	}
}

func (f *forge) list(r *http.Request) (int, any) {
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(r.URL.Query().Get(name)); err == nil {
			return n
		}
		return otherwise
	}
	size := min(number("per_page", 30), 100)
	from := min((number("page", 1)-1)*size, len(f.comments))
	return http.StatusOK, f.comments[from:min(from+size, len(f.comments))]
}

func (f *forge) create(r *http.Request) (int, any) {
	c := comment{ID: 1000 + len(f.comments), User: bot, Author: bot}
	if !f.read(r, &c) {
		return http.StatusUnprocessableEntity, map[string]string{"message": "Validation Failed"}
	}
	f.comments = append(f.comments, c)
	return http.StatusCreated, c
}

func (f *forge) update(r *http.Request) (int, any) {
	for i := range f.comments {
		c := &f.comments[i]
		switch {
		case strconv.Itoa(c.ID) != r.PathValue("id"):
		case !f.read(r, c):
			return http.StatusUnprocessableEntity, map[string]string{"message": "Validation Failed"}
		default:
			return http.StatusOK, *c
		}
	}
	return http.StatusNotFound, map[string]string{"message": "Not Found"}
}

// read takes the text of a comment from a call.
func (f *forge) read(r *http.Request, c *comment) bool {
	var in struct{ Body string }
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil || in.Body == "" || r.Header.Get("Content-Type") != "application/json" {
		f.Errorf("%s %s: bad JSON or none: %v %v", r.Method, r.URL, err, r.Header)
		return false
	}
	c.Body = in.Body
	return len([]rune(c.Body)) <= 65536
}

// ours asserts that the others' comments are as they were, and returns ours.
func (f *forge) ours() (all []comment) {
	f.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for n, c := range f.comments {
		if c.User == bot {
			all = append(all, c)
		} else if strings.Contains(c.Body, "###") {
			f.Errorf("comment %d of %s was changed to %s", n, c.User.Login, c.Body)
		}
	}
	return all
}

// ciSettings are the settings of a repository whose jobs call the server as a user.
func (h *house) ciSettings() map[string]string {
	h.Helper()
	made := must(h.api.CreateToken(h.Context(), client.NewToken{Name: "pipelines", Owner: "platform", Role: lease.User}))(h)
	return map[string]string{"GREENROOM_SERVER": "http://" + h.addr(), "GREENROOM_TOKEN": made.Secret}
}

// fetched makes a job fetch its greenroom.
func (j *ciJob) fetched() {
	j.Helper()
	j.tools("curl", "jq")
	j.settings["GREENROOM_URL"] = j.forge.url + "/greenroom"
	j.settings["GREENROOM_SHA256"] = fmt.Sprintf("%x", sha256.Sum256(must(os.ReadFile(plain))(j)))
}

var previews, exampleJobs = []string{"github-preview.yml", "gitlab-preview.yml"}, []string{"github-job.yml", "gitlab-job.yml"}

func TestAPreviewIsOneCommentThatFollowsEveryPush(t *testing.T) {
	h := newHouse(t, options{})
	h.write(fleet{max: 3, warm: 1, size: 1})
	h.start()
	h.converged()
	settings := h.ciSettings()
	settings["GREENROOM_SPECS"] = "fleet"
	const hostile = "``` </details> @acme/all <img src=x>"
	for _, file := range previews {
		t.Run(file, func(t *testing.T) {
			f := newForge(t)
			first := 0
			for _, push := range []struct {
				name, spec    string
				fetch, refuse bool
				code          int
				log, comment  []string
				hides         string // must not be in the comment
			}{
				{
					name: "a change", spec: fleet{max: 3, warm: 2, size: 2}.String(), fetch: true,
					log: []string{"There are changes"}, comment: []string{"\n### Greenroom plan: 1 to create, 1 kept", "asked for by `pipelines`"},
				},
				{
					name: "a second push", spec: fleet{max: 3, warm: 3, size: 3}.String(),
					log: []string{"There are changes"}, comment: []string{"\n### Greenroom plan: 2 to create, 1 kept"},
				},
				{
					name: "no change", spec: fleet{max: 3, warm: 1, size: 1}.String(),
					log: []string{"Nothing changes"}, comment: []string{"\n### Greenroom plan: no changes"},
				},
				{
					name: "a fault", spec: fleet{max: 3, warm: 1, size: 1, cache: "  sise = 2 # " + hostile}.String(), code: 1,
					log: []string{"No plan could be made", "sise"}, comment: []string{"\n```text\n", "sise"}, hides: hostile,
				},
				{
					name: "a forge that refuses", spec: fleet{max: 3, warm: 2, size: 2}.String(), refuse: true, code: 1,
					log: []string{"did not take the comment", "Resource not accessible"}, comment: []string{"sise"},
				},
			} {
				h.push(map[string]string{"fleet/fleet.hcl": push.spec})
				j := h.newJob(f, settings)
				if push.fetch {
					j.fetched()
				}
				f.refuses = push.refuse
				o := j.run(file)
				ours := f.ours()
				if o.code != push.code || len(ours) != 1 {
					t.Fatalf("%s: exit code %d, want %d; %d comments, want one\n%s", push.name, o.code, push.code, len(ours), o.log)
				}
				says(t, push.name+": the log", o.log, push.log)
				says(t, push.name+": the comment", ours[0].Body, push.comment)
				if push.hides != "" && strings.Contains(ours[0].Body, push.hides) {
					t.Errorf("%s: the comment tells %q", push.name, push.hides)
				}
				if first == 0 {
					first = ours[0].ID
				}
				if ours[0].ID != first {
					t.Errorf("%s: the comment is %d, and was %d", push.name, ours[0].ID, first)
				}
				if file == "github-preview.yml" && !push.refuse && o.summary != ours[0].Body {
					t.Errorf("%s: the summary is not the comment:\n%s", push.name, cmp.Diff(ours[0].Body, o.summary))
				}
			}
		})
	}
}

func says(t *testing.T, what, text string, want []string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%s says no %q:\n%s", what, w, text)
		}
	}
}

func TestAFaultIsShownBesideItsLineOnGitHub(t *testing.T) {
	h := newHouse(t, options{})
	h.push(map[string]string{"a,b/fleet.hcl": "pool \"local\" {\n  module = \"local\"\n  max    = \"100%\\nmore\"\n}\n"})
	j := h.newJob(newForge(t), map[string]string{"GREENROOM_SERVER": "http://127.0.0.1:1", "GREENROOM_TOKEN": "gr_none", "GREENROOM_SPECS": "a,b"})
	o := j.run("github-preview.yml")
	if want := "\n::error file=a%2Cb/fleet.hcl,line=3::Wrong type: "; o.code != 1 || !strings.Contains(o.log, want) || !strings.Contains(o.log, "100%25") {
		t.Errorf("exit code %d, and no %q in the log:\n%s", o.code, want, o.log)
	}
}

func TestAPreviewWithoutAServerFailsClearly(t *testing.T) {
	t.Parallel() // it mostly waits for the server
	for _, file := range previews {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, options{})
			h.push(map[string]string{"fleet.hcl": fleet{max: 1}.String()})
			f := newForge(t)
			o := h.newJob(f, map[string]string{"GREENROOM_SERVER": "http://127.0.0.1:1", "GREENROOM_TOKEN": "gr_none"}).run(file)
			if o.code != 1 || !strings.Contains(o.log, "cannot reach the server") || !strings.Contains(o.log, "No plan could be made") {
				t.Errorf("exit code %d, want 1 and what failed:\n%s", o.code, o.log)
			}
			if ours := f.ours(); len(ours) > 0 {
				t.Errorf("there is no plan, and these comments: %+v", ours)
			}
		})
	}
}

func TestJobsSayWhichSettingIsMissing(t *testing.T) {
	h := newHouse(t, options{})
	h.push(map[string]string{"fleet.hcl": ""})
	f := newForge(t)
	for _, c := range []struct {
		name string
		edit func(*ciJob)
		says string
	}{
		{"no greenroom", func(j *ciJob) { j.tools("curl", "jq") }, "GREENROOM_URL: is not set"},
		{"no checksum", func(j *ciJob) { j.fetched(); delete(j.settings, "GREENROOM_SHA256") }, "GREENROOM_SHA256: is not set"},
		{"another checksum", func(j *ciJob) { j.fetched(); j.settings["GREENROOM_SHA256"] = strings.Repeat("0", 64) }, "greenroom: FAILED"},
		{"no server", func(j *ciJob) { delete(j.settings, "GREENROOM_SERVER") }, "GREENROOM_SERVER: is not set"},
		{"no token", func(j *ciJob) { delete(j.settings, "GREENROOM_TOKEN") }, "GREENROOM_TOKEN: is not set"},
	} {
		for _, file := range slices.Concat(previews, exampleJobs) {
			j := h.newJob(f, map[string]string{"GREENROOM_SERVER": "http://127.0.0.1:1", "GREENROOM_TOKEN": "gr_none"})
			c.edit(j)
			if o := j.run(file); o.code == 0 || !strings.Contains(o.log, c.says) {
				t.Errorf("%s, %s: exit code %d and no %q:\n%s", file, c.name, o.code, c.says, o.log)
			}
		}
	}
}

func TestRequestsFromForksGetNoPreview(t *testing.T) {
	h := newHouse(t, options{})
	h.push(map[string]string{"fleet.hcl": ""})
	for _, file := range previews {
		j := h.newJob(newForge(t), nil)
		j.fork = true
		if o := j.run(file); !o.skipped {
			t.Errorf("%s has run for a fork:\n%s", file, o.log)
		}
	}
}

func TestWorkflowsAskForLittle(t *testing.T) {
	want := map[string]map[string]string{
		"github-preview.yml": {"contents": "read", "pull-requests": "write"},
		"github-job.yml":     {"contents": "read"},
	}
	for file, permissions := range want {
		var w workflow
		readYAML(t, file, &w)
		if diff := cmp.Diff(permissions, w.Permissions); diff != "" {
			t.Errorf("%s: permissions (-want +got):\n%s", file, diff)
		}
		for _, s := range only(t, w.Jobs).Steps {
			if strings.Contains(s.Run, "${{") {
				t.Errorf("%s: step %q has an expression in its script, where its value would be taken for shell", file, s.Name)
			}
			if s.Uses != "" && (!checkoutAction.MatchString(s.Uses) || s.With["persist-credentials"] != false) {
				t.Errorf("%s uses %s with %v", file, s.Uses, s.With)
			}
		}
	}
}

func TestTheExampleJobWorksInAGuestAndGivesItBack(t *testing.T) {
	h := shop(t, 1)
	settings := h.ciSettings()
	for _, c := range []struct {
		name, check string // check: of the Makefile
		fetch       bool
		cancel      bool
		code        int
		says        string
		outcome     string
	}{
		{name: "tests that pass", check: "test -f data && echo \"in $$PWD\"", fetch: true, says: "in " + h.path("state/"), outcome: "pass"},
		{name: "tests that fail", check: "echo no; exit 3", code: 2, says: "Error 3", outcome: "fail"}, // 2 is make's code
		{name: "a job that is cancelled", check: "echo started; exec sleep 600", cancel: true, code: 130, says: "started", outcome: "fail"},
	} {
		h.push(map[string]string{"Makefile": "check:\n\t@" + c.check + "\n", "data": "some"})
		for file, signal := range map[string]syscall.Signal{"github-job.yml": syscall.SIGINT, "gitlab-job.yml": syscall.SIGTERM} {
			j := h.newJob(newForge(t), settings)
			if c.fetch {
				j.fetched()
			}
			if c.cancel {
				j.cancelAt, j.cancelBy = "started", signal
			}
			if o := j.run(file); o.code != c.code || !strings.Contains(o.log, c.says) {
				t.Errorf("%s, %s: exit code %d, want %d and %q:\n%s", file, c.name, o.code, c.code, c.says, o.log)
			}
			h.gaveBack(c.outcome)
		}
	}
}
