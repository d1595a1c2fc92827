package terraform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// init, plan and apply are started here and not by terraform-exec, which asks the binary for its version before each run that
// speaks JSON: a process more, that takes as long as a small plan does. What is known of the version comes with the intent.

// command is one Terraform process whose output is a stream.
type command struct {
	args []string
	out  io.Writer
}

func initCommand(out io.Writer, speaksJSON bool, providers string) command {
	args := []string{"init", "-input=false", "-no-color", "-reconfigure"}
	if speaksJSON {
		args = append(args, "-json")
	} else {
		out = io.Discard // prose
	}
	if providers != "" {
		args = append(args, "-plugin-dir="+providers)
	}
	return command{args, out}
}

// planCommand plans as options say, into file where there is one.
func planCommand(out io.Writer, file string, options ...string) command {
	args := append([]string{"plan", "-json", "-input=false", "-no-color", "-detailed-exitcode"}, options...)
	if file != "" {
		args = append(args, "-out="+file)
	}
	return command{args, out}
}

// applyCommand applies a plan file, or plans by itself where there is none.
func applyCommand(out io.Writer, file ...string) command {
	return command{append([]string{"apply", "-json", "-input=false", "-no-color", "-auto-approve"}, file...), out}
}

// changesFound is how plan exits with -detailed-exitcode when there is something to do.
const changesFound = 2

// run runs a command in the session's directory until it ends; the end of ctx is one SIGINT. Meanwhile it does what is to
// be done beside it, which must not take long.
func (c *session) run(ctx context.Context, what command, beside ...func()) error {
	var complaint strings.Builder
	cmd := c.command(ctx, what, &complaint)
	err := cmd.Start()
	if err == nil {
		for _, do := range beside {
			do()
		}
		err = cmd.Wait()
	}
	return commandError(err, &complaint)
}

func (c *session) command(ctx context.Context, what command, complaint io.Writer) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.binary, what.args...)
	cmd.Dir, cmd.Env = c.work, slices.Clone(c.env)
	if !c.hasProviders() && (c.alone || what.args[0] != "apply") {
		cmd.Env = slices.Concat(c.thrifty, c.env) // what is asked for by name wins
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = c.waitDelay()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.Stdout, cmd.Stderr = what.out, &boundedWriter{w: complaint, left: maxTail}
	return cmd
}

// commandError adds what a command that failed has said.
func commandError(err error, complaint fmt.Stringer) error {
	if err != nil {
		return fmt.Errorf("%w\n%s", err, complaint)
	}
	return nil
}

// killed tells that a command did not end by itself, or by a panic: Terraform exits with 0, or with 1 for errors.
func killed(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	return ok && exit.ExitCode() != 1 || errors.Is(err, exec.ErrWaitDelay)
}

func (c *session) hasProviders() bool {
	_, err := os.Stat(filepath.Join(c.work, lockFile))
	return !errors.Is(err, os.ErrNotExist)
}

// foundChanges takes the exit of a plan that has found something to do for no error.
func foundChanges(err error) (bool, error) {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == changesFound {
		return true, nil
	}
	return false, err
}

// roomy spares a short-lived process the collecting of garbage as long as it is small, which takes a third of a run of a small
// shard: our runner, and a Terraform without providers that applies nothing, or nothing that starts anything. Providers would
// inherit it, and so would what a provisioner starts, which may be large and live for long.
var roomy = []string{"GOGC=off", "GOMEMLIMIT=256MiB"}

// ours are the variables of all such settings. A provisioner whose environment has them inherits none.
var ours = []string{"GOGC", "GOMEMLIMIT", "GOMAXPROCS"}

// thrifty are the settings of such processes. Where there is a run for each processor, one of them is enough for each: that takes a
// tenth of the work off them.
func (in intent) thrifty() []string {
	if in.Crowded {
		return append([]string{"GOMAXPROCS=1"}, roomy...)
	}
	return roomy
}

// waitDelay is what is left when our own kill of the whole process group, which comes first, has failed.
func (c *session) waitDelay() time.Duration { return c.budgets.Interrupt + 5*time.Second }

// commandEnv is the environment of init, plan and apply.
func commandEnv(env map[string]string) []string {
	list := []string{"TF_IN_AUTOMATION=1"} // spare us hints for people
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}
