package session

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// grace is what a command has between being told to end and being killed.
const grace = 10 * time.Second

// Command runs a program on this machine while a session lasts, and returns its exit code: 128 plus the signal's number when one
// ended it. SIGINT, SIGQUIT, SIGTERM and SIGHUP are passed on to it. When lost closes, it is told to end with SIGTERM and killed ten
// seconds later, because the guest that it works in may be somebody else's. err says that it could not be started.
func Command(cmd *exec.Cmd, lost <-chan struct{}) (int, error) { return command(cmd, lost, grace) }

// Signals are those that end a command of this program. SIGHUP is none when it was ignored from the start, as under nohup(1).
func Signals() []os.Signal {
	all := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		all = append(all, syscall.SIGHUP)
	}
	return all
}

func command(cmd *exec.Cmd, lost <-chan struct{}, grace time.Duration) (int, error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, append(Signals(), syscall.SIGQUIT)...) // the last would end this process before the guest is given back
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return -1, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var kill <-chan time.Time
	for {
		select {
		case sig := <-signals:
			// A terminal sends these two to the whole foreground group: a second one would be taken for "at once".
			if sig != syscall.SIGINT && sig != syscall.SIGQUIT || !foreground() {
				_ = cmd.Process.Signal(sig)
			}
		case <-lost:
			lost, kill = nil, time.After(grace)
			tell(cmd, syscall.SIGTERM)
		case <-kill:
			tell(cmd, syscall.SIGKILL)
		case err := <-done:
			return exitCode(err)
		}
	}
}

// tell sends a signal to the command, and to its whole process group when it leads one; see kill(2).
func tell(cmd *exec.Cmd, sig syscall.Signal) {
	if group, err := syscall.Getpgid(cmd.Process.Pid); err == nil && group == cmd.Process.Pid {
		_ = syscall.Kill(-group, sig)
		return
	}
	_ = cmd.Process.Signal(sig)
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
