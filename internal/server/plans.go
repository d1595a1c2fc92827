package server

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"time"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/reconcile/gitops"
	"greenroom/reconcile/plan"
)

// plans is what the API needs of the keeper of plans.
type plans interface {
	// Request begins a plan, which comes back in the making.
	Request(by lease.Caller, r gitops.PlanRequest) (plan.Plan, error)
	// Get returns a plan when it is made, or as it stands when wait is over or ctx ends.
	Get(ctx context.Context, id string, wait time.Duration) (plan.Plan, error)
	// List leaves out what is long in the plans.
	List() []plan.Plan
	Approve(by lease.Caller, id, digest string) (plan.Plan, error)
}

// newPlan is the body of POST /v1/plans: the name of a ref, or an archive.
type newPlan struct{ client.PlanRequest }

func (n *newPlan) shapes() []shape {
	keep := func(body []byte) error {
		n.Archive = bytes.Clone(body)
		return nil
	}
	return []shape{{"application/zip", gitops.MaxArchive, keep}}
}

func (a *api) keeper() (plans, error) {
	if a.Plans == nil {
		return nil, fmt.Errorf("%w: no specs are followed here that a plan could be made of", errNotReady)
	}
	return a.Plans, nil
}

func (a *api) requestPlan(_ context.Context, who lease.Caller, r request[newPlan]) (answer, error) {
	want := gitops.PlanRequest{Ref: r.Body.Ref, Archive: r.Body.Archive, Name: r.query("name")}
	keeper, err := a.keeper()
	if err != nil {
		return answer{}, err
	}
	p, err := keeper.Request(who, want)
	return answer{status: http.StatusAccepted, location: "/v1/plans/" + p.ID, body: shown(who, p)}, err
}

func (a *api) listPlans(_ context.Context, who lease.Caller, _ request[none]) (answer, error) {
	keeper, err := a.keeper()
	if err != nil {
		return answer{}, err
	}
	list := []plan.Plan{}
	for _, p := range keeper.List() {
		list = append(list, shown(who, p))
	}
	return answer{body: map[string]any{"plans": list}}, nil
}

func (a *api) getPlan(ctx context.Context, who lease.Caller, r request[none]) (answer, error) {
	keeper, err := a.keeper()
	if err != nil {
		return answer{}, err
	}
	wait, err := r.wait()
	if err != nil {
		return answer{}, err
	}
	poll, cancel := a.untilClosing(ctx)
	defer cancel()
	p, err := keeper.Get(poll, r.path("plan"), wait)
	return answer{body: shown(who, p)}, err
}

func (a *api) approvePlan(_ context.Context, who lease.Caller, r request[client.Approve]) (answer, error) {
	keeper, err := a.keeper()
	if err != nil {
		return answer{}, err
	}
	if r.Body.Digest == "" {
		return answer{}, fmt.Errorf("%w: an approval names the digest of the plan that was looked at", lease.ErrInvalid)
	}
	p, err := keeper.Approve(who, r.path("plan"), r.Body.Digest)
	return answer{body: shown(who, p)}, err
}

// shown is a plan as who may see it: what Terraform says is for admins. A list that is empty is a list all the same.
func shown(who lease.Caller, p plan.Plan) plan.Plan {
	p.Pools, p.Caches, p.Guests = list(p.Pools), list(p.Caches), list(p.Guests)
	if p.Terraform == nil || who.Role != lease.Admin {
		p.Terraform = nil
		return p
	}
	layer := *p.Terraform
	layer.Shards = nil
	for _, s := range p.Terraform.Shards {
		s.Resources = list(s.Resources)
		layer.Shards = append(layer.Shards, s)
	}
	layer.Shards = list(layer.Shards)
	p.Terraform = &layer
	return p
}

func list[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}
