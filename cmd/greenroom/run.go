package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"greenroom/internal/session"
	"greenroom/internal/ssh"
)

func newRun() *cobra.Command {
	var w wishes
	var id string
	cmd := &cobra.Command{
		Use:   "run (--cache CACHE | --lease LEASE) -- COMMAND [ARGUMENT...]",
		Short: "Run a command inside a guest and pass its exit code on",
		Long: "Run a command inside a guest over SSH and pass its exit code on. With --cache a guest is leased for it and released\n" +
			"with the outcome; with --lease it runs in the guest of that lease. A single argument is a line for the guest's shell;\n" +
			"several are one command with its arguments as they are.",
		Example: "  greenroom run --cache ci -- 'cd src && make check'",
		Args:    commandArgs,
	}
	w.flags(cmd)
	cmd.Flags().StringVar(&id, "lease", "", "run in the guest of this lease")
	at := linked(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := enter(cmd, at, w, id)
		if err != nil {
			return err
		}
		return settle(cmd, s, func() (int, error) {
			return inGuest(cmd, s, func(ctx context.Context, guest *ssh.Client) (int, error) {
				return runRead(ctx, cmd, guest, commandLine(args))
			})
		})
	}
	return cmd
}

// runRead runs a line in the guest for as long as somebody reads what it prints.
func runRead(ctx context.Context, cmd *cobra.Command, guest *ssh.Client, line string) (int, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	return guest.Run(ctx, line, cmd.InOrStdin(), read{cmd.OutOrStdout(), cancel}, read{cmd.ErrOrStderr(), cancel}, nil)
}

// read hands output on, and ends the work when it cannot: with the exit code of SIGPIPE, and as silently, when nobody reads.
type read struct {
	to  io.Writer
	end context.CancelCauseFunc
}

func (r read) Write(p []byte) (int, error) {
	n, err := r.to.Write(p)
	switch {
	case errors.Is(err, syscall.EPIPE):
		r.end(&exitError{Code: 128 + int(syscall.SIGPIPE)})
	case err != nil:
		r.end(fmt.Errorf("the output could not be written: %w", err))
	}
	return n, err
}

// owners are the commands that have something to give back, take away or make good before they end.
var owners = []string{"with", "run", "ssh", "cp", "acquire", "module test", "demo", "token create", "serve"}

func owns(cmd *cobra.Command) bool {
	return slices.Contains(owners, strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" "))
}

// heedPipes makes a write that nobody reads an error, where SIGPIPE would end this process and leave behind what it owns. Unlike
// an ignored signal it is not handed down to commands.
func heedPipes() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// commandLine is what the guest's shell is given.
func commandLine(args []string) string {
	if len(args) == 1 {
		return args[0]
	}
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = shellQuote(a)
	}
	return strings.Join(quoted, " ")
}

// enter leases a guest, or enters the lease of that id.
func enter(cmd *cobra.Command, at *link, w wishes, id string) (*session.Session, error) {
	r, err := w.request()
	if err != nil {
		return nil, err
	}
	if id != "" && (w.cache != "" || w.labels != nil || w.atLeast != nil || w.ttl != 0 || w.wait != "") {
		return nil, usage("--lease names the guest already; leave out what would choose another")
	}
	if id == "" && cmd.Flags().Changed("lease") { // such as a variable that is not set
		return nil, usage("--lease is empty: name a lease, or leave it out to take another guest")
	}
	patience := later
	if id != "" {
		patience = soon
	}
	c, err := at.open(cmd, patience)
	if err != nil {
		return nil, err
	}
	o := session.Options{Request: r, Queued: inLine(cmd), Loud: loud(cmd)}
	var s *session.Session
	if id != "" {
		s, err = session.Attach(cmd.Context(), c, id, o)
	} else {
		s, err = session.Open(cmd.Context(), c, o)
	}
	if err != nil {
		return nil, unleased(cmd, err)
	}
	cutTTL(cmd, r, s.Lease())
	return s, nil
}

var errLost = errors.New("the lease was lost before the work was done; its guest may be somebody else's")

// inGuest logs in and works there until it is done, the command is interrupted, or the lease is lost.
func inGuest(cmd *cobra.Command, s *session.Session, work func(context.Context, *ssh.Client) (int, error)) (int, error) {
	ctx, cancel := context.WithCancelCause(cmd.Context())
	defer cancel(nil)
	quits := make(chan os.Signal, 1)
	signal.Notify(quits, syscall.SIGQUIT) // it would end this process before the guest is given back
	defer signal.Stop(quits)
	go func() {
		select {
		case <-s.Lost():
			cancel(errLost)
		case <-quits:
			cancel(&exitError{Code: 128 + int(syscall.SIGQUIT), Err: errors.New("ended by SIGQUIT")})
		case <-ctx.Done():
		}
	}()
	guest, err := s.Dial(ctx)
	if err != nil {
		return -1, err
	}
	defer guest.Close()
	return work(ctx, guest)
}
