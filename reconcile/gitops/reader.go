package gitops

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"

	"greenroom/reconcile/condition"
)

// ReaderMain is the child that reads what others have written. Its task comes by in, its answers go to out.
func ReaderMain(ctx context.Context, in io.Reader, out io.Writer) int {
	if err := confine(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var t task
	if err := gob.NewDecoder(in).Decode(&t); err != nil {
		fmt.Fprintln(os.Stderr, "the task of the reader:", err)
		return 1
	}
	go func() { // until the parent closes it, or is gone
		_, _ = io.Copy(io.Discard, in)
		os.Exit(1)
	}()
	ctx, cancel := context.WithTimeout(ctx, t.Within)
	defer cancel()
	answers := gob.NewEncoder(out)
	say := func(a answer) error { return answers.Encode(a) }
	last := t.do(ctx, say)
	last.Done = true
	if err := say(last); err != nil {
		fmt.Fprintln(os.Stderr, "the answer of the reader:", err)
		return 1
	}
	return 0
}

func (t task) do(ctx context.Context, say func(answer) error) answer {
	switch {
	case t.Git != nil:
		return t.Git.do(ctx, say)
	case t.Directory != nil:
		return t.Directory.do(say)
	case t.Archive != nil:
		return t.Archive.do(say)
	}
	return answer{Fault: &condition.Fault{Reason: condition.SpecInvalid, Message: "there is nothing to be read"}}
}

// confine bounds what this process may take of the machine. The limit on data leaves out what a process has only reserved, of
// which Go has much. A process of the race detector is beyond it from the start, and is let be.
func confine() error {
	debug.SetMemoryLimit(memoryLimit * 3 / 4)
	signal.Ignore(unix.SIGXFSZ) // a write beyond the limit is an error then, and not the end
	used, err := dataSize()
	if err = errors.Join(err, lower(unix.RLIMIT_FSIZE, fileLimit), lower(unix.RLIMIT_CORE, 0)); err != nil || used >= memoryLimit {
		return err
	}
	return lower(unix.RLIMIT_DATA, memoryLimit)
}

// lower sets a limit, unless there is a lower one already.
func lower(resource int, limit uint64) error {
	var now unix.Rlimit
	err := unix.Getrlimit(resource, &now)
	if err == nil && now.Cur > limit {
		err = unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: min(limit, now.Max)})
	}
	if err != nil {
		return fmt.Errorf("setting limit %d: %w", resource, err)
	}
	return nil
}

// dataSize is how much counts towards the limit on data already.
func dataSize() (bytes int64, err error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("looking at the memory: %w", err)
	}
	_, rest, _ := strings.Cut(string(status), "\nVmData:")
	var kib int64
	if _, err := fmt.Sscanf(rest, "%d kB", &kib); err != nil {
		return 0, fmt.Errorf("looking at the memory: %w", err)
	}
	return kib << 10, nil
}

func (t directoryTask) do(say func(answer) error) answer {
	root, err := os.OpenRoot(t.Dir)
	if err != nil {
		return answer{Fault: gone(t.Dir, err)}
	}
	defer root.Close()
	if err := say(answer{Reading: true}); err != nil {
		return answer{}
	}
	r, in, seen := directoryReading(t.Dir, t.Modules).load(root.FS())
	return answer{Name: r.Name, Fleet: r.Fleet, Fault: r.Fault, Inputs: in, Digest: seen.digest()}
}

func gone(dir string, err error) *condition.Fault {
	return &condition.Fault{Reason: condition.Unreachable, Message: fmt.Sprintf("there is no directory %s with specs: %v", dir, err)}
}

func (t archiveTask) do(say func(answer) error) answer {
	if err := say(answer{Reading: true}); err != nil {
		return answer{}
	}
	z, err := zip.NewReader(bytes.NewReader(t.Zip), int64(len(t.Zip)))
	if err != nil {
		return answer{Fault: &condition.Fault{Reason: condition.SpecInvalid, Message: fmt.Sprintf("the archive is no zip: %v", err)}}
	}
	tree, fault := checkArchive(z)
	if fault != nil {
		return answer{Fault: fault}
	}
	o := reading{what: "the archive", kind: "zip", absolute: t.Absolute, store: t.Modules}
	if !t.Any && o.absolute == nil {
		o.absolute = []string{}
	}
	r, _, _ := o.load(tree)
	pruneModules(t.Modules)
	return answer{Name: r.Name, Fleet: r.Fleet, Fault: r.Fault}
}
