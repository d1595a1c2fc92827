package terraform

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-exec/tfexec"
)

// startGrace is how long a command runs at least before it is interrupted. terraform-exec's error for
// a context that ends within milliseconds of the start can't be formatted, and leaves the child unreaped.
const startGrace = 300 * time.Millisecond

// errInterrupted is the cause of a run that was told to stop.
var errInterrupted = errors.New("interrupted")

// budgetError is the cause of a run that took too long.
type budgetError struct {
	what  string
	limit time.Duration
}

func (e *budgetError) Error() string { return fmt.Sprintf("%s for %s", e.what, e.limit) }

// session runs Terraform commands one after the other, in one directory, and counts them. One
// per run: terraform-exec keeps the writer of a command for the next one.
type session struct {
	tf           *tfexec.Terraform // for what is not in command.go
	binary, work string
	env          []string
	thrifty      []string // settings of what starts nothing but, maybe, providers
	alone        bool     // an apply starts nothing else
	budgets      Budgets
	steps        []Step
}

func newSession(in intent, work, cliConfig string) (*session, error) {
	tf, err := tfexec.NewTerraform(work, in.Binary)
	if err != nil {
		return nil, err
	}
	env := terraformEnv(in.Env, in.Self, in.GuestsDir, cliConfig)
	s := &session{tf: tf, binary: in.Binary, work: work, env: commandEnv(env), thrifty: in.thrifty(), budgets: in.Budgets.withDefaults()}
	if err := tf.SetWaitDelay(s.waitDelay()); err != nil {
		return nil, err
	}
	return s, tf.SetEnv(env)
}

// ask lets terraform-exec know the version, which some of its commands would else ask for unseen.
func (c *session) ask(ctx context.Context) error {
	return c.do(ctx, "version", nil, func(ctx context.Context) error {
		_, _, err := c.tf.Version(ctx, false)
		return err
	})
}

// do runs one command. When ctx ends or a budget runs out, the command gets one SIGINT, then
// Budgets.Interrupt to end, then a SIGKILL for its process group; the error is then the cause.
// s is nil for commands without a stream.
func (c *session) do(ctx context.Context, op string, s *stream, command func(context.Context) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	run, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	began, finished, watched := time.Now(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		c.watch(ctx, op, s, finished, cancel)
	}()
	err := command(run)
	close(finished)
	<-watched
	c.tf.SetStdout(nil)
	if run.Err() != nil {
		err = context.Cause(run) // never the error of terraform-exec, see startGrace
	}
	step := Step{Op: op, Seconds: time.Since(began).Seconds(), Result: "ok"}
	if err != nil {
		step.Result = "failed"
	}
	c.steps = append(c.steps, step)
	return err
}

// patienceAfter is what a command has between the SIGINT and the SIGKILL. One that only reads has nothing to bring to an end.
func (c *session) patienceAfter(op string) time.Duration {
	if op == "output" {
		return min(c.budgets.Interrupt, 5*time.Second)
	}
	return c.budgets.Interrupt
}

func (c *session) watch(ctx context.Context, op string, s *stream, finished <-chan struct{}, cancel context.CancelCauseFunc) {
	earliest := time.NewTimer(startGrace)
	defer earliest.Stop()
	cause := c.overdue(ctx, s, finished)
	if cause == nil {
		return
	}
	select {
	case <-finished:
		return
	case <-earliest.C:
	}
	leaders := children()
	cancel(cause)
	patience := time.NewTimer(c.patienceAfter(op))
	defer patience.Stop()
	select {
	case <-finished:
	case <-patience.C:
		killGroups(leaders)
	}
}

// overdue waits for a reason to interrupt the command; nil means that it has finished.
func (c *session) overdue(ctx context.Context, s *stream, finished <-chan struct{}) error {
	var lines <-chan struct{}
	var silence <-chan time.Time
	timer := time.NewTimer(c.budgets.Start)
	defer timer.Stop()
	if s != nil {
		lines, silence = s.lines, timer.C
	}
	late := &budgetError{"terraform said nothing after its start", c.budgets.Start}
	for {
		select {
		case <-finished:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-lines:
			late = &budgetError{"terraform has been silent", c.budgets.Idle}
			timer.Reset(c.budgets.Idle)
		case <-silence:
			return late
		}
	}
}
