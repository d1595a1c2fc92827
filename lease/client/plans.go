package client

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"greenroom/reconcile/plan"
)

// PlanRequest says what to preview: a ref of the repository that the server follows, or specs that are sent along.
type PlanRequest struct {
	Ref     string `json:"ref"` // a branch, tag or commit
	Archive []byte `json:"-"`   // a zip archive of a directory of specs, instead of a ref
	Name    string `json:"-"`   // of the archive: a newer plan of the same name replaces the older
}

// Plan asks for a preview, which comes back in the making: GetPlan waits for it. An equal request replaces this one.
func (c *Client) Plan(ctx context.Context, r PlanRequest) (plan.Plan, error) {
	if len(r.Archive) == 0 {
		return fetch[plan.Plan](ctx, c, post("/v1/plans", r))
	}
	k := call{method: http.MethodPost, path: "/v1/plans", archive: r.Archive}
	if r.Name != "" {
		k.query = url.Values{"name": {r.Name}}
	}
	return fetch[plan.Plan](ctx, c, k)
}

func planPath(id string) string { return "/v1/plans/" + url.PathEscape(id) }

// GetPlan returns a plan when it is made, what Terraform says included, or as it stands after a time of at most 60s. Its Terraform
// part is for admins.
func (c *Client) GetPlan(ctx context.Context, id string, wait time.Duration) (plan.Plan, error) {
	return fetch[plan.Plan](ctx, c, get(planPath(id), url.Values{"wait": {wait.String()}}))
}

// Plans lists the plans that the server still has.
func (c *Client) Plans(ctx context.Context) ([]plan.Plan, error) {
	out, err := fetch[struct{ Plans []plan.Plan }](ctx, c, get("/v1/plans", nil))
	return out.Plans, err
}

// Approve is what an approval says: the digest of the plan that was looked at.
type Approve struct {
	Digest string `json:"digest"`
}

// ApprovePlan lets the revision of a plan come into force though it is held. The digest is that of the plan that was looked at.
func (c *Client) ApprovePlan(ctx context.Context, id, digest string) (plan.Plan, error) {
	return fetch[plan.Plan](ctx, c, post(planPath(id)+"/approve", Approve{digest}))
}
