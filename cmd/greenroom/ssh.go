package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"greenroom/internal/ssh"
)

func newSSH() *cobra.Command {
	var w wishes
	var id string
	cmd := &cobra.Command{
		Use:   "ssh (--cache CACHE | --lease LEASE)",
		Short: "Open a shell in a guest",
		Long: "Open a shell in a guest, on a terminal when standard input is one. With --cache a guest is leased for it and released\n" +
			"when the shell ends; with --lease the shell opens in the guest of that lease.",
		Args: exactArgs(),
	}
	w.flags(cmd)
	cmd.Flags().StringVar(&id, "lease", "", "open it in the guest of this lease")
	at := linked(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := enter(cmd, at, w, id)
		if err != nil {
			return err
		}
		return settle(cmd, s, func() (int, error) {
			return inGuest(cmd, s, func(ctx context.Context, guest *ssh.Client) (int, error) {
				return shell(ctx, cmd, guest)
			})
		})
	}
	return cmd
}

func shell(ctx context.Context, cmd *cobra.Command, guest *ssh.Client) (int, error) {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return runRead(ctx, cmd, guest, "exec sh -s")
	}
	fd := int(in.Fd())
	columns, rows, err := term.GetSize(fd)
	if err != nil {
		return -1, err
	}
	raw, err := term.MakeRaw(fd)
	if err != nil {
		return -1, err
	}
	defer func() { _ = term.Restore(fd, raw) }() // there is nobody left to tell
	sizes, stop := watchSize(fd)
	defer stop()
	kind := os.Getenv("TERM")
	if kind == "" {
		kind = "xterm"
	}
	return guest.Shell(ctx, in, cmd.OutOrStdout(), cmd.ErrOrStderr(), kind, ssh.Size{Columns: columns, Rows: rows}, sizes)
}

// watchSize tells of each new size of the terminal.
func watchSize(fd int) (<-chan ssh.Size, func()) {
	changed, sizes, done := make(chan os.Signal, 1), make(chan ssh.Size), make(chan struct{})
	signal.Notify(changed, syscall.SIGWINCH)
	go func() {
		for {
			select {
			case <-done:
				return
			case <-changed:
			}
			if columns, rows, err := term.GetSize(fd); err == nil {
				select {
				case sizes <- ssh.Size{Columns: columns, Rows: rows}:
				case <-done:
				}
			}
		}
	}()
	return sizes, func() { signal.Stop(changed); close(done) }
}
