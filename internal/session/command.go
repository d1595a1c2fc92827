package session

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Command runs a program on this machine while a session lasts, and returns its exit code: 128 plus the signal's number when one
// ended it. SIGINT and SIGTERM are passed on to it. When lost closes, it is told to end with SIGTERM, because the guest that it
// works in may be somebody else's. err says that it could not be started.
func Command(cmd *exec.Cmd, lost <-chan struct{}) (int, error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return -1, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case sig := <-signals:
			// A terminal sends SIGINT to the whole foreground group: a second one would be taken for "at once".
			if sig != syscall.SIGINT || !foreground() {
				_ = cmd.Process.Signal(sig)
			}
		case <-lost:
			lost = nil
			_ = cmd.Process.Signal(syscall.SIGTERM)
		case err := <-done:
			return exitCode(err)
		}
	}
}

func exitCode(err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case !errors.As(err, &exit):
		return -1, err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return exit.ExitCode(), nil
}

// foreground tells whether this process belongs to the group that its terminal sends signals to; see tcgetpgrp(3).
func foreground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
