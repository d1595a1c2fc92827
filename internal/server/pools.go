package server

import (
	"cmp"
	"context"
	"fmt"
	"net/http"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/reconcile/condition"
)

// known tells whether a pool is in the spec in force.
func (a *api) known(pool string) error {
	if fleet := a.Store.Fleet(); fleet.Pool(pool) == nil {
		return fmt.Errorf("%w: %.80q is not in revision %s", lease.ErrUnknownPool, pool, fleet.Revision)
	}
	return nil
}

func (a *api) reconciled(ctx context.Context) (condition.Status, error) {
	if a.Reconciler == nil {
		return condition.Status{}, fmt.Errorf("%w: the reconciler does not run", errNotReady)
	}
	return a.Reconciler.Status(ctx)
}

// pools are those of the loop's last pass, with what has come about since.
func (a *api) pools(ctx context.Context) ([]client.Pool, error) {
	st, err := a.reconciled(ctx)
	if err != nil {
		return nil, err
	}
	pools := a.braked(st.Pools)
	names := make([]string, len(pools))
	for i, p := range pools {
		names[i] = p.Pool
	}
	now, err := a.Store.Survey(ctx, names...)
	for i, s := range now {
		pools[i].Pause = s.Pause
	}
	return pools, err
}

// braked adds what the watchdog knows of the pools.
func (a *api) braked(pools []condition.PoolStatus) []client.Pool {
	brakes := map[string]string{}
	if a.Prober != nil {
		brakes = a.Prober.Brakes()
	}
	out := []client.Pool{}
	for _, p := range pools {
		out = append(out, client.Pool{PoolStatus: p, Brake: brakes[p.Pool]})
	}
	return out
}

func (a *api) listPools(ctx context.Context, _ lease.Caller, _ request[none]) (answer, error) {
	pools, err := a.pools(ctx)
	return answer{body: map[string]any{"pools": pools}}, err
}

func (a *api) getPool(ctx context.Context, _ lease.Caller, r request[none]) (answer, error) {
	pools, err := a.pools(ctx)
	if err != nil {
		return answer{}, err
	}
	for _, p := range pools {
		if p.Pool == r.path("pool") {
			p.Runs = a.Reconciler.Runs(p.Pool)
			return answer{body: p}, nil
		}
	}
	return answer{}, fmt.Errorf("%w: there is no pool %.80q", lease.ErrUnknownPool, r.path("pool"))
}

func (a *api) listShards(ctx context.Context, _ lease.Caller, _ request[none]) (answer, error) {
	pools, err := a.pools(ctx)
	shards := []condition.ShardStatus{}
	for _, p := range pools {
		shards = append(shards, p.Shards...)
	}
	return answer{body: map[string]any{"shards": shards}}, err
}

func (a *api) pause(ctx context.Context, who lease.Caller, r request[client.Reason]) (answer, error) {
	if err := brief(r.Body.Reason); err != nil {
		return answer{}, err
	}
	p := &lease.Pause{By: who.Name, Reason: r.Body.Reason, Since: a.Now().UTC()}
	return answer{body: p}, a.setPause(ctx, r.path("pool"), p)
}

func (a *api) resume(ctx context.Context, _ lease.Caller, r request[none]) (answer, error) {
	return answer{status: http.StatusNoContent}, a.setPause(ctx, r.path("pool"), nil)
}

func (a *api) setPause(ctx context.Context, pool string, p *lease.Pause) error {
	if err := a.known(pool); err != nil {
		if p != nil {
			return err
		}
		// It may have been paused before the specs lost it; then its guests are waiting for this.
		if paused, errStore := a.Store.Paused(ctx, pool); errStore != nil || paused == nil {
			return cmp.Or(errStore, err)
		}
	}
	if err := a.Store.SetPause(ctx, pool, p); err != nil {
		return err
	}
	if a.Reconciler != nil {
		a.Reconciler.Wake(pool)
	}
	return nil
}

func (a *api) reconcile(_ context.Context, _ lease.Caller, r request[client.Reconcile]) (answer, error) {
	woken := r.Body.Pools
	for _, pool := range woken {
		if err := a.known(pool); err != nil {
			return answer{}, err
		}
	}
	if a.Reconciler == nil {
		return answer{}, fmt.Errorf("%w: the reconciler does not run", errNotReady)
	}
	if a.Source != nil {
		a.Source.Poke()
	}
	a.Reconciler.Wake(woken...)
	if len(woken) == 0 {
		woken = []string{}
		for _, p := range a.Store.Fleet().Pools {
			woken = append(woken, p.Name)
		}
	}
	return answer{status: http.StatusAccepted, body: map[string]any{"pools": woken}}, nil
}
