package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"

	"github.com/spf13/cobra"

	"greenroom/internal/session"
	"greenroom/internal/ssh"
	"greenroom/lease/client"
	"greenroom/reconcile/plan"
)

func newWith() *cobra.Command {
	var w wishes
	cmd := &cobra.Command{
		Use: "with [--cache CACHE] [flags] -- COMMAND [ARGUMENT...]", DisableFlagsInUseLine: true, // those behind COMMAND are its own
		Short: "Run a command on this machine with a guest leased for it",
		Long: "Run a command on this machine with a guest leased for it. The lease is renewed while the command runs, and released with\n" +
			"its outcome. The command finds GREENROOM_HOST, _PORT, _USER, _GUEST and _LEASE in its environment, and in\n" +
			"GREENROOM_SSH_CONFIG a configuration for OpenSSH. Its exit code is passed on: 128+n when signal n ended it, 127 when\n" +
			"there is no such command, and 126 when it cannot be run.",
		Example: "  greenroom with --cache ci -- sh -c 'ssh -F \"$GREENROOM_SSH_CONFIG\" guest uname -a'",
		Args:    commandArgs,
	}
	w.flags(cmd)
	at := linked(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		path, err := exec.LookPath(args[0])
		if err != nil {
			return unstarted(args[0], "nothing was leased", err)
		}
		r, err := w.request()
		if err != nil {
			return err
		}
		c, err := at.open(cmd, later)
		if err != nil {
			return err
		}
		return lend(cmd, c, r, path, args)
	}
	return cmd
}

// commandArgs asks for a command behind --.
func commandArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 || cmd.ArgsLenAtDash() != 0 {
		return usage("%s needs a command behind --, as in %q", cmd.CommandPath(), cmd.CommandPath()+" --cache ci -- make check")
	}
	return nil
}

// lend runs a command while a guest is leased for it.
func lend(cmd *cobra.Command, c *client.Client, r client.Request, path string, args []string) (err error) {
	files, key, err := session.NewFiles()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, files.Remove()) }()
	renewed := func(l client.Lease) {
		if err := files.Certify(l); err != nil {
			loud(cmd)(fmt.Sprintf("the renewed certificate could not be written: %v", err))
		}
	}
	s, err := session.Open(cmd.Context(), c, session.Options{Request: r, Key: key, Queued: inLine(cmd), Loud: loud(cmd), Renewed: renewed})
	if err != nil {
		return unleased(cmd, err)
	}
	cutTTL(cmd, r, s.Lease())
	return settle(cmd, s, func() (int, error) {
		if err := cmd.Context().Err(); err != nil {
			return -1, err // interrupted between the grant and now
		}
		if err := files.Write(s.Lease()); err != nil {
			return -1, err
		}
		run := &exec.Cmd{Path: path, Args: args, Stdin: cmd.InOrStdin(), Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr()}
		run.Env = append(os.Environ(), files.Environ(s.Lease())...)
		defer whenInterrupted(cmd, fmt.Sprintf("guest %s is given back when %s has ended", s.Lease().Guest.Name, args[0]))()
		code, err := session.Command(run, s.Lost())
		if err != nil {
			err = unstarted(args[0], "the guest was given back", err)
		}
		return code, err
	})
}

// unstarted is the error of a command that cannot be run, with the exit code of shells: 127 when there is none, 126 when there
// is one that is not to be run.
func unstarted(name, then string, err error) error {
	code, hint := 126, ""
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		code = 127
		if failed, ok := errors.AsType[*fs.PathError](err); ok && exists(failed.Path) {
			hint = "; see whether the interpreter is there that its first line names"
		}
	case errors.Is(err, fs.ErrPermission):
		hint = "; see whether it is executable with \"ls -l\""
	case errors.Is(err, syscall.ENOEXEC):
		hint = "; a script begins with a line such as #!/bin/sh"
	}
	return &exitError{Code: code, Err: fmt.Errorf("%s cannot be run: %w%s; %s", name, ssh.Innermost(err), hint, then)} // the operation and the name are said already
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// whenInterrupted says what follows when the command is interrupted, and at once: what it runs may take its time to end. What
// it returns ends that, and comes back when nothing is being said.
func whenInterrupted(cmd *cobra.Command, then string) func() {
	said := make(chan struct{})
	stop := context.AfterFunc(cmd.Context(), func() {
		defer close(said)
		fmt.Fprintf(cmd.ErrOrStderr(), "greenroom: interrupted; %s\n", plan.Clean(then))
	})
	return func() {
		if !stop() {
			<-said
		}
	}
}

// settle does the work of a session, gives the guest back with the outcome, and makes the work's exit code this command's.
func settle(cmd *cobra.Command, s *session.Session, work func() (int, error)) error {
	code, err := work()
	then := "the guest was given back"
	if s.Attached() {
		then = "the lease goes on"
	}
	outcome := client.Release{Outcome: "pass"}
	if code != 0 || err != nil {
		outcome.Outcome = "fail"
	}
	if err := s.Close(cmd.Context(), outcome); err != nil {
		loud(cmd)(err.Error())
		then = "the guest could not be given back"
	}
	if err == nil && code == 0 && over(s.Lost()) {
		err = errLost // done in a guest that may have been somebody else's by then
	}
	switch {
	case err != nil && cmd.Context().Err() != nil:
		return interrupted(then)
	case err != nil:
		return hinted(err)
	case code != 0:
		return &exitError{Code: code}
	}
	return nil
}

func over(lost <-chan struct{}) bool {
	select {
	case <-lost:
		return true
	default:
		return false
	}
}

// unleased says why no guest was leased.
func unleased(cmd *cobra.Command, err error) error {
	if errors.Is(err, client.ErrUncancelled) {
		return interrupted(client.ErrUncancelled.Error())
	}
	if cmd.Context().Err() != nil {
		return interrupted("the request was cancelled")
	}
	if waited, ok := errors.AsType[*client.WaitedError](err); ok {
		return advised(err, fmt.Sprintf("wait longer with --wait, and see what keeps guests away with \"greenroom cache show %s\" and \"greenroom status\"", waited.Cache))
	}
	return hinted(err)
}

// interrupted is the end by SIGINT or SIGTERM, as shells number the former.
func interrupted(what string) error {
	return &exitError{Code: 128 + int(syscall.SIGINT), Err: errors.New("interrupted; " + what)}
}

func loud(cmd *cobra.Command) func(string) {
	return func(text string) { fmt.Fprintf(cmd.ErrOrStderr(), "greenroom: WARNING: %s\n", plan.Clean(text)) }
}
