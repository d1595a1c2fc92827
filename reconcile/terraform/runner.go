package terraform

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"greenroom/reconcile/plan"
)

// inheritedLock is the file descriptor by which the daemon hands the shard's lock to the runner.
const inheritedLock = 3

const (
	maxLog  = 1 << 20
	reserve = 256 << 10
)

// RunnerMain is the body of `greenroom runner DIR`: it carries out the run whose intent is in dir,
// writes its result, and returns the exit code. The end of ctx is the one interrupt of the run.
func RunnerMain(ctx context.Context, dir string) int {
	// terraform-exec asks the kernel to kill Terraform when the thread that started it dies.
	// The main goroutine, locked to its thread, keeps that thread for the whole run.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	syscall.Umask(0o077)
	log := slog.New(slog.NewJSONHandler(&boundedWriter{w: os.Stderr, left: maxLog}, nil))
	if err := runIntent(ctx, shardDir(dir), log); err != nil {
		log.Error("the run has no result", "err", err)
		return 1
	}
	return 0
}

func runIntent(ctx context.Context, dir shardDir, log *slog.Logger) error {
	lock, err := dir.ownLock()
	if err != nil {
		return err
	}
	defer lock.Close()
	if !awaitIntent(dir) {
		return nil
	}
	raw, err := readBounded(dir.intent())
	if err != nil {
		return fmt.Errorf("reading the intent: %w", err)
	}
	var in intent
	if err := json.Unmarshal(raw, &in); err != nil {
		return fmt.Errorf("reading the intent: %w", err)
	}
	log = log.With("pool", in.Job.Pool, "shard", in.Job.Shard, "run", in.Job.Run)
	if in.Preview != "" {
		if err := dir.reserve(); err != nil {
			log.Warn("no room for the result could be reserved", "err", err)
		}
		held, letGo := whileHeld(ctx, os.Stdin)
		defer letGo()
		ctx = held
	}
	out := perform(ctx, dir, in, log)
	if err := os.Remove(dir.file("reserve")); err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Warn("the reserve could not be freed", "err", err)
	}
	return replaceJSON(dir.result(), out) // after a crash of the machine the run is lost, and planned again
}

// ownLock takes over the lock that the daemon passed on, or takes it when run by hand. The lock must
// not reach Terraform's children: a guest that outlives the run would hold it for ever.
func (s shardDir) ownLock() (*os.File, error) {
	var file, inherited syscall.Stat_t
	err := cmp.Or(syscall.Stat(s.lock(), &file), syscall.Fstat(inheritedLock, &inherited))
	if err == nil && file.Dev == inherited.Dev && file.Ino == inherited.Ino {
		syscall.CloseOnExec(inheritedLock)
		lock := os.NewFile(inheritedLock, s.lock())
		return lock, sign(lock, os.Getpid())
	}
	lock, err := s.tryLock()
	if err != nil {
		return nil, err
	}
	return lock, sign(lock, os.Getpid())
}

// sign writes the process id of the lock's holder into it, so that it can be signalled.
func sign(lock *os.File, pid int) error {
	text := strconv.Itoa(pid)
	_, err := lock.WriteAt([]byte(text), 0)
	return cmp.Or(err, lock.Truncate(int64(len(text))))
}

// reserve keeps room for the result on a disk that fills up during the run.
func (s shardDir) reserve() error {
	return os.WriteFile(s.file("reserve"), make([]byte, reserve), 0o600)
}

// boundedWriter drops what goes past its limit, so that a log can't fill the disk.
type boundedWriter struct {
	w    io.Writer
	left int
}

func (b *boundedWriter) Write(p []byte) (int, error) {
	if b.left < len(p) {
		return len(p), nil
	}
	b.left -= len(p)
	return b.w.Write(p)
}

// run is one run of one shard, within the runner.
type run struct {
	dir        shardDir
	in         intent
	log        *slog.Logger
	session    *session
	waiting    *standby // while a plan is made
	saved      bool     // the state, before it is written
	module     declared
	redact     *redaction
	before     rootInputs     // of the run before this one: their secrets may be in the state
	applied    map[string]int // incarnations
	settled    bool           // the outputs in the state tell what exists
	unfinished []string       // guests that have not failed, and are not whole because others have
	out        Outcome
	told       plan.Shard // by a preview
}

// answer is what a runner leaves behind.
type answer struct {
	Outcome
	Plan plan.Shard `json:"plan,omitzero"` // of a preview
}

