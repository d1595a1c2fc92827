package terraform

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// process is what /proc/<pid>/stat (proc(5)) says of one process.
type process struct{ pid, parent, group, session int }

// processes lists those for which pick is true. A process may end at any time: what can't be read
// is left out.
func processes(pick func(process) bool) []process {
	files, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well formed
	var found []process
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if p, err := parseStat(raw); err == nil && pick(p) {
			found = append(found, p)
		}
	}
	return found
}

// parseStat reads one line. The command's name may hold anything, so that fields count from the
// last parenthesis.
func parseStat(raw []byte) (p process, err error) {
	end := bytes.LastIndexByte(raw, ')')
	name := bytes.IndexByte(raw, ' ')
	if end < 0 || name < 0 {
		return p, fmt.Errorf("not a stat line")
	}
	if p.pid, err = strconv.Atoi(string(raw[:name])); err != nil {
		return p, err
	}
	var state string
	_, err = fmt.Sscan(string(raw[end+1:]), &state, &p.parent, &p.group, &p.session)
	return p, err
}

// children are the process groups that this process has started.
func children() []process {
	self := os.Getpid()
	return processes(func(p process) bool { return p.parent == self && p.group == p.pid })
}

// killGroups ends Terraform with its providers and provisioners. It is the last resort: the
// instance in flight is lost.
func killGroups(leaders []process) {
	for _, p := range leaders {
		_ = syscall.Kill(-p.pid, syscall.SIGKILL) // it may just have ended
	}
}

// killSession ends everything that a runner has started and that did not leave its session.
func killSession(session int) {
	for _, p := range processes(func(p process) bool { return p.session == session }) {
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
	}
}
