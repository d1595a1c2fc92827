package guestd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is one line of the host's process table. A pid and its start time are never reused
// together.
type process struct {
	pid, ppid int
	start     uint64 // clock ticks since boot
}

// processes reads the living ones; a zombie can do no more harm.
func processes() (map[int]process, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	all := make(map[int]process, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if p, alive := inspect(pid); alive {
			all[pid] = p
		}
	}
	return all, nil
}

// inspect reads /proc/<pid>/stat (proc_pid_stat(5)). The name in its second field may hold spaces
// and parentheses, so fields count from the last parenthesis.
func inspect(pid int) (p process, alive bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, false
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return process{}, false
	}
	ppid, err1 := strconv.Atoi(fields[1])
	start, err2 := strconv.ParseUint(fields[19], 10, 64)
	return process{pid: pid, ppid: ppid, start: start}, err1 == nil && err2 == nil
}

// marked tells whether a process carries the mark of dir. What it does not let us read is not ours.
func marked(pid int, dir string) bool {
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false
	}
	mark := []byte(dirVar + "=" + dir)
	for entry := range bytes.SplitSeq(environ, []byte{0}) {
		if bytes.Equal(entry, mark) {
			return true
		}
	}
	return false
}

// members are the processes of the guest of dir: those that carry its mark and all that descend
// from them. The caller itself is none.
func members(dir string) ([]process, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	ours := map[int]bool{}
	var belongs func(p process, depth int) bool
	belongs = func(p process, depth int) bool {
		known, seen := ours[p.pid]
		if seen {
			return known
		}
		parent, has := all[p.ppid]
		ours[p.pid] = marked(p.pid, dir) || has && depth < len(all) && belongs(parent, depth+1)
		return ours[p.pid]
	}
	var found []process
	for pid, p := range all {
		if pid != os.Getpid() && belongs(p, 0) {
			found = append(found, p)
		}
	}
	return found, nil
}

// signal reaches exactly that process: os.FindProcess holds a pidfd, and the start time is
// compared after it was taken.
func (p process) signal(sig syscall.Signal) error {
	handle, err := os.FindProcess(p.pid)
	if err != nil {
		return err
	}
	defer handle.Release()
	if now, alive := inspect(p.pid); !alive || now.start != p.start {
		return nil
	}
	if err := handle.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal process %d: %w", p.pid, err)
	}
	return nil
}

// end asks every process of the guest of dir, except the caller, to end; past grace it kills
// them, until none is left: twice in a row, because one may fork just behind the reader of /proc.
func end(ctx context.Context, dir string, grace time.Duration) error {
	begun, asked, quiet := time.Now(), map[process]bool{}, 0
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		left, err := members(dir)
		if err != nil {
			return err
		}
		if len(left) > 0 {
			quiet = 0
		} else if quiet++; quiet == 2 {
			return nil
		}
		for _, p := range left {
			err = errors.Join(err, endOne(p, asked, time.Since(begun) >= grace))
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d processes of the guest do not end: %w", len(left), context.Cause(ctx))
		case <-tick.C:
		}
	}
}

func endOne(p process, asked map[process]bool, force bool) error {
	if force {
		return p.signal(syscall.SIGKILL)
	}
	if asked[p] {
		return nil
	}
	asked[p] = true
	return p.signal(syscall.SIGTERM)
}
