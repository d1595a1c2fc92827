package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oasdiff/yaml"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/lease/leasetest"
)

// rules are those of prometheus/rules.yml.
type rules struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []rule `json:"rules"`
	} `json:"groups"`
}

type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func inYAML[V any](t testing.TB, path string) (v V) {
	t.Helper()
	if _, err := yaml.Unmarshal(must(os.ReadFile(path))(t), &v, yaml.DecodeOpts{}); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return v
}

func TestPromtoolPassesTheRulesAndTheirTests(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"check", "rules", "rules.yml"}, {"check", "config", "prometheus.yml"}, {"test", "rules", "rules_test.yml"},
	} {
		cmd := exec.Command("promtool", args...)
		cmd.Dir = "prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

func TestEachAlertSaysWhatToDoAndIsTestedBothWays(t *testing.T) {
	book := string(must(os.ReadFile("../docs/runbooks.md"))(t))
	type tests struct {
		Tests []struct {
			Cases []struct {
				Alert  string `json:"alertname"`
				Expect []any  `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		} `json:"tests"`
	}
	fires, rests := map[string]bool{}, map[string]bool{}
	for _, test := range inYAML[tests](t, "prometheus/rules_test.yml").Tests {
		for _, c := range test.Cases {
			fires[c.Alert] = fires[c.Alert] || len(c.Expect) > 0
			rests[c.Alert] = rests[c.Alert] || len(c.Expect) == 0
		}
	}
	for _, group := range inYAML[rules](t, "prometheus/rules.yml").Groups {
		for _, r := range group.Rules {
			if r.For == "" || !slices.Contains([]string{"critical", "warning"}, r.Labels["severity"]) || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s lacks for, severity, summary or description: %+v", r.Alert, r)
			}
			if !strings.HasSuffix(r.Annotations["runbook_url"], "docs/runbooks.md#"+strings.ToLower(r.Alert)) || !strings.Contains(book, "\n## "+r.Alert+"\n") {
				t.Errorf("%s has no runbook at %q", r.Alert, r.Annotations["runbook_url"])
			}
			if !fires[r.Alert] || !rests[r.Alert] {
				t.Errorf("%s is not tested to fire (%t) and not to fire (%t)", r.Alert, fires[r.Alert], rests[r.Alert])
			}
		}
	}
}

func TestTheCommandsInTheRunbooksAreThere(t *testing.T) {
	t.Parallel()
	book := string(must(os.ReadFile("../docs/runbooks.md"))(t))
	written := regexp.MustCompile("(?m)^greenroom [^|#\n]+|`greenroom [^`]+`").FindAllString(book, -1)
	if len(written) < 20 {
		t.Errorf("only these commands are found: %q", written)
	}
	for _, line := range written {
		line = strings.TrimSpace(strings.Trim(line, "`"))
		cmd := exec.Command("sh", "-c", line+" --help")
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(plain)+":"+os.Getenv("PATH"))
		help, err := cmd.CombinedOutput()
		if name := regexp.MustCompile(`^greenroom( [a-z][a-z-]*)*`).FindString(line); err != nil || !strings.Contains(string(help), "Usage:\n  "+name) {
			t.Errorf("%s: %v, is no command: %.200s", line, err, help)
		}
	}
}

func TestGrafanaFindsWhatComposeAndProvisioningBring(t *testing.T) {
	type compose struct {
		Services map[string]struct {
			Environment map[string]string `json:"environment"`
			Volumes     []string          `json:"volumes"`
		} `json:"services"`
	}
	mounts, services := map[string]string{}, inYAML[compose](t, "grafana/compose.yaml").Services
	for _, s := range services {
		for _, v := range s.Volumes {
			if from, to, _ := strings.Cut(v, ":"); strings.HasPrefix(from, ".") {
				mounts[strings.TrimSuffix(to, ":ro")] = filepath.Join("grafana", from)
			}
		}
	}
	for to, from := range mounts {
		if _, err := os.Stat(from); err != nil {
			t.Errorf("%s: %v", to, err)
		}
	}
	type provisioning struct {
		Providers   []struct{ Options struct{ Path string } }
		Datasources []struct {
			URL      string `json:"url"`
			JSONData struct{ TimeInterval string }
		}
	}
	boards := inYAML[provisioning](t, "grafana/provisioning/dashboards/greenroom.yaml").Providers[0].Options.Path
	home := services["grafana"].Environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
	if _, err := os.Stat(filepath.Join(mounts[boards], filepath.Base(home))); err != nil || filepath.Dir(home) != boards || mounts[boards] != "grafana/dashboards" {
		t.Errorf("Grafana looks for dashboards in %s, and begins with %s: %v", boards, home, err)
	}
	source := inYAML[provisioning](t, "grafana/provisioning/datasources/prometheus.yaml").Datasources[0]
	interval := inYAML[struct {
		Global struct {
			Every string `json:"scrape_interval"`
		}
	}](t, "prometheus/prometheus.yml").Global.Every
	if source.URL != "http://localhost:9090" || source.JSONData.TimeInterval != interval {
		t.Errorf("the data source is %+v, and a scrape comes every %s", source, interval)
	}
}

// prometheus is a real one that scrapes a house every second, by the configuration that is shipped. It does so twice, as
// instance one and two: that is what two servers on one store look like.
type prometheus struct {
	*house
	url string
}

// prometheus starts one. Alerts fire as soon as their expression is true, and a queue is old after a second.
func (h *house) prometheus() *prometheus {
	h.Helper()
	noError(h, os.Mkdir(h.path("prometheus"), 0o700))
	alerts := inYAML[rules](h, "prometheus/rules.yml")
	for _, group := range alerts.Groups {
		for i := range group.Rules {
			group.Rules[i].For = "0s"
			group.Rules[i].Expr = strings.ReplaceAll(group.Rules[i].Expr, "> 600", "> 1")
		}
	}
	config := inYAML[map[string]any](h, "prometheus/prometheus.yml")
	config["global"] = map[string]any{"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "500ms"}
	job := config["scrape_configs"].([]any)[0].(map[string]any)
	var targets []any
	for _, instance := range []string{"one", "two"} {
		targets = append(targets, map[string]any{"targets": []string{h.addr()}, "labels": map[string]string{"instance": instance}})
	}
	job["static_configs"] = targets
	for name, v := range map[string]any{"rules.yml": alerts, "prometheus.yml": config} {
		noError(h, os.WriteFile(h.path("prometheus/"+name), must(json.Marshal(v))(h), 0o600)) // JSON is YAML
	}

	var said logbook
	cmd := exec.Command("prometheus", "--config.file", h.path("prometheus/prometheus.yml"), "--storage.tsdb.path", h.path("prometheus/data"),
		"--web.listen-address", "127.0.0.1:0")
	cmd.Stderr = &said
	noError(h, cmd.Start())
	h.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			h.Errorf("prometheus ended with %v\n%s", err, &said)
		}
	})
	p := &prometheus{house: h}
	listening := regexp.MustCompile(`msg="Listening on" address=(\S+)`)
	h.until("prometheus listens", func() error {
		m := listening.FindStringSubmatch(said.String())
		if m == nil {
			return errors.New(said.String())
		}
		p.url = "http://" + m[1]
		return nil
	})
	return p
}

// ask calls Prometheus' API.
func (p *prometheus) ask(path string, args url.Values, result any) error {
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(p.url + path + "?" + args.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, body)
	}
	return json.Unmarshal(body, &struct {
		Data any `json:"data"`
	}{result})
}

// query is what a panel, an annotation, a variable or an alert asks.
type query struct {
	expr string
	over bool // the time that is shown, not only this moment
}

// result is what came of it: one value of each series, or several.
type result []struct {
	Metric map[string]string `json:"metric"`
	Value  [2]any            `json:"value"`
	Values [][2]any          `json:"values"`
}

func (r result) bySeries() map[string]any {
	out := map[string]any{}
	for _, one := range r {
		out[fmt.Sprint(one.Metric)] = one.Value[1]
	}
	return out
}

func (p *prometheus) run(q query, at time.Time) (result, error) {
	var got struct {
		Result result `json:"result"`
	}
	path, args := "/api/v1/query", url.Values{"query": {q.expr}, "time": {unix(at)}}
	if q.over {
		path, args = "/api/v1/query_range", url.Values{"query": {q.expr}, "start": {unix(at.Add(-time.Minute))}, "end": {unix(at)}, "step": {"5"}}
	}
	err := p.ask(path, args, &got)
	return got.Result, err
}

func unix(at time.Time) string { return strconv.FormatFloat(float64(at.UnixMilli())/1000, 'f', 3, 64) }

// hasData fails unless a query gives at least one number.
func (p *prometheus) hasData(q query) error {
	got, err := p.run(q, time.Now())
	if err != nil {
		return err
	}
	for _, r := range got {
		for _, v := range append(r.Values, r.Value) {
			text, _ := v[1].(string)
			if n, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(n) && !math.IsInf(n, 0) {
				return nil
			}
		}
	}
	return fmt.Errorf("no number in %v", got)
}

// firing lists the alerts that fire, each with the labels that say of what.
func (p *prometheus) firing() (names []string, err error) {
	var got struct {
		Alerts []struct {
			State  string            `json:"state"`
			Labels map[string]string `json:"labels"`
		} `json:"alerts"`
	}
	err = p.ask("/api/v1/alerts", nil, &got)
	for _, a := range got.Alerts {
		name := a.Labels["alertname"]
		for _, of := range []string{"pool", "cache", "reason"} {
			if v := a.Labels[of]; v != "" {
				name += " " + v
			}
		}
		if a.State == "firing" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), err // of both instances
}

// fires waits until an alert fires.
func (p *prometheus) fires(name string) {
	p.Helper()
	p.until("the alert "+name+" fires", func() error {
		now, err := p.firing()
		if err == nil && !slices.Contains(now, name) {
			err = fmt.Errorf("these fire: %q", now)
		}
		return err
	})
}

// chosen puts values in place of every variable, as Grafana does.
func chosen(server, pool, cache string) *strings.Replacer {
	return strings.NewReplacer("$__rate_interval", "30s", "$__range", "1m", "$__interval", "1s", "$server", server, "$pool", pool, "$cache", cache)
}

// everything is Grafana's choice at first.
var everything = chosen(".*", ".*", ".*")

type dashboard struct {
	Title       string
	Annotations struct{ List []struct{ Name, Expr string } }
	Templating  struct {
		List []struct{ Name, Definition string }
	}
	Panels []struct {
		Title   string
		Targets []struct {
			RefID, Expr string
			Range       bool
		}
	}
}

// queries are all that the dashboards ask, by who asks.
func queries(t testing.TB, choice *strings.Replacer) map[string]query {
	t.Helper()
	out := map[string]query{}
	files := must(filepath.Glob("grafana/dashboards/*.json"))(t)
	values := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`)
	for _, file := range files {
		d := decoded[dashboard](t, string(must(os.ReadFile(file))(t)))
		for _, a := range d.Annotations.List {
			out[d.Title+" / "+a.Name] = query{choice.Replace(a.Expr), true}
		}
		for _, v := range d.Templating.List {
			if m := values.FindStringSubmatch(v.Definition); m != nil {
				out[d.Title+" / $"+v.Name] = query{choice.Replace(fmt.Sprintf("count by (%s) (%s)", m[2], m[1])), false}
			}
		}
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				out[d.Title+" / "+p.Title+" / "+q.RefID] = query{choice.Replace(q.Expr), q.Range}
			}
		}
	}
	if len(files) != 3 || len(out) < 100 {
		t.Fatalf("%d queries in %q", len(out), files)
	}
	return out
}

// selectors are the series that queries name. Each has to be there, or an "or vector(0)" would hide a wrong name or label.
func selectors(all map[string]query, alerts rules) map[string]query {
	name := regexp.MustCompile(`\b(?:(?:greenroom|process|go)_\w+(?:\{[^}]*\})?|up\{[^}]*\})`)
	out := map[string]query{}
	add := func(who, expr string) {
		for _, s := range name.FindAllString(expr, -1) {
			out[who+" / "+s] = query{"count(last_over_time(" + s + "[5m]))", false}
		}
	}
	for who, q := range all {
		add(who, q.expr)
	}
	for _, group := range alerts.Groups {
		for _, r := range group.Rules {
			add(r.Alert, r.Expr)
		}
	}
	return out
}

// showsAll waits until every query has given data.
func (p *prometheus) showsAll(what string, left map[string]query) {
	p.Helper()
	p.until(what, func() error {
		var missing []error
		for who, q := range left {
			if err := p.hasData(q); err != nil {
				missing = append(missing, fmt.Errorf("%s: %w: %s", who, err, q.expr))
				continue
			}
			delete(left, who)
		}
		return errors.Join(missing...)
	})
}

// answersEach asserts that no query is refused, whether it has data or not.
func (p *prometheus) answersEach(all map[string]query) {
	p.Helper()
	for who, q := range all {
		if _, err := p.run(q, time.Now()); err != nil {
			p.Errorf("%s: %v: %s", who, err, q.expr)
		}
	}
}

// value is the number that a query gives, which must be one.
func (p *prometheus) value(expr string) (float64, error) {
	got, err := p.run(query{expr: expr}, time.Now())
	if err == nil && len(got) != 1 {
		err = fmt.Errorf("%s is %v", expr, got)
	}
	if err != nil {
		return 0, err
	}
	text, _ := got[0].Value[1].(string)
	return strconv.ParseFloat(text, 64)
}

// becomes waits until a query gives a number.
func (p *prometheus) becomes(expr string, want float64) {
	p.Helper()
	p.until(fmt.Sprintf("%s is %v", expr, want), func() error {
		got, err := p.value(expr)
		if err == nil && got != want {
			err = fmt.Errorf("it is %v", got)
		}
		return err
	})
}

// countsOnce asserts that two servers on one store show no more guests, leases and requests than one of them does.
func (p *prometheus) countsOnce() {
	p.Helper()
	own, compared := regexp.MustCompile(`\[|greenroom_(spec|store|plans|terraform_run|probes|http|lease_|guest_ready|reconcile)|(up|process_\w+)\{`), 0
	one := queries(p, chosen("one", ".*", ".*"))
	for who, q := range queries(p, everything) {
		if own.MatchString(q.expr) || strings.Contains(who, "$") {
			continue
		}
		compared++
		p.until(who+" shows two servers as one", func() error {
			at := time.Now()
			both, err := p.run(query{expr: q.expr}, at)
			single, err2 := p.run(query{expr: one[who].expr}, at)
			if err := errors.Join(err, err2); err != nil {
				return err
			}
			if diff := cmp.Diff(single.bySeries(), both.bySeries()); diff != "" {
				return errors.New(diff)
			}
			return nil
		})
	}
	if compared < 40 {
		p.Errorf("only %d queries are compared", compared)
	}
}

// troubled is a fleet in which something goes wrong in every pool but the first. Of frail so much dies that the watchdog brakes,
// of mortal little enough that it is replaced.
func troubled(guard string) text {
	return text(guard + `
pool "local" {
  module = "local"
  max    = 4
}
cache "ci" {
  owner = "platform"
  pools = [pool.local]
  warm  = 2
  size  = 3
}
pool "frail" {
  module = "local"
  max    = 2
  spare  = 2
  probe "ssh" {
    every    = "1s"
    timeout  = "1s"
    failures = 2
  }
}
pool "mortal" {
  module = "local"
  max    = 3
  spare  = 3
  probe "ssh" {
    every    = "1s"
    timeout  = "1s"
    failures = 2
  }
}
pool "odd" {
  module = "./odd"
  max    = 1
  spare  = 1
}
pool "failing" {
  module = "./failing"
  max    = 1
  spare  = 1
}
`)
}

// failingModule plans well, and applies if a command does.
func (h *house) failingModule(command string) {
	h.Helper()
	good := string(must(os.ReadFile(h.path("specs/odd/main.tf")))(h))
	provisioner := fmt.Sprintf("provisioner \"local-exec\" { command = %q }\n  triggers_replace", command)
	noError(h, os.MkdirAll(h.path("specs/failing"), 0o700))
	noError(h, os.WriteFile(h.path("specs/failing/main.tf"), []byte(strings.Replace(good, "triggers_replace", provisioner, 1)), 0o600))
}

// jobs lease guests one after the other until they are stopped.
func (h *house) jobs() (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
				l, err := h.api.Acquire(h.Context(), client.Request{Cache: "ci"}, nil)
				if err == nil {
					_, err = h.api.Release(h.Context(), l.ID, client.Release{Outcome: "pass"})
				}
				if h.Context().Err() != nil {
					return
				}
				if err != nil {
					h.Errorf("a job: %v", err)
				}
			}
		}
	}()
	return func() { close(done); <-ended }
}

func TestPrometheusShowsAHouseAndCallsSomebodyWhenItIsNotWell(t *testing.T) {
	t.Parallel() // it mostly waits
	redis := leasetest.Redis(t)
	h := newHouse(t, options{redis: redis.URL})
	h.module("port = 22")
	h.failingModule("false")
	h.write(troubled(`guard { max_retire = "0%" }`))
	h.start()
	p := h.prometheus()
	h.shelved(2)
	leases := p.exhausts()
	p.showsWork(leases)
	p.answersEach(queries(t, chosen("one", "local", "ci")))
	p.answersEach(queries(t, chosen("(one|two)", "(local|frail)", "(ci|odd)")))
	p.countsOnce()
	h.lints()
	p.hasAsManySeriesAsTheDocsSay()
	p.hasOnlyTheWordsOfTheDocs()
	p.seesRestarts()
	must(h.api.Taint(t.Context(), leases[1].Guest.Name, "nobody needs it any more"))(t)
	h.module(`host = "127.0.0.1", port = 1, user = "nobody", host_key = "", attributes = {}`)
	h.failingModule("true")
	h.adopts(troubled("")) // whose end nothing holds
	noError(t, h.api.Resume(t.Context(), "failing"))
	p.forgetsAPool()
	redis.Stop(syscall.SIGTERM)
	p.fires("GreenroomStoreAway")
	redis.Start()
	noError(t, h.server.cmd.Process.Signal(syscall.SIGSTOP)) // it hangs
	p.fires("GreenroomDown")
	noError(t, h.server.cmd.Process.Signal(syscall.SIGCONT))
}

// exhausts leases every guest of cache ci, has one more wanted and all of pool frail die, until just the alerts of that fire. It
// returns the leases, that one last.
func (p *prometheus) exhausts() (leases []client.Lease) {
	p.Helper()
	for range 4 {
		leases = append(leases, p.acquire())
	}
	waited := make(chan client.Lease)
	go func() {
		defer close(waited)
		if l, err := p.api.Acquire(p.Context(), client.Request{Cache: "ci"}, nil); err == nil {
			waited <- l
		}
	}()
	for _, name := range []string{"frail-1", "frail-2"} {
		p.killGuest(p.in(name, 1, lease.Shelved))
	}
	want := []string{
		"GreenroomBrakeOn frail", "GreenroomCacheUnderWarm ci", "GreenroomCacheUnderWarm failing", "GreenroomCacheUnderWarm odd",
		"GreenroomPoolStalled odd", "GreenroomQueueOld ci", "GreenroomRunsFailing failing",
	}
	p.until("just these alerts fire", func() error {
		now, err := p.firing()
		if diff := cmp.Diff(want, now); err == nil && diff != "" {
			err = errors.New(diff)
		}
		return err
	})
	p.release(leases[3].ID)
	return append(leases[:3], <-waited)
}

// showsWork has jobs go on while one guest dies, one is tainted, one is held and specs are bad, until every query has had data.
func (p *prometheus) showsWork(leases []client.Lease) {
	p.Helper()
	must(p.api.Pause(p.Context(), "failing", "its module is being mended"))(p) // each further failure would make the end wait longer
	p.killGuest(p.in("mortal-1", 1, lease.Shelved))
	must(p.api.Taint(p.Context(), leases[0].Guest.Name, "by hand"))(p)
	must(p.api.Release(p.Context(), leases[1].ID, client.Release{Outcome: "fail", Hold: client.Duration(time.Hour)}))(p)
	for _, i := range []int{0, 2, 3} {
		p.release(leases[i].ID)
	}
	stop := p.jobs()
	p.seesFaults()
	all := queries(p, everything)
	p.showsAll("every series that is asked for is there", selectors(all, inYAML[rules](p, "prometheus/rules.yml")))
	p.showsAll("every panel has data", all)
	stop()
}

// forgetsAPool takes a pool out of the specs, and waits until nothing is told of it.
func (p *prometheus) forgetsAPool() {
	p.Helper()
	before, rest, _ := strings.Cut(string(troubled("")), `pool "mortal"`)
	_, after, _ := strings.Cut(rest, `pool "odd"`)
	p.adopts(text(before + `pool "odd"` + after))
	p.becomes(`absent({__name__=~"greenroom_.+",pool="mortal"})`, 1)
}

// seesFaults brings specs that are invalid, gone, and held in the end.
func (p *prometheus) seesFaults() {
	p.Helper()
	p.writeText("pool \"local\" {")
	p.fires("GreenroomSpecInvalid SpecInvalid")
	noError(p, os.Rename(p.path("specs"), p.path("elsewhere")))
	p.fires("GreenroomSpecUnreadable SourceUnreachable")
	noError(p, os.Rename(p.path("elsewhere"), p.path("specs")))
	p.writeText(`
guard { max_retire = "0%" }
pool "local" {
  module = "local"
  max    = 4
}
`)
	p.fires("GreenroomSpecHeld GuardExceeded")
}

// adopts writes specs and waits until they are in force.
func (h *house) adopts(spec text) {
	h.Helper()
	h.write(spec)
	h.until("the specs are in force", func() error {
		st, err := h.api.Status(h.Context())
		if err == nil && st.Revision != h.revision {
			err = fmt.Errorf("%s is: %v", st.Revision, st.SpecFault)
		}
		return err
	})
}

// lints holds a scrape against what promtool thinks of names, types and help.
func (h *house) lints() {
	h.Helper()
	_, metrics, err := h.get("/metrics")
	noError(h, err)
	cmd := exec.Command("promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(metrics)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		h.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// hasAsManySeriesAsTheDocsSay holds the numbers of docs/metrics.md against what is there.
func (p *prometheus) hasAsManySeriesAsTheDocsSay() {
	p.Helper()
	docs := string(must(os.ReadFile("../docs/metrics.md"))(p))
	m := regexp.MustCompile(`(\d+) for a\s+cache, (\d+) more for each further pool that it draws from, and up to (\d+) for a pool`).FindStringSubmatch(docs)
	if m == nil {
		p.Fatal("docs/metrics.md does not say how many series there are")
	}
	p.becomes(`count({__name__=~"greenroom_.+",instance="one",cache="ci"})`, must(strconv.ParseFloat(m[1], 64))(p))
	p.becomes(`count(greenroom_guests{instance="one",cache="ci",pool="local"})`, must(strconv.ParseFloat(m[2], 64))(p))
	atMost := must(strconv.ParseFloat(m[3], 64))(p)
	pool := must(p.value(`count({__name__=~"greenroom_.+",instance="one",pool="local",cache!="ci"} or {__name__=~"greenroom_.+",instance="one",cache="local"})`))(p)
	if pool > atMost || pool < atMost/2 {
		p.Errorf("pool local has %v series, which are up to %v in the docs", pool, atMost)
	}
}

// hasOnlyTheWordsOfTheDocs holds what labels said all the while against docs/metrics.md.
func (p *prometheus) hasOnlyTheWordsOfTheDocs() {
	p.Helper()
	docs := string(must(os.ReadFile("../docs/metrics.md"))(p))
	for _, label := range []string{"state", "reason", "how", "source", "op", "result", "condition", "phase"} {
		var values []string
		noError(p, p.ask("/api/v1/label/"+label+"/values", url.Values{"match[]": {`{__name__=~"greenroom_.+",__name__!~"greenroom_spec_.+"}`}}, &values))
		unknown := slices.DeleteFunc(values, func(v string) bool { return strings.Contains(docs, "`"+v+"`") })
		if len(values) == 0 || len(unknown) > 0 {
			p.Errorf("of the label %s docs/metrics.md does not know %q", label, unknown)
		}
	}
}

// seesRestarts kills the server. What it counted itself begins anew, as Prometheus knows; what the store counts goes on. Then it is
// started without a Terraform, so that nothing can be decided, and with one again.
func (p *prometheus) seesRestarts() {
	p.Helper()
	again := []string{"--listen", p.addr()} // where Prometheus looks
	p.kill()
	p.args = again
	p.start()
	p.becomes(`resets(greenroom_lease_seconds_count{cache="ci",instance="one"}[10m])`, 1)
	p.becomes(`greenroom_store_up{instance="one"}`, 1)
	p.becomes(`sum(resets(greenroom_cache_hits_total{instance="one"}[10m])) + sum(resets(greenroom_guest_deaths_total{instance="one"}[10m]))`, 0)

	p.stop()
	p.args = append(again, "--terraform", p.path("nosuch"))
	p.start()
	p.fires("GreenroomReconcilerStuck")
	p.stop()
	p.args = again
	p.start()
	p.becomes(`greenroom_reconcile_last_pass_timestamp_seconds{instance="one"} > bool 0`, 1)
}
