package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"greenroom/lease"
	"greenroom/lease/client"
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
	write(w, http.StatusOK, "application/json", map[string]string{"status": "up"})
}

// ready tells whether leases can be granted: the store answers, a spec is in force, and Terraform was found.
func (a *api) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	var reasons []string
	if err := cmp.Or(a.Outage(), a.Store.Ping(ctx)); err != nil {
		reasons = append(reasons, err.Error())
	}
	if a.Store.Fleet().Revision == "" {
		reasons = append(reasons, "no spec is in force")
	}
	switch st, err := a.reconciled(ctx); {
	case err != nil:
		reasons = append(reasons, err.Error())
	case st.Terraform == "":
		reasons = append(reasons, "no usable Terraform was found")
	}
	if len(reasons) > 0 {
		writeProblem(w, problem(http.StatusServiceUnavailable, "not_ready", strings.Join(reasons, "; ")))
		return
	}
	write(w, http.StatusOK, "application/json", map[string]string{"status": "ready"})
}

func openapi(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(document)
}
