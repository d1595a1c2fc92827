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
// which Go has much.
func confine() error {
	debug.SetMemoryLimit(memoryLimit * 3 / 4)
	signal.Ignore(unix.SIGXFSZ) // a write beyond the limit is an error then, and not the end
	err := errors.Join(lower(unix.RLIMIT_FSIZE, fileLimit), lower(unix.RLIMIT_CORE, 0))
	if raceDetector {
		return err
	}
	return errors.Join(err, lower(unix.RLIMIT_DATA, memoryLimit))
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
	o := reading{what: "the archive", kind: "zip", absolute: t.Absolute, store: t.Modules, shelf: newShelf(t.Modules, t.Room)}
	if !t.Any && o.absolute == nil {
		o.absolute = []string{}
	}
	r, _, _ := o.load(tree)
	return answer{Name: r.Name, Fleet: r.Fleet, Fault: r.Fault}
}
