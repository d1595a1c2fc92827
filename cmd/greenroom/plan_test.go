package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"greenroom/reconcile/plan"
)

// told answers each look at a plan with the next of a list, and goes on with the last. It stands for what a real server does
// not do on demand: replace a plan while somebody waits for it, or fail in Terraform alone.
type told struct {
	plans []plan.Plan
	asked []string
}

func (f *told) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.asked = append(f.asked, r.URL.String())
	now := f.plans[0]
	if len(f.plans) > 1 {
		f.plans = f.plans[1:]
	}
	_ = json.NewEncoder(w).Encode(now)
}

// ended is what a command line has come to.
type ended struct {
	code           int
	stdout, stderr string
}

func execute(ctx context.Context, args ...string) ended {
	var stdout, stderr bytes.Buffer
	code := run(ctx, args, strings.NewReader(""), &stdout, &stderr)
	return ended{code, stdout.String(), stderr.String()}
}

func TestTheExitCodeOfAPlanSaysWhatItComesTo(t *testing.T) {
	t.Setenv("GREENROOM_TOKEN", "gr_TEST")
	making := plan.Plan{ID: "p1", Phase: plan.Making, Ref: "main"}
	ready := func(s plan.Summary, tf *plan.Terraform) plan.Plan {
		return plan.Plan{ID: "p1", Phase: plan.Ready, Ref: "main", Summary: s, Terraform: tf}
	}
	some := plan.Summary{Create: 3}
	for name, c := range map[string]struct {
		args   string
		plans  []plan.Plan
		code   int
		stdout string // in it, or nothing at all
		stderr string
	}{
		"no changes":           {"", []plan.Plan{making, ready(plan.Summary{Keep: 2}, nil)}, 0, "No changes", ""},
		"changes":              {"", []plan.Plan{making, making, ready(some, nil)}, 2, "Plan: 3 to create", ""},
		"settings alone":       {"", []plan.Plan{ready(plan.Summary{Settings: 1}, nil)}, 2, "Plan: ", ""},
		"what is due anyway":   {"", []plan.Plan{ready(plan.Summary{Anyway: 1}, nil)}, 0, "No changes", ""},
		"with Terraform's":     {"", []plan.Plan{making, ready(some, &plan.Terraform{Phase: plan.Making}), ready(some, &plan.Terraform{Phase: plan.Ready})}, 2, "no shard is affected", ""},
		"a failed plan":        {"", []plan.Plan{{ID: "p1", Phase: plan.Failed, Error: "fleet.hcl line 3: no"}}, 1, "", "fleet.hcl line 3: no"},
		"a failed plan, JSON":  {"-o json", []plan.Plan{{ID: "p1", Phase: plan.Failed, Error: "fleet.hcl line 3: no"}}, 1, `"phase": "failed"`, "fleet.hcl line 3: no"},
		"a failed plan, CI":    {"-o markdown", []plan.Plan{{ID: "p1", Phase: plan.Failed, Error: "fleet.hcl line 3: no"}}, 1, "fleet.hcl line 3: no", "fleet.hcl line 3: no"},
		"Terraform failed":     {"", []plan.Plan{ready(some, &plan.Terraform{Phase: plan.Failed, Error: "no binary"})}, 1, "no binary", "no plans of Terraform's own could be made"},
		"a shard failed":       {"", []plan.Plan{ready(some, &plan.Terraform{Phase: plan.Ready, Shards: []plan.Shard{{Shard: "a"}, {Shard: "b", Error: "broken"}}})}, 1, "broken", "1 shard of 2 could not be planned by Terraform"},
		"no time left":         {"--wait 1ms", []plan.Plan{making}, 1, "", `plan p1 is not complete after 1ms; look again with "greenroom plan show p1"`},
		"no time left, JSON":   {"--wait 0s -o json", []plan.Plan{making}, 1, `"phase": "making"`, "not complete"},
		"Terraform takes long": {"--wait 0s", []plan.Plan{ready(some, &plan.Terraform{Phase: plan.Making})}, 1, "still planning", "not complete"},
		"replaced":             {"", []plan.Plan{making, {ID: "p1", Phase: plan.Replaced, ReplacedBy: "p2"}, {ID: "p2", Phase: plan.Ready, Summary: some}}, 2, "Plan p2", "plan p1 was replaced by plan p2"},
		"replaced by nothing":  {"", []plan.Plan{{ID: "p1", Phase: plan.Replaced}}, 1, "", "plan p1 was replaced; ask for another"},
	} {
		for _, sub := range []string{"--ref main", "show p1"} {
			f := &told{plans: c.plans}
			web := httptest.NewServer(f)
			got := execute(t.Context(), strings.Fields("plan "+sub+" --server "+web.URL+" "+c.args)...)
			web.Close()
			if got.code != c.code || !strings.Contains(got.stdout, c.stdout) || !strings.Contains(got.stderr, c.stderr) ||
				(c.stdout == "") != (got.stdout == "") || (c.stderr == "") != (got.stderr == "") {
				t.Errorf("%s, %s: exit code %d\n%s\n%s\nasked: %s", name, sub, got.code, got.stdout, got.stderr, f.asked)
			}
		}
	}
}

func TestAnInterruptedPlanSaysSo(t *testing.T) {
	t.Setenv("GREENROOM_TOKEN", "gr_TEST")
	ctx, cancel := context.WithCancel(t.Context())
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			cancel()
			<-r.Context().Done()
			return
		}
		fmt.Fprint(w, `{"id": "p1", "phase": "making"}`)
	}))
	defer web.Close()
	if got := execute(ctx, "plan", "--ref", "main", "--server", web.URL); got.code != 130 || !strings.Contains(got.stderr, "interrupted; ") {
		t.Errorf("%+v", got)
	}
}

func TestTheLinkInMarkdownLeadsToTheServerWherePeopleReachIt(t *testing.T) {
	for _, c := range []struct{ server, url, want string }{
		{"", "", ""},
		{"/run/greenroom.sock", "", ""},
		{"https://greenroom.example.org/", "", "https://greenroom.example.org"},
		{"http://10.0.0.1:7070", "https://greenroom.example.org/", "https://greenroom.example.org"},
	} {
		p := planCommand{at: link{server: c.server}, url: c.url}
		if got := p.link(); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
