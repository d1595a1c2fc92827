package guestd

import (
	"os"
	"os/exec"
	"os/signal"
	"sync"
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

// awaitEnd blocks until a child has ended and leaves it unreaped, so that its pid, and with it its
// process group, cannot become somebody else's yet.
func awaitEnd(pid int) {
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
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
		pid := childPID(&info)
		if err != nil || pid == 0 || c.own[pid] {
			return
		}
		if _, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); err != nil {
			return
		}
	}
}

// childPID reads si_pid of a siginfo_t filled in by waitid(2), which x/sys does not name: it
// follows three ints, aligned to a pointer. 0 means that no child has ended.
func childPID(info *unix.Siginfo) int {
	const offset = 8 + unsafe.Sizeof(uintptr(0))
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), offset)))
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
