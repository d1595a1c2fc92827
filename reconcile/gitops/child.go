package gitops

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"greenroom/reconcile"
	"greenroom/reconcile/condition"
	"greenroom/specs"
)

// What others have written is read by a child of this process, so that it can take nothing down: not by the memory that an
// expression or a pack of objects needs, nor by a time without end, nor by a fault in a parser. The child is told on its
// standard input what to read, and answers on its standard output: at once where it is, and at its end what it has found.

const (
	memoryLimit = 1 << 30  // bytes of data that a child may hold
	fileLimit   = 4 << 30  // bytes of one file that it may write
	maxAnswer   = 32 << 20 // bytes
)

// deadlines are how long a child may take.
type deadlines struct {
	clone     time.Duration // the first time that a repository is fetched
	fetch     time.Duration
	archive   time.Duration
	directory time.Duration
}

var defaultDeadlines = deadlines{clone: 10 * time.Minute, fetch: time.Minute, archive: 15 * time.Second, directory: time.Minute}

// task is what a child is asked to do; one of the three is set.
type task struct {
	Git       *gitTask
	Directory *directoryTask
	Archive   *archiveTask
	Within    time.Duration
}

type gitTask struct {
	Address    address
	Ref        string // to be read; empty: the repository's HEAD
	Clone      string // directory
	Modules    string // store of module trees
	Preview    bool   // the followed ref stays what it is
	Room       int64  // in the store of a preview, see shelf
	Seen       string // object that the ref named when it was read last
	InForce    string // revision
	TokenFile  string
	KeyFile    string
	KnownHosts string
}

type directoryTask struct{ Dir, Modules string }

type archiveTask struct {
	Zip      []byte
	Modules  string
	Room     int64 // in that store, see shelf
	Absolute []string
	Any      bool // module directory may be named by an absolute path: nil and an empty list are the same on the wire
}

// answer is what a child says: that it reads a revision now, and with Done set what came of it.
type answer struct {
	Reading  bool // from here on its resources go into the specs
	Name     string
	Done     bool
	Same     bool   // the ref still names Seen, and nothing was read
	Seen     string // object that the ref names
	Fleet    *specs.Fleet
	Fault    *condition.Fault
	Detached bool
	Inputs   inputs
	Digest   string   // of the inputs
	Notes    []string // what an operator should know
}

func (a answer) revision() reconcile.Revision {
	return reconcile.Revision{Name: a.Name, Fleet: a.Fleet, Fault: a.Fault, Detached: a.Detached}
}

// ask has a child do a task. However the child ends, there is an answer.
func (s *Source) ask(ctx context.Context, t task) answer {
	ctx, cancel := context.WithTimeout(ctx, t.Within+t.Within/10+time.Second) // the child gives up before, with a better word
	defer cancel()
	s.asked.Add(1)
	stderr := &head{max: 8 << 10}
	cmd := exec.CommandContext(ctx, s.o.Self, s.o.ReaderArgs...)
	cmd.Env, cmd.Stderr = environ(t), stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	last, err := converse(cmd, t)
	if last.Done {
		return last
	}
	return answer{Done: true, Name: last.Name, Fault: died(ctx, t, last, err, stderr.String())}
}

// converse runs the child. Its standard input stays open as long as we want its answer: a child whose parent is killed ends.
func converse(cmd *exec.Cmd, t task) (last answer, err error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return last, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return last, err
	}
	if err := cmd.Start(); err != nil {
		return last, fmt.Errorf("starting the reader: %w", err)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_ = gob.NewEncoder(in).Encode(t) // a child that did not get its task does not answer
	}()
	answers := &io.LimitedReader{R: out, N: maxAnswer}
	decoder := gob.NewDecoder(answers)
	for err == nil && !last.Done {
		var next answer
		if err = decoder.Decode(&next); err == nil {
			last = next
		}
	}
	if answers.N == 0 {
		err = errLong
	}
	if !last.Done {
		_ = cmd.Cancel() // it is of no use any more
	}
	err = errors.Join(err, in.Close())
	<-sent
	return last, errors.Join(err, cmd.Wait())
}

var errLong = errors.New("the answer is too long")

// died says what the end of a child without an answer means.
func died(ctx context.Context, t task, last answer, err error, stderr string) *condition.Fault {
	fault := &condition.Fault{Reason: condition.TooLarge, Revision: last.Name}
	switch {
	case errors.Is(err, errLong):
		fault.Message = fmt.Sprintf("the specs declare more than the %d MiB that a fleet may take; make scripts and variables smaller", maxAnswer>>20)
	case outOfMemory(stderr) && last.Reading:
		fault.Message = fmt.Sprintf("the specs need more than %d MiB of memory to be read; look for expressions that repeat each other (for, range, format)", memoryLimit>>20)
	case last.Reading && ctx.Err() == nil && killed(err):
		fault.Message = "the process that reads the specs was killed, most likely by the system for want of memory; look for expressions that repeat each other (for, range, format)"
	case outOfMemory(stderr):
		fault.Message = fmt.Sprintf("the repository needs more than %d MiB of memory to be read; keep specs in a repository of their own, without large files", memoryLimit>>20)
	case errors.Is(ctx.Err(), context.DeadlineExceeded) && (last.Reading || t.Git == nil):
		fault.Message = fmt.Sprintf("the specs need more than %s to be read; look for expressions that repeat each other (for, range, format)", t.Within)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		fault.Reason, fault.Message = condition.Unreachable, fmt.Sprintf("%s did not answer within %s", t.Git.Address, t.Within)
	default:
		fault.Reason = condition.Unreachable
		fault.Message = fmt.Sprintf("the process that reads the specs has failed: %v: %s", errors.Join(ctx.Err(), err), firstLine(stderr))
	}
	return fault
}

// outOfMemory knows the words in which Go says so at the end of a process.
func outOfMemory(stderr string) bool {
	return strings.Contains(stderr, "out of memory") || strings.Contains(stderr, "cannot allocate memory") || strings.Contains(stderr, "failed to create new OS thread")
}

func killed(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// allowed are the variables that reach a child: what finds programs, trusts certificates and goes through proxies, and what
// tells git whose repositories to open.
var allowed = []string{
	"PATH", "HOME", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
	"GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GORACE",
}

// tokenVariable holds the token for an https source where no file does.
const tokenVariable = "GREENROOM_SPECS_TOKEN"

func environ(t task) []string {
	names := allowed
	if t.Git != nil && t.Git.TokenFile == "" {
		names = append([]string{tokenVariable}, allowed...)
	}
	env := []string{}
	for _, name := range names {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// head keeps the first bytes that are written to it.
type head struct {
	bytes.Buffer
	max int
}

func (h *head) Write(p []byte) (int, error) {
	h.Buffer.Write(p[:min(len(p), h.max-h.Len())])
	return len(p), nil
}
