// Package server is Greenroom's front: it composes the parts into one process and answers the HTTP API.
//
// It exists so that the packages below know nothing of HTTP, tokens, sockets and start-up order, and so that
// each promise of the API (who may, what is refused, how an error reads) is kept in one place: the generic
// handler in handler.go. The API's contract is openapi.yaml beside this file.
package server

import (
	"context"
	_ "embed"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"greenroom/internal/ssh"
	"greenroom/lease"
	"greenroom/reconcile/condition"
	"greenroom/watchdog"
)

//go:embed openapi.yaml
var document []byte

// reconciler is what the API needs of the reconcile loop.
type reconciler interface {
	Status(ctx context.Context) (condition.Status, error)
	// Trouble is what is known to keep guests from being leased or made, without asking anybody; nil: nothing is.
	Trouble() error
	// Wake asks for a look at some pools, or at all of them, soon.
	Wake(pools ...string)
	// Runs are the last runs of a pool, the newest first.
	Runs(pool string) []condition.RunStatus
	// Explain says why a request that is queued in cache has to wait, in a sentence without a full stop.
	Explain(ctx context.Context, cache string) string
}

// prober is what the API needs of the watchdog.
type prober interface {
	// Probe asks one guest now; result is for people, err says that the guest did not prove alive.
	Probe(ctx context.Context, guest lease.Guest) (result string, err error)
	// Brakes says why the watchdog taints nothing in a pool, for the pools where that is so.
	Brakes() map[string]string
	// Standings says how the probes of a guest stand; none where it is not watched.
	Standings(ctx context.Context, guest string) ([]watchdog.Standing, error)
}

// Parts are what the API stands on.
type Parts struct {
	Store      *lease.Store
	Reconciler reconciler           // nil: what needs it answers not_ready
	Prober     prober               // nil: likewise
	Plans      plans                // nil: likewise
	Hooks      hooks                // nil: webhooks are off
	Source     source               // that webhooks make look; nil: they are ignored
	Signer     *lease.Signer        // of lease tokens; nil: there are none
	Authority  ssh.Authority        // of guest certificates; without a key there are none
	Tokens     *Tokens              // of callers
	Changes    *Changes             // what the store tells; the metrics listen there
	Feed       *Feed                // of Changes, and of the specs; nil: a new one
	Registry   *prometheus.Registry // served as /metrics; nil: a new one
	Log        *slog.Logger         // default: slog.Default()
	Level      *slog.LevelVar       // of Log; nil: it is fixed
	Now        func() time.Time     // default: time.Now

	// Outage says why the store must not be used just now, nil when it may; a nil func: it always may.
	Outage func() error
	// Closing ends every long poll when it is closed; nil: never.
	Closing <-chan struct{}
}

var errNotReady = errors.New("not ready")

func (p Parts) withDefaults() Parts {
	if p.Registry == nil {
		p.Registry = prometheus.NewRegistry()
	}
	if p.Changes == nil {
		p.Changes = &Changes{}
	}
	if p.Log == nil {
		p.Log = slog.Default()
	}
	if p.Now == nil {
		p.Now = time.Now
	}
	if p.Feed == nil {
		p.Feed = newFeed(p.Store, p.Log, p.Now, p.Closing)
		p.Changes.Subscribe(p.Feed.Notify)
	}
	if p.Outage == nil {
		p.Outage = func() error { return nil }
	}
	return p
}
