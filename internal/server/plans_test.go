package server

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/lease/leasetest"
	"greenroom/reconcile/gitops"
	"greenroom/reconcile/plan"
)

// fakePlans stands for the keeper of plans, whose answers the tests choose.
type fakePlans struct {
	asked []gitops.PlanRequest
	kept  []plan.Plan
	err   error
	waits []time.Duration
}

func (f *fakePlans) Request(by lease.Caller, r gitops.PlanRequest) (plan.Plan, error) {
	if f.err != nil {
		return plan.Plan{}, f.err
	}
	if r.Ref == "" && len(r.Archive) == 0 {
		return plan.Plan{}, fmt.Errorf("%w: a plan is of a ref or of an archive", lease.ErrInvalid)
	}
	f.asked = append(f.asked, r)
	return plan.Plan{ID: "p1", Phase: plan.Making, Ref: r.Ref + r.Name, By: by.Name}, nil
}

// Get waits for as long as it is asked to, as for a plan that is not made.
func (f *fakePlans) Get(ctx context.Context, id string, wait time.Duration) (plan.Plan, error) {
	f.waits = append(f.waits, wait)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	for _, p := range f.kept {
		if p.ID == id {
			return p, nil
		}
	}
	return plan.Plan{}, fmt.Errorf("%w %q", gitops.ErrUnknownPlan, id)
}

func (f *fakePlans) List() []plan.Plan { return f.kept }

func (f *fakePlans) Approve(by lease.Caller, id, _ string) (plan.Plan, error) {
	if f.err != nil {
		return plan.Plan{}, f.err
	}
	p, err := f.Get(context.Background(), id, 0)
	p.Approved = &plan.Approval{By: by.Name, At: time.Unix(1e9, 0), Digest: p.Digest}
	return p, err
}

// planned is a plan with everything set.
func planned(t *testing.T) plan.Plan {
	t.Helper()
	at := time.Unix(1.7e9, 0).UTC()
	settings := []plan.Setting{{Name: "warm", From: "1", To: "2"}, {Name: "variables.image"}}
	return plan.Plan{
		ID: "p7", Phase: plan.Ready, Ref: "feature", By: "jenkins", Base: "b5e1", Head: "77aa", Digest: "d", Made: at, Expires: at.Add(time.Hour),
		Summary: plan.Summary{Create: 1, ReplaceLater: 1, Keep: 1, Settings: 2, Anyway: 1},
		Pools:   []plan.Pool{{Pool: "local", Change: plan.Changed, Settings: settings, Outdated: []string{"variables.image"}, ReadySeconds: 12.5, Summary: plan.Summary{Create: 1}}},
		Caches: []plan.Cache{{
			Cache: "ci", Owner: "platform", Change: plan.Changed, Settings: settings, Summary: plan.Summary{Create: 1},
			Dip: &plan.Dip{Warm: 2, Lowest: 1, Seconds: 30, Measured: true},
		}},
		Guests: []plan.Guest{
			{Pool: "local", Cache: "ci", Verb: plan.Create, When: plan.Now, Reason: "warm"},
			{
				Guest: "local-1", Incarnation: 2, Pool: "local", Cache: "ci", State: "leased", Verb: plan.Replace, When: plan.Released, Reason: "outdated",
				Detail: "variables.image", ToPool: "big", Lease: &plan.Lease{Owner: "platform", Deadline: at, Cap: at}, Until: at, Anyway: true, OneOf: true,
			},
			{Guest: "local-2", Incarnation: 1, Pool: "local", Cache: "ci", State: "shelved", Verb: plan.Keep},
		},
		Notes: []string{"a note"}, Breaches: []plan.Breach{{Guard: "fleet", Retire: 3, Of: 4, Allowed: 0.5}},
		Approved: &plan.Approval{By: "root", At: at, Digest: "d"},
		Terraform: &plan.Terraform{Phase: plan.Ready, Shards: []plan.Shard{
			{Shard: "local-a", Pool: "local", Kept: 2, Seconds: 3.5, Resources: []plan.Resource{{
				Address: `terraform_data.guest["local-1"]`, Guest: "local-1", Action: "replace", Reason: "replace_because_cannot_update",
				Attributes: []plan.Attribute{{Path: "input.image", Before: `"a"`, After: `"b"`, Replaces: true}, {Path: "password", Sensitive: true}, {Path: "id", Unknown: true}},
			}}},
			{Shard: "local-b", Pool: "local", Error: "the module has faults"},
		}},
	}
}

