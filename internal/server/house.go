package server

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"greenroom/internal/prepare"
	"greenroom/internal/ssh"
	"greenroom/reconcile"
	"greenroom/reconcile/gitops"
	"greenroom/reconcile/terraform"
	"greenroom/watchdog"
)

// house brings the parts behind the API together: the reconciler, the watchdog, the preparers, the source of specs and the
// plans. They know nothing of each other; what one does reaches the others as changes in the store.
func (s *Server) house(o Options) error {
	key, err := ssh.LoadOrCreateKey(filepath.Join(o.StateDir, "guest.key"))
	if err != nil {
		return err
	}
	s.parts.Registry = prometheus.NewRegistry()
	var loop *reconcile.Loop
	dog, err := watchdog.New(watchdog.Options{
		Store: s.parts.Store, Signer: key, Braked: func() { loop.Wake() }, Log: o.Log, Registerer: s.parts.Registry,
	})
	if err != nil {
		return err
	}
	preparer, err := prepare.New(prepare.Options{Store: s.parts.Store, Signer: key, Log: o.Log})
	if err != nil {
		return err
	}
	loop, err = s.loop(o, dog, ssh.Line(key.PublicKey()))
	if err != nil {
		return err
	}
	s.parts.Reconciler, s.parts.Prober = loop, dog
	s.parts.Changes.Subscribe(loop.Notify)
	s.parts.Changes.Subscribe(dog.Notify)
	s.parts.Changes.Subscribe(preparer.Notify)
	s.members = append(s.members, s.awake(loop.Run), s.awake(dog.Run), s.awake(preparer.Run))
	if o.Specs == "" {
		return nil
	}
	return s.gitops(o, loop)
}

// gitops brings in where the specs come from, the plans of their revisions, and the webhooks that make the source look.
func (s *Server) gitops(o Options, loop *reconcile.Loop) error {
	from := o.Source
	from.Source, from.StateDir, from.Self, from.InForce, from.Log = o.Specs, o.StateDir, o.Self, loop.LastInForce, o.Log
	source, err := gitops.Open(from)
	if err != nil {
		return err
	}
	hooks, err := gitops.NewHooks(o.HookSecret)
	if err != nil {
		return err
	}
	s.plans, err = gitops.NewPlans(gitops.PlansOptions{
		Dir: filepath.Join(o.StateDir, "plans"), Loop: loop, Source: source, Absolute: s.absoluteModules, Log: o.Log,
	})
	if err != nil {
		return err
	}
	s.parts.Source, s.parts.Plans = source, s.plans
	if len(o.HookSecret) > 0 {
		s.parts.Hooks = hooks
	}
	offer := func(r reconcile.Revision) {
		if r.Fault != nil {
			s.parts.Feed.Fault(*r.Fault)
		}
		loop.Offer(r)
	}
	follow := func(ctx context.Context) error { return source.Follow(ctx, offer) }
	s.members = append(s.members, follow, s.awake(s.plans.Run))
	return nil
}

// absoluteModules are the module directories that the fleet in force names by their absolute paths.
func (s *Server) absoluteModules() (dirs []string) {
	for _, p := range s.parts.Store.Fleet().Pools {
		if filepath.IsAbs(p.Module) {
			dirs = append(dirs, filepath.Clean(p.Module))
		}
	}
	return dirs
}

func (s *Server) loop(o Options, dog *watchdog.Watchdog, key string) (*reconcile.Loop, error) {
	moved := func() {
		s.parts.Feed.InForce(s.parts.Store.Fleet().Revision)
		if s.plans != nil { // there are none where no specs are followed: the fleet is that of the last time
			s.plans.Moved()
		}
	}
	var loop *reconcile.Loop
	driving := o.Terraform
	driving.StateDir, driving.Self, driving.Log = o.StateDir, o.Self, o.Log
	driving.OnStep = func(pool string, step terraform.Step) { loop.Observe(pool, step) }
	if err := driving.Check(); err != nil {
		return nil, err
	}
	loop = reconcile.New(reconcile.Options{
		Store: s.parts.Store, Writer: s.id, Source: o.Specs, Runs: driving.Concurrency, FleetFile: filepath.Join(o.StateDir, "fleet"),
		AuthorizedKeys: []string{key, ssh.AuthorityLine(s.parts.Authority.Key)},
		ApprovalsFile:  filepath.Join(o.StateDir, "approvals"),
		Held:           func(r reconcile.Revision, pv *reconcile.Preview) string { return s.plans.Hold(r, pv) },
		Adopted:        moved,
		Vanished:       dog.Vanished, Brakes: dog.Brakes, Registry: s.parts.Registry, Log: o.Log,
		OpenDriver: func(ctx context.Context) (*terraform.Driver, error) {
			return terraform.New(ctx, driving)
		},
	})
	if err := loop.Restore(); err != nil {
		return nil, fmt.Errorf("%w; remove %s to start without it", err, filepath.Join(o.StateDir, "fleet"))
	}
	return loop, nil
}

// awake holds a member back until the store was swept once: before that, time in which nobody could renew might end a lease.
func (s *Server) awake(m member) member {
	return func(ctx context.Context) error {
		if !s.pulse.wait(ctx) {
			return nil
		}
		return m(ctx)
	}
}