// perform carries an intent out and says what came of it. It never fails: every error is a Fault.
func perform(ctx context.Context, dir shardDir, in intent, log *slog.Logger) answer {
	r := &run{dir: dir, in: in, log: log, applied: map[string]int{}}
	r.out = Outcome{Run: in.Job.Run, Started: time.Now().UTC(), Failed: map[string]string{}}
	r.redact = redactor(r.secrets(declared{}))
	total := in.Budgets.withDefaults().Total
	budget, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), total, &budgetError{"the run has been going on", total})
	defer cancel()
	live, interrupt := context.WithCancelCause(budget)
	defer interrupt(nil)
	defer context.AfterFunc(ctx, func() { interrupt(errInterrupted) })()
	steps := r.steps
	if in.Preview != "" {
		steps = r.preview
	}
	err := steps(live)
	if err != nil {
		r.out.Err = r.fault(err)
		log.Warn("run ended with a fault", "err", r.out.Err)
	}
	if r.session != nil {
		r.out.Steps = r.session.steps
	}
	r.out.Ended = time.Now().UTC()
	return answer{r.out, r.told}
}

// steps is the whole run, in order.
func (r *run) steps(ctx context.Context) error {
	err := r.prepare(ctx)
	for _, step := range []func(context.Context) error{r.init, r.pushErrored, r.reconcile} {
		if err == nil {
			err = step(ctx)
		}
	}
	// What exists is told whatever happened: with a context of its own, for the run's may be over.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return errors.Join(err, r.collect(ctx, err == nil))
}

// prepare makes the work directory what the run needs. It starts no process.
func (r *run) prepare(context.Context) error {
	for _, dir := range []string{r.dir.work(), r.dir.backups()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if err := readJSON(r.own().applied(), &r.applied); err != nil {
		return err
	}
	if err := readJSON(r.own().inputs(), &r.before); err != nil {
		r.log.Warn("the inputs of the last run can't be read: its secrets are not known", "err", err)
	}
	if err := r.copyModule(); err != nil {
		return err
	}
	if r.in.Job.Module.Source == "" { // the files of a remote source are known only after init
		if err := r.checkContract(filepath.Join(r.dir.work(), "module")); err != nil {
			return err
		}
	}
	if err := r.writeRoot(); err != nil {
		return err
	}
	session, err := newSession(r.in, r.dir.work(), r.cliConfig())
	if err != nil {
		return err
	}
	r.session = session
	return nil
}

// checkContract holds the module's files against the contract.
func (r *run) checkContract(dir string) error {
	mod, err := readModule(dir)
	if err == nil {
		err = checkModule(mod, r.in.variables())
	}
	if err != nil {
		return &Fault{Kind: FaultContract, Message: err.Error(), Hint: "modules/README.md has the contract; greenroom module test checks a module"}
	}
	r.module = mod
	r.redact = redactor(r.secrets(mod))
	return nil
}

// secrets are what must not be kept in logs or results.
func (r *run) secrets(mod declared) []string {
	found := slices.Concat(secretsOf(mod, r.in.variables()), secretsOf(mod, r.before.Variables), secretsIn(decoded(r.in.Backend), nil, false))
	for _, g := range slices.AppendSeq(slices.Collect(maps.Values(r.in.Job.Guests)), maps.Values(r.before.Guests)) {
		found = append(found, g.UserData)
	}
	for _, name := range r.in.Env {
		value := os.Getenv(name)
		if _, err := os.Stat(value); err != nil { // the path of a file that exists is no secret
			found = append(found, value)
		}
	}
	return found
}

// fault turns whatever ended a run into its Fault.
func (r *run) fault(err error) *Fault {
	var fault *Fault
	var budget *budgetError
	var guard *GuardError
	again := "its outcome is unknown: plan again"
	if r.in.Preview != "" {
		again = "plan again"
	}
	switch {
	case errors.As(err, &fault):
	case errors.As(err, &budget):
		fault = &Fault{Kind: FaultBudget, Message: budget.Error(), Hint: again}
	case errors.Is(err, errInterrupted):
		fault = &Fault{Kind: FaultInterrupted, Message: "the run was interrupted", Hint: again}
	case errors.As(err, &guard):
		fault = &Fault{Kind: FaultGuard, Message: guard.Error(), Hint: "the module must key every resource of a guest by the guest's name, and change nothing else"}
	case isDiskFull(err):
		fault = &Fault{Kind: FaultDisk, Message: err.Error(), Hint: "free some space in the state directory"}
	default:
		fault = &Fault{Kind: FaultInit, Message: err.Error()}
	}
	fault.Message = r.redact.Replace(fault.Message)
	return fault
}

func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
