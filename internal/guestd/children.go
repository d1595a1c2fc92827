package guestd

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// children keeps the processes that sessions wait for apart from the orphans that fall to guestd
// as their subreaper (or as init of its pid namespace) and must be reaped by it.
type children struct {
	mu  sync.Mutex
	own map[int]bool
}

func newChildren() *children { return &children{own: map[int]bool{}} }

// start starts cmd as a child that its starter will wait for by wait.
func (c *children) start(cmd *exec.Cmd) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	c.own[cmd.Process.Pid] = true
	return nil
}

// Values of si_code in waitid(2).
const (
	cldExited = 1
	cldDumped = 3
)

// ending is how a process ended: its exit code, or the signal that ended it.
type ending struct {
	code   int
	signal syscall.Signal // 0: none
	core   bool
}

// awaitEnd blocks until a child has ended and leaves it unreaped, so that its pid, and with it its
// process group, cannot become somebody else's yet.
func awaitEnd(pid int) ending {
	var info unix.Siginfo
	err := error(unix.EINTR)
	for errors.Is(err, unix.EINTR) {
		err = unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
	}
	status := int(childOf(&info).status)
	switch {
	case err != nil:
		return ending{code: 255}
	case info.Code == cldExited:
		return ending{code: status}
	}
	return ending{signal: syscall.Signal(status), core: info.Code == cldDumped}
}

// wait reaps a child of start.
func (c *children) wait(cmd *exec.Cmd) error {
	err := cmd.Wait()
	c.mu.Lock()
	delete(c.own, cmd.Process.Pid)
	c.mu.Unlock()
	c.reap()
	return err
}

// reap reaps the orphans that have ended. An ended child of ours hides those behind it until it
// has been waited for, and wait then calls reap again.
func (c *children) reap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		pid := int(childOf(&info).pid)
		if err != nil || pid == 0 || c.own[pid] {
			return
		}
		if _, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); err != nil {
			return
		}
	}
}

// child is the part of a siginfo_t that waitid(2) fills in and x/sys does not name. It follows
// three ints, aligned to a pointer.
type child struct {
	pid    int32 // 0: no child has ended
	_      uint32
	status int32 // exit code or signal number, depending on info.Code
}

func childOf(info *unix.Siginfo) child {
	const offset = 8 + unsafe.Sizeof(uintptr(0))
	return *(*child)(unsafe.Add(unsafe.Pointer(info), offset))
}

// watch reaps orphans as they end, until stop is closed.
func (c *children) watch(stop <-chan struct{}) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGCHLD)
	defer signal.Stop(signals)
	for {
		select {
		case <-stop:
			return
		case <-signals:
			c.reap()
		}
	}
}