func plansHouse(t *testing.T) (*house, *fakePlans) {
	t.Helper()
	h := newHouse(t, leasetest.Embedded(t))
	keeper := &fakePlans{kept: []plan.Plan{planned(t)}}
	h.parts.Plans = keeper
	h.serveAgain()
	return h, keeper
}

func zipped(t *testing.T, files map[string]string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, text := range files {
		f, err := w.Create(name)
		if err == nil {
			_, err = f.Write([]byte(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var asZip = map[string]string{"Content-Type": "application/zip"}

func TestAPlanIsAskedForByRefAndByArchive(t *testing.T) {
	h, keeper := plansHouse(t)
	g := h.do(sent{token: h.user, method: "POST", path: "/v1/plans", body: client.PlanRequest{Ref: "main"}})
	if g.Status != 202 || g.Header.Get("Location") != "/v1/plans/p1" || !strings.Contains(string(g.Body), `"guests":[]`) {
		t.Errorf("%d, Location %q: %s", g.Status, g.Header.Get("Location"), g.Body)
	}
	archive := zipped(t, map[string]string{"fleet.hcl": "pool \"local\" {}"})
	p := ask[plan.Plan](h, 202, sent{token: h.stranger, method: "POST", path: "/v1/plans?name=%2Fhome%2Falice%2Fspecs", body: archive, header: asZip})
	if p.By != "alice" || p.Ref != "/home/alice/specs" || p.Phase != plan.Making {
		t.Errorf("of an archive: %+v", p)
	}
	want := []gitops.PlanRequest{{Ref: "main"}, {Archive: []byte(archive), Name: "/home/alice/specs"}}
	if diff := cmp.Diff(want, keeper.asked); diff != "" {
		t.Error(diff)
	}
}

func TestWhatTerraformSaysIsForAdmins(t *testing.T) {
	h, keeper := plansHouse(t)
	whole := planned(t)
	public := whole
	public.Terraform = nil
	for token, want := range map[string]plan.Plan{h.admin: whole, h.user: public, h.stranger: public} {
		one := ask[plan.Plan](h, 200, sent{token: token, method: "GET", path: "/v1/plans/p7"})
		all := ask[struct{ Plans []plan.Plan }](h, 200, sent{token: token, method: "GET", path: "/v1/plans"})
		want.Terraform = withLists(want.Terraform)
		if diff := cmp.Diff([]plan.Plan{want, want}, append([]plan.Plan{one}, all.Plans...)); diff != "" {
			t.Error(diff)
		}
	}
	if diff := cmp.Diff(planned(t), keeper.kept[0]); diff != "" {
		t.Errorf("showing it has changed what is kept: %s", diff)
	}
}

// withLists is a layer as it is shown: no list is null.
func withLists(layer *plan.Terraform) *plan.Terraform {
	if layer == nil {
		return nil
	}
	out := *layer
	out.Shards = append([]plan.Shard{}, layer.Shards...)
	for i := range out.Shards {
		out.Shards[i].Resources = list(out.Shards[i].Resources)
	}
	return &out
}

// An answer with a field that the document lacks would keep to the contract: it does not say that there are no others.
func TestThePlanAndItsDocumentHaveTheSameFields(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(document)
	if err != nil {
		t.Fatal(err)
	}
	inDocument, inCode := []string{}, []string{}
	properties(doc.Components.Schemas["Plan"], "", &inDocument)
	fields(reflect.TypeFor[plan.Plan](), "", &inCode)
	slices.Sort(inDocument)
	slices.Sort(inCode)
	if diff := cmp.Diff(inCode, inDocument); diff != "" {
		t.Errorf("the document (+) and the code (-) differ: %s", diff)
	}
}

func properties(schema *openapi3.SchemaRef, at string, out *[]string) {
	if schema.Value.Items != nil {
		properties(schema.Value.Items, at+"[]", out)
	}
	for name, below := range schema.Value.Properties {
		*out = append(*out, at+"."+name)
		properties(below, at+"."+name, out)
	}
}

func fields(of reflect.Type, at string, out *[]string) {
	switch {
	case of.Kind() == reflect.Pointer:
		fields(of.Elem(), at, out)
	case of.Kind() == reflect.Slice:
		fields(of.Elem(), at+"[]", out)
	case of.Kind() == reflect.Struct && of != reflect.TypeFor[time.Time]():
		for f := range of.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			*out = append(*out, at+"."+name)
			fields(f.Type, at+"."+name, out)
		}
	}
}

func TestAPlanIsWaitedForAtMostAMinuteAndNotBeyondTheServer(t *testing.T) {
	h, keeper := plansHouse(t)
	ask[plan.Plan](h, 200, sent{token: h.user, method: "GET", path: "/v1/plans/p7?wait=1ms"})
	if diff := cmp.Diff([]time.Duration{time.Millisecond}, keeper.waits); diff != "" {
		t.Error(diff)
	}
	closing := make(chan struct{})
	h.parts.Closing = closing
	h.serveAgain()
	close(closing)
	ask[plan.Plan](h, 200, sent{token: h.user, method: "GET", path: "/v1/plans/p7?wait=2h"})
	if diff := cmp.Diff([]time.Duration{time.Millisecond, time.Minute}, keeper.waits); diff != "" {
		t.Error(diff)
	}
}

func TestAPlanIsApprovedByAdmins(t *testing.T) {
	h, _ := plansHouse(t)
	approve := sent{token: h.admin, method: "POST", path: "/v1/plans/p7/approve", body: client.Approve{Digest: "d"}}
	p := ask[plan.Plan](h, 200, approve)
	if p.Approved == nil || p.Approved.By != "root" || p.Approved.Digest != "d" {
		t.Errorf("approved: %+v", p.Approved)
	}
	approve.token = h.user
	h.refused(403, "forbidden", approve)
}

func TestBadRequestsForPlansAreRefused(t *testing.T) {
	h, keeper := plansHouse(t)
	post := func(body any) sent {
		return sent{token: h.user, method: "POST", path: "/v1/plans", body: body, against: true}
	}
	archive := post(zipped(t, nil))
	archive.header = asZip
	large := post(strings.Repeat("z", gitops.MaxArchive+1))
	large.header = asZip
	empty := post("")
	empty.header = asZip
	for name, c := range map[string]struct {
		status int
		code   string
		sent   sent
		says   string
	}{
		"nothing":                 {400, "invalid", post(nil), "a ref or of an archive"},
		"no ref":                  {400, "invalid", post(`{}`), "a ref or of an archive"},
		"an empty archive":        {400, "invalid", empty, "a ref or of an archive"},
		"a field of the archive":  {400, "unknown_field", post(`{"ref": "main", "Archive": "UEs="}`), "Archive"},
		"a large archive":         {413, "too_large", large, "more than 8 MiB"},
		"a large ref":             {413, "too_large", post(`{"ref": "` + strings.Repeat("x", maxBody) + `"}`), "more than 1 MiB"},
		"a tarball":               {415, "unsupported_media", sent{token: h.user, method: "POST", path: "/v1/plans", body: "x", header: map[string]string{"Content-Type": "application/x-tar"}, against: true}, "send application/json or application/zip"},
		"nobody":                  {401, "unauthorized", sent{method: "POST", path: "/v1/plans", body: client.PlanRequest{Ref: "main"}}, "bearer token"},
		"a zip to another call":   {415, "unsupported_media", sent{token: h.user, method: "POST", path: "/v1/leases", body: archive.body, header: asZip, against: true}, "send application/json"},
		"an unknown plan":         {404, "unknown_plan", sent{token: h.user, method: "GET", path: "/v1/plans/p9"}, "p9"},
		"an unknown plan to pass": {404, "unknown_plan", sent{token: h.admin, method: "POST", path: "/v1/plans/p9/approve", body: client.Approve{Digest: "d"}}, "p9"},
		"an approval of nothing":  {400, "invalid", sent{token: h.admin, method: "POST", path: "/v1/plans/p7/approve", body: `{}`, against: true}, "digest"},
		"an odd wait":             {400, "malformed", sent{token: h.user, method: "GET", path: "/v1/plans/p7?wait=soon", against: true}, "soon"},
	} {
		if p, _ := h.refused(c.status, c.code, c.sent); !strings.Contains(p.Detail, c.says) {
			t.Errorf("%s: the detail %q does not say %q", name, p.Detail, c.says)
		}
	}
	if len(keeper.asked) != 0 {
		t.Errorf("asked for: %+v", keeper.asked)
	}
}

func TestTheKeepersRefusalsHaveTheirCodes(t *testing.T) {
	h, keeper := plansHouse(t)
	request := sent{token: h.admin, method: "POST", path: "/v1/plans", body: client.PlanRequest{Ref: "main"}}
	approve := sent{token: h.admin, method: "POST", path: "/v1/plans/p7/approve", body: client.Approve{Digest: "d"}}
	for _, c := range []struct {
		err    error
		status int
		code   string
		sent   sent
	}{
		{gitops.ErrTooManyPlans, 503, "too_many_plans", request},
		{gitops.ErrNotReady, 409, "plan_not_ready", approve},
		{gitops.ErrStale, 409, "plan_stale", approve},
		{gitops.ErrNotAdmin, 403, "forbidden", approve},
	} {
		keeper.err = fmt.Errorf("%w: because", c.err)
		if _, header := h.refused(c.status, c.code, c.sent); (c.status == 503) != (header.Get("Retry-After") != "") {
			t.Errorf("%s: Retry-After is %q", c.code, header.Get("Retry-After"))
		}
	}
	h.parts.Plans = nil
	h.serveAgain()
	for _, s := range []sent{request, approve, {token: h.admin, method: "GET", path: "/v1/plans"}, {token: h.admin, method: "GET", path: "/v1/plans/p7"}} {
		h.refused(503, "not_ready", s)
	}
}

func TestPlansCanBeReadWhileTheStoreIsAway(t *testing.T) {
	h, _ := plansHouse(t)
	h.outage = lease.ErrUnavailable
	ask[plan.Plan](h, 200, sent{token: h.user, method: "GET", path: "/v1/plans/p7"})
	h.refused(503, "unavailable", sent{token: h.user, method: "POST", path: "/v1/plans", body: client.PlanRequest{Ref: "main"}})
}

func TestThePagesOfPlansAreServedToWhoeverHasSignedIn(t *testing.T) {
	h, _ := plansHouse(t)
	for path, want := range map[string]struct {
		status   int
		location string
	}{
		"/plans": {303, "/signin?next=/plans"}, "/plans/p7": {303, "/signin?next=/plans/p7"}, "/signin": {200, ""}, "/static/greenroom.css": {200, ""},
	} {
		g := h.do(sent{method: "GET", path: path, against: true})
		if g.Status != want.status || g.Header.Get("Location") != want.location || g.Header.Get("Content-Security-Policy") == "" {
			t.Errorf("%s: %d, %v", path, g.Status, g.Header)
		}
	}
	for _, path := range []string{"/plans/p7/approve", "/signout"} {
		if g := h.do(sent{method: "POST", path: path, against: true}); g.Status != 303 || g.Header.Get("Location") != "/signin" {
			t.Errorf("%s: %d, %v", path, g.Status, g.Header)
		}
	}
	if text := string(h.do(sent{method: "GET", path: "/metrics"}).Body); !strings.Contains(text, `code="303",route="/plans/{id}"`) {
		t.Error("pages are not counted by their route")
	}
}
