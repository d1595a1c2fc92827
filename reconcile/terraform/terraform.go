// Package terraform runs Terraform for one shard at a time and says what came of it. It exists so
// that nothing else has to know how Terraform is found, driven, watched, interrupted and recovered:
// it is the only package that knows terraform-exec and hc-install.
//
// A run is carried out by a runner, a process of our own binary in a session of its own, so that
// a crash of the daemon never tears an apply. The daemon writes an intent, starts the runner and
// reads the result; after a crash it finds both again by the shard's directory:
//
//	shards/<shard>/
//	  run.json      the intent: what the run shall do (0600, holds variables)
//	  result.json   the outcome, until the caller has acknowledged it
//	  runner.lock   held (flock) by the runner for its lifetime; the only truth about liveness
//	  runner.log    bounded log of the last runner
//	  seen.json     lineage and serial of the state as this shard left it
//	  applied.json  the incarnations last applied
//	  unsettled.json  guests whose output in the state may be that of an earlier machine
//	  orphan.json   the last run that died, by which its lock is known
//	  meta.json     what the caller keeps about the shard
//	  backups/      the last states, from before each write
//	  work/         the Terraform root: generated, private to the shard
//
// A preview is carried out the same way, in a directory like that of a shard that is not there for longer, by a runner
// that lives no longer than who waits for it.
package terraform

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/terraform-exec/tfexec"
	"golang.org/x/sync/semaphore"
)

var (
	// ErrNoBinary means that no Terraform was found and none could be installed.
	ErrNoBinary = errors.New("no usable terraform binary")
	// ErrBusy means that the shard has a run that is live, or one whose outcome was not acknowledged.
	ErrBusy = errors.New("the shard has a run already")
	// ErrClosed means that the driver takes no new runs because it is shutting down.
	ErrClosed = errors.New("the driver is shutting down")
	// ErrNotEmpty means that a shard still has resources and can't be removed.
	ErrNotEmpty = errors.New("the shard still has resources")
	// ErrNoShard means that there is no such shard directory.
	ErrNoShard = errors.New("no such shard")
)

// Budgets bound one run, measured by timers of our own. Zero values mean the defaults.
type Budgets struct {
	// Start is the time to the first line of a plan or apply (default 2m).
	Start time.Duration `json:"start"`
	// Idle is the longest silence between two lines of a plan or apply (default 15m).
	Idle time.Duration `json:"idle"`
	// Total bounds the whole run (default 2h).
	Total time.Duration `json:"total"`
	// Interrupt is how long Terraform may take to end after its one SIGINT (default 10m).
	Interrupt time.Duration `json:"interrupt"`
}

func (b Budgets) withDefaults() Budgets {
	return Budgets{
		Start:     cmp.Or(b.Start, 2*time.Minute),
		Idle:      cmp.Or(b.Idle, 15*time.Minute),
		Total:     cmp.Or(b.Total, 2*time.Hour),
		Interrupt: cmp.Or(b.Interrupt, 10*time.Minute),
	}
}

// DefaultConstraint is the range of Terraform versions that the driver accepts from PATH.
const DefaultConstraint = ">= 1.6, < 2"

// Options configure a Driver. Only StateDir is needed.
type Options struct {
	// StateDir is the absolute directory that holds shards, modules, archive and bin.
	StateDir string
	// Binary is the path of the terraform (or tofu) binary. When set it always wins.
	Binary string
	// Constraint is the accepted range of versions (default DefaultConstraint).
	Constraint string
	// Mirror is a provider filesystem mirror; when set, providers come from there and nowhere else.
	Mirror string
	// Self is the greenroom binary that is run as the runner (default: this executable).
	Self string
	// RunnerArgs stand before the shard directory on the runner's command line (default "runner").
	RunnerArgs []string
	// Env names further environment variables that reach Terraform. PATH, HOME and TMPDIR always do,
	// and GREENROOM_BINARY (Self) and GREENROOM_GUESTS_DIR (StateDir/guests) are set.
	Env []string
	// Concurrency is how many runs are live at once, and previews beside them (default 4). Whoever starts runs may go up to twice as
	// many, where some of them hang.
	Concurrency int
	// Budgets bound each run.
	Budgets Budgets
	// Backend is {"type": "s3", "config": {…}}; nil means local files. Some string of config must
	// contain "{shard}", so that each shard has a key of its own.
	Backend json.RawMessage
	// OnStep is called with each step of a finished run, for metrics, and with those of previews,
	// whose Op begins with "preview-".
	OnStep func(pool string, step Step)
	// Log receives what an operator should know (default: discard).
	Log *slog.Logger
}

