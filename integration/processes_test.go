package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"greenroom/lease"
	"greenroom/lease/client"
)

// living lists the processes of guests in the house, by the guest's directory (<name>.<incarnation>). Every process of a
// guest carries its directory in its environment.
func (h *house) living() map[string][]int {
	out := map[string][]int{}
	for pid, text := range readProcesses("environ") {
		_, rest, _ := strings.Cut("\x00"+text, "\x00GREENROOM_GUEST_DIR=")
		dir, _, _ := strings.Cut(rest, "\x00")
		if strings.HasPrefix(dir, h.dir+"/") {
			out[filepath.Base(dir)] = append(out[filepath.Base(dir)], pid)
		}
	}
	return out
}

// readProcesses reads a file of every process in /proc (proc(5)). A process may end at any time: what can't be read is left out.
func readProcesses(file string) map[int]string {
	out := map[int]string{}
	paths, _ := filepath.Glob("/proc/[0-9]*/" + file)
	for _, path := range paths {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		text, unreadable := os.ReadFile(path)
		if err == nil && unreadable == nil && pid != os.Getpid() {
			out[pid] = string(text)
		}
	}
	return out
}

// strays lists every process that has anything to do with the house: by its command line, working directory or environment.
func (h *house) strays() map[int]string {
	out := map[int]string{}
	lines := readProcesses("cmdline")
	for pid, env := range readProcesses("environ") {
		cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		if strings.Contains(env+"\x00"+lines[pid]+"\x00"+cwd, h.dir+"/") {
			out[pid] = strings.ReplaceAll(lines[pid], "\x00", " ")
		}
	}
	return out
}

// pid is the process of a living guest: that which nobody in its directory has started.
func (h *house) pid(g lease.Guest) int {
	h.Helper()
	pids := h.living()[g.Principal()]
	if len(pids) != 1 {
		h.Fatalf("guest %s has the processes %v, want one", g.Principal(), pids)
	}
	return pids[0]
}

func (h *house) killGuest(g lease.Guest) {
	h.Helper()
	noError(h, syscall.Kill(h.pid(g), syscall.SIGKILL))
}

// close retires every guest and asserts that nothing of the house lives on.
func (h *house) close() {
	defer os.RemoveAll(h.dir)
	defer h.api.Close()
	defer h.clear()
	_, unused := os.Stat(h.path("state"))
	switch {
	case h.Failed():
		h.tellLog()
	case unused == nil:
		h.retireAll()
	}
	if h.server != nil {
		h.stop()
	}
	if h.Failed() {
		return
	}
	// A killed process takes a moment to leave /proc.
	err := eventually(10*time.Second, func() error {
		if left := h.strays(); len(left) > 0 {
			return fmt.Errorf("these processes are left: %v", left)
		}
		return nil
	})
	if err != nil {
		h.Error(err)
	}
}

func (h *house) tellLog() {
	if h.server != nil {
		text := h.server.log.String()
		h.Logf("the server's log:\n%s", text[max(0, len(text)-20000):])
	}
}

// retireAll empties the fleet, as its owner would. A house that follows another source than its own directory comes back to that.
func (h *house) retireAll() {
	h.Helper()
	if h.source != "" && h.server != nil {
		h.stop()
	}
	if h.source != "" {
		h.source, h.args = "", nil
	}
	h.writeText("")
	if h.server == nil {
		h.start()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := eventually(patience, func() error {
		leases, err := h.api.Leases(ctx, "")
		for _, l := range leases {
			_, e := h.api.Release(ctx, l.ID, client.Release{})
			err = errors.Join(err, e)
		}
		guests, e := h.api.Guests(ctx, "")
		if err = errors.Join(err, e); err == nil && len(guests) > 0 {
			err = fmt.Errorf("%d are left, such as %+v", len(guests), guests[0])
		}
		return err
	})
	if err != nil {
		h.Errorf("retiring all guests: %v", err)
		h.tellLog()
		return
	}
	if left := h.living(); len(left) > 0 {
		h.Errorf("no guest is on record, and these live: %v", left)
	}
}

// clear ends what a failed test has left.
func (h *house) clear() {
	for pid, line := range h.strays() {
		h.Logf("ending the left process %d: %s", pid, line)
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// matched waits until the processes of guests are exactly those of the guests on record: one that a run is about to start or to
// end may be missing or left for a moment, one that nobody started or ends stays so.
func (h *house) matched() {
	h.Helper()
	h.until("the processes are those of the guests on record", func() error {
		var wrong []error
		alive := h.living()
		for _, g := range h.guests() {
			if pids := alive[g.Principal()]; len(pids) != 1 {
				wrong = append(wrong, fmt.Errorf("guest %s (%s) has the processes %v, want one", g.Principal(), g.State, pids))
			}
			delete(alive, g.Principal())
		}
		if len(alive) > 0 {
			wrong = append(wrong, fmt.Errorf("leaked guests: no record knows %v", alive))
		}
		return errors.Join(wrong...)
	})
}
