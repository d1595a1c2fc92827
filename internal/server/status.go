package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/reconcile"
)

// status answers as much as is known: with the store away the caches are missing, and the store's field says why.
func (a *api) status(ctx context.Context, _ lease.Caller, _ request[none]) (answer, error) {
	st, err := a.reconciled(ctx)
	if err != nil && !errors.Is(err, lease.ErrUnavailable) {
		return answer{}, err
	}
	out := client.Status{Status: st, Pools: a.braked(st.Pools)}
	if err = a.Outage(); err == nil {
		out.Caches, err = a.caches(ctx)
	}
	if err != nil && !errors.Is(err, lease.ErrUnavailable) {
		return answer{}, err
	}
	if err != nil {
		out.Store, out.Caches = err.Error(), []client.Cache{}
		out.Conditions = reconcile.Away(out.Conditions, a.Now())
	}
	return answer{body: out}, nil
}

func (a *api) listTokens(context.Context, lease.Caller, request[none]) (answer, error) {
	return answer{body: map[string]any{"tokens": a.Tokens.List()}}, nil
}

func (a *api) createToken(_ context.Context, who lease.Caller, r request[client.NewToken]) (answer, error) {
	made, err := a.Tokens.Create(r.Body)
	if err == nil {
		a.Log.Info(fmt.Sprintf("made a token of the role %s for %s", made.Role, made.Name), "token", made.ID, "by", who.Name)
	}
	return answer{status: http.StatusCreated, body: made}, err
}

func (a *api) revokeToken(_ context.Context, who lease.Caller, r request[none]) (answer, error) {
	err := a.Tokens.Revoke(r.path("token"))
	if err == nil {
		a.Log.Info("revoked a token", "token", r.path("token"), "by", who.Name)
	}
	return answer{status: http.StatusNoContent}, err
}

func health(w http.ResponseWriter, _ *http.Request) {
	write(w, http.StatusOK, jsonMedia, map[string]string{"status": "up"})
}

// ready tells whether leases can be granted: the store can be used, a spec is in force, and Terraform was found. Anybody may ask, and
// as often as they like, so it goes by what is known: the same as what refuses calls.
func (a *api) ready(w http.ResponseWriter, _ *http.Request) {
	var reasons []string
	for _, err := range a.shortcomings() {
		reasons = append(reasons, err.Error())
	}
	if len(reasons) > 0 {
		writeProblem(w, problem(http.StatusServiceUnavailable, "not_ready", strings.Join(reasons, "; ")))
		return
	}
	write(w, http.StatusOK, jsonMedia, map[string]string{"status": "ready"})
}

func (a *api) shortcomings() (out []error) {
	away, trouble := a.Outage(), error(nil)
	if a.Reconciler != nil {
		trouble = a.Reconciler.Trouble()
	}
	if errors.Is(trouble, lease.ErrUnavailable) {
		away, trouble = cmp.Or(away, trouble), nil
	}
	var unruled error
	if a.Store.Fleet().Revision == "" {
		unruled = errors.New("no spec is in force")
	}
	return slices.DeleteFunc([]error{away, unruled, trouble}, func(err error) bool { return err == nil })
}

func openapi(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(document)
}
