package client_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"greenroom/lease/client"
)

func TestTheCallsOfPlansAreWhatTheDocumentSays(t *testing.T) {
	h := newHouse(t, time.Minute)
	var calls []string
	c := h.client(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		h.must(err)
		calls = append(calls, fmt.Sprintf("%s %s %s %s", r.Method, r.URL, r.Header.Get("Content-Type"), body))
		fmt.Fprint(w, `{"id": "p1", "phase": "making", "plans": [{"id": "p2"}]}`)
	}, client.Options{})
	ctx := t.Context()
	_, err := c.Plan(ctx, client.PlanRequest{Ref: "feature/x"})
	h.must(err)
	_, err = c.Plan(ctx, client.PlanRequest{Archive: []byte("PK"), Name: "pull/12 & more"})
	h.must(err)
	_, err = c.Plan(ctx, client.PlanRequest{Archive: []byte("PK")})
	h.must(err)
	one, err := c.GetPlan(ctx, "p1/../x", time.Minute)
	h.must(err)
	all, err := c.Plans(ctx)
	h.must(err)
	_, err = c.ApprovePlan(ctx, "p1", "sha256-x")
	h.must(err)
	want := []string{
		`POST /v1/plans application/json {"ref":"feature/x"}`,
		`POST /v1/plans?name=pull%2F12+%26+more application/zip PK`,
		`POST /v1/plans application/zip PK`,
		`GET /v1/plans/p1%2F..%2Fx?wait=1m0s  `,
		`GET /v1/plans  `,
		`POST /v1/plans/p1/approve application/json {"digest":"sha256-x"}`,
	}
	if diff := cmp.Diff(want, calls); diff != "" {
		t.Error(diff)
	}
	if one.ID != "p1" || len(all) != 1 || all[0].ID != "p2" {
		t.Errorf("read: %+v, %+v", one, all)
	}
}