// Driver starts runs and finds them again. It is safe for concurrent use.
type Driver struct {
	opts    Options
	backend *backend

	known   sync.Mutex // of what follows
	binary  string
	version string
	file    os.FileInfo // of the binary when it was asked for its version

	slots    *semaphore.Weighted
	previews *semaphore.Weighted // of their own: a preview never keeps a run waiting
	started  atomic.Int64
	ctx      context.Context // ends the watching of adopted runs, see Detach; no request runs under it
	stop     context.CancelFunc
	open     context.Context // ends previews, which nobody needs when the driver is closed
	shut     context.CancelFunc

	mu     sync.Mutex
	closed bool
	live   map[string]*Running // by shard
	ready  map[string]*Ready   // by shard
	seers  sync.WaitGroup      // previews under way
	mods   sync.Mutex          // one writer of the module store
}

// New checks the options and finds the binary: the configured path, else one on PATH that
// satisfies the constraint, else one installed into StateDir/bin. The error is ErrNoBinary, with
// a hint, when there is none.
func New(ctx context.Context, opts Options) (*Driver, error) {
	opts, err := opts.checked()
	if err != nil {
		return nil, err
	}
	b, err := parseBackend(opts.Backend)
	if err != nil {
		return nil, err
	}
	d := &Driver{
		opts: opts, backend: b, live: map[string]*Running{}, ready: map[string]*Ready{},
		slots: semaphore.NewWeighted(2 * int64(opts.Concurrency)), previews: semaphore.NewWeighted(int64(opts.Concurrency)),
	}
	d.ctx, d.stop = context.WithCancel(context.WithoutCancel(ctx))
	d.open, d.shut = context.WithCancel(context.WithoutCancel(ctx))
	for _, dir := range []string{"shards", "modules", "archive", "bin"} {
		if err := os.MkdirAll(filepath.Join(opts.StateDir, dir), 0o700); err != nil {
			return nil, fmt.Errorf("creating the state directory: %w", err)
		}
	}
	d.pruneArchive(time.Now())
	if d.binary, d.version, err = d.findBinary(ctx); err != nil {
		return d, err
	}
	d.file, err = os.Stat(d.binary)
	return d, err
}

func (o Options) checked() (Options, error) {
	if !filepath.IsAbs(o.StateDir) {
		return o, fmt.Errorf("state directory %q: an absolute path is needed", o.StateDir)
	}
	if o.Mirror != "" && !filepath.IsAbs(o.Mirror) {
		return o, fmt.Errorf("provider mirror %q: an absolute path is needed", o.Mirror)
	}
	if err := checkEnv(o.Env); err != nil {
		return o, err
	}
	if o.Self == "" {
		self, err := os.Executable()
		if err != nil {
			return o, fmt.Errorf("finding this binary to run it as the runner: %w", err)
		}
		o.Self = self
	}
	if o.RunnerArgs == nil {
		o.RunnerArgs = []string{"runner"}
	}
	o.Constraint = cmp.Or(o.Constraint, DefaultConstraint)
	o.Concurrency = max(cmp.Or(o.Concurrency, 4), 1)
	o.Budgets = o.Budgets.withDefaults()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// checkEnv refuses names that terraform-exec manages itself, before a run trips over them.
func checkEnv(names []string) error {
	env := map[string]string{}
	for _, name := range names {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return fmt.Errorf("environment variable %q: not a name", name)
		}
		env[name] = ""
	}
	if bad := tfexec.ProhibitedEnv(env); len(bad) > 0 {
		slices.Sort(bad)
		return fmt.Errorf("environment variables %s can't be handed to Terraform: they change how it is driven; set module variables in the pool instead", strings.Join(bad, ", "))
	}
	return nil
}

// Remote tells that the states are in a backend, which may take its time to answer.
func (d *Driver) Remote() bool { return d.backend != nil }

// Binary returns the path and the version of the binary that runs are made with.
func (d *Driver) Binary() (path, version string) {
	d.known.Lock()
	defer d.known.Unlock()
	return d.binary, d.version
}

// Started counts the Terraform processes that this driver and its finished runs ever started.
// It is what shows that an idle tick starts none.
func (d *Driver) Started() int64 { return d.started.Load() }
