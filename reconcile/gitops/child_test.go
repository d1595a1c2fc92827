package gitops

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"greenroom/reconcile"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/gitops/gitopstest"
	"greenroom/specs"
)

// plainReader builds the reader as it is shipped: the race detector needs more memory than a reader may have.
var plainReader = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "gr-reader-")
	if err != nil {
		return "", err
	}
	built = dir
	path := filepath.Join(dir, "reader")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "./testdata/reader")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
	}
	return path, nil
})

var built string // directory of the binary; TestMain removes it

// shipped is a source whose reader is as it is shipped.
func shipped(t *testing.T, o Options) *followed {
	t.Helper()
	self, err := plainReader()
	noError(t, err)
	o.Self = self
	return open(t, o)
}

// of are specs whose one pool has what an expression gives, made of a text of much of a MiB.
func of(expression string) map[string]string {
	return map[string]string{
		"fleet.hcl": "pool \"p\" {\n  module    = \"local\"\n  max       = 1\n  user_data = jsonencode(" + expression + ")\n}\n",
		"much.txt":  strings.Repeat("much", 200_000),
	}
}

const (
	large   = `[for a in range(100) : [for b in range(100) : file("much.txt")]]`
	endless = `[for a in range(1000) : [for b in range(1000) : [for c in range(1000) : c if c < 0]]]`
)

func packed(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var entries []entry
	for name, body := range files {
		entries = append(entries, entry{name: name, body: body})
	}
	return pack(t, entries...)
}

func TestSpecsThatNeedTooMuchAreAFaultAndNothingElse(t *testing.T) {
	repo := gitopstest.New(t)
	commit := repo.CommitAndPush(of(large))
	f := shipped(t, Options{Source: repo.FileURL()})
	f.within = deadlines{fetch: patience, archive: patience} // it is the memory that must end
	f.o.Self, f.o.ReaderArgs = "/bin/sh", []string{"-c", "ulimit -d 200000; exec " + f.o.Self}
	r := f.Read(t.Context(), "")
	mustFault(t, r, condition.TooLarge, "1024 MiB of memory", "for, range, format")
	if r.Fault.Revision != commit {
		t.Errorf("the fault is of %q", r.Fault.Revision)
	}
	mustFault(t, f.Archive(t.Context(), packed(t, of(large)), nil), condition.TooLarge, "MiB of memory")

	f.within.archive = 500 * time.Millisecond
	mustFault(t, f.Archive(t.Context(), packed(t, of(endless)), nil), condition.TooLarge, "need more than 500ms")

	dir := t.TempDir()
	write(t, filepath.Join(dir, "fleet.hcl"), of(endless)["fleet.hcl"])
	d := shipped(t, Options{Source: dir})
	d.within.directory = 500 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	noError(t, d.Follow(ctx, func(r reconcile.Revision) {
		mustFault(t, r, condition.TooLarge, "need more than 500ms")
		cancel()
	}))
}

func TestALargeRepositoryCostsTheServerNothing(t *testing.T) {
	repo := gitopstest.New(t)
	random, err := os.Open("/dev/urandom")
	noError(t, err)
	defer random.Close()
	for i := range 6 {
		f, err := os.Create(filepath.Join(repo.Checkout, fmt.Sprint("blob", i)))
		noError(t, err)
		_, err = io.CopyN(f, random, 10<<20)
		noError(t, errors.Join(err, f.Close()))
	}
	for _, dir := range []string{repo.Checkout, repo.Dir} { // else git looks long for what random bytes have in common
		gitIn(t, dir, "", "config", "core.compression", "0")
		gitIn(t, dir, "", "config", "pack.window", "0")
	}
	commit := repo.CommitAndPush(fleetFiles("fleet", "2"))
	before := peak(t)
	r := shipped(t, Options{Source: repo.Serve().URL + "//fleet"}).Read(t.Context(), "")
	mustGood(t, r)
	if r.Name != commit {
		t.Errorf("%s", r.Name)
	}
	if grown := peak(t) - before; grown > 40<<10 {
		t.Errorf("this process has grown by %d KiB", grown)
	}
}

// peak is the most memory that this process ever had, in KiB.
func peak(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	noError(t, err)
	_, rest, _ := strings.Cut(string(status), "\nVmHWM:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	noError(t, err)
	return kib
}

func TestAPackBeyondTheLimitIsAFault(t *testing.T) {
	repo := gitopstest.New(t)
	random := make([]byte, 1<<20)
	_, err := rand.Read(random)
	noError(t, err)
	repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("1"), "large": string(random)})
	f := open(t, Options{Source: repo.Serve().URL})
	f.o.Self, f.o.ReaderArgs = "/bin/sh", []string{"-c", "ulimit -f 100; exec " + f.o.Self + " reader"}
	mustFault(t, f.Read(t.Context(), ""), condition.TooLarge, "4 GiB")
}

func TestAChildThatIsKilledIsAFault(t *testing.T) {
	f := archiveSource(t)
	said := filepath.Join(t.TempDir(), "said")
	file, err := os.Create(said)
	noError(t, err)
	noError(t, gob.NewEncoder(file).Encode(answer{Reading: true, Name: "x"}))
	noError(t, file.Close())
	f.o.Self, f.o.ReaderArgs = "/bin/sh", []string{"-c", "cat " + said + "; kill -9 $$"}
	r := f.Archive(t.Context(), pack(t), nil)
	mustFault(t, r, condition.TooLarge, "want of memory")
	if r.Fault.Revision != "x" {
		t.Errorf("%+v", r.Fault)
	}
}

func TestAFleetThatIsTooLongToBeToldIsAFault(t *testing.T) {
	dir := t.TempDir()
	var text strings.Builder
	text.WriteString(onePool("40"))
	for i := range 40 {
		fmt.Fprintf(&text, "cache \"c%d\" {\n  pools = [pool.local]\n  prepare = \"big.sh\"\n}\n", i)
	}
	write(t, filepath.Join(dir, "fleet.hcl"), text.String())
	write(t, filepath.Join(dir, "big.sh"), strings.Repeat("#", specs.MaxFileSize))
	zip, err := Zip(dir)
	noError(t, err)
	mustFault(t, archiveSource(t).Archive(t.Context(), zip, nil), condition.TooLarge, "32 MiB")
}

func TestAChildThatIsNoReaderIsAFault(t *testing.T) {
	f := archiveSource(t)
	for name, c := range map[string]struct {
		self string
		args []string
	}{
		"a program that says nothing": {"/bin/true", nil},
		"one that fails":              {"/bin/sh", []string{"-c", "echo broken >&2; exit 3"}},
		"one that talks nonsense":     {"/bin/sh", []string{"-c", "echo nonsense; cat"}},
		"one that is not there":       {"/nowhere/greenroom", nil},
	} {
		f.o.Self, f.o.ReaderArgs = c.self, c.args
		r := f.Archive(t.Context(), pack(t), nil)
		mustFault(t, r, condition.Unreachable, "the process that reads the specs has failed")
		if name == "one that fails" {
			mustFault(t, r, condition.Unreachable, "broken")
		}
	}
}

func TestACallThatIsCancelledEndsItsChild(t *testing.T) {
	f := archiveSource(t)
	pidFile := filepath.Join(t.TempDir(), "pid")
	f.o.Self, f.o.ReaderArgs = "/bin/sh", []string{"-c", "echo $$ > " + pidFile + "; exec cat > /dev/null"}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan reconcile.Revision)
	go func() { done <- f.Archive(ctx, pack(t), nil) }()
	var pid string
	for pid == "" {
		text, _ := os.ReadFile(pidFile)
		pid = strings.TrimSpace(string(text))
	}
	cancel()
	mustFault(t, <-done, condition.Unreachable)
	if _, err := os.Stat("/proc/" + pid); !errors.Is(err, os.ErrNotExist) {
		t.Error("the child lives on")
	}
}

func TestAReaderIsConfinedAndEndsWhenItsParentIsGone(t *testing.T) {
	repo := gitopstest.New(t)
	repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("1")})
	f := shipped(t, Options{Source: repo.FileURL()})
	lock, err := os.OpenFile(filepath.Join(f.o.StateDir, "source.git.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	noError(t, err)
	defer lock.Close()
	noError(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX)) // the reader will wait
	cmd := exec.Command(f.o.Self)
	in, err := cmd.StdinPipe()
	noError(t, err)
	out, err := cmd.StdoutPipe()
	noError(t, err)
	noError(t, cmd.Start())
	git := f.gitTask()
	noError(t, gob.NewEncoder(in).Encode(task{Git: &git, Within: patience}))
	for limits := ""; !strings.Contains(limits, fmt.Sprintf("Max data size             %d", memoryLimit)); {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", cmd.Process.Pid))
		noError(t, err)
		limits = string(text)
	}
	noError(t, in.Close())
	if said, err := io.ReadAll(out); len(said) > 0 {
		t.Errorf("the reader has answered nobody: %q, %v", said, err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the reader has done its task, for nobody")
	}
}

func TestAReaderSeesLittleOfTheEnvironment(t *testing.T) {
	t.Setenv("GREENROOM_REDIS_URL", "redis://secret")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("GREENROOM_SPECS_TOKEN", "token")
	t.Setenv("HTTPS_PROXY", "http://proxy")
	for name, c := range map[string]struct {
		t     task
		token bool
	}{
		"git":                   {task{Git: &gitTask{}}, true},
		"git with a token file": {task{Git: &gitTask{TokenFile: "x"}}, false},
		"an archive":            {task{Archive: &archiveTask{}}, false},
		"a directory":           {task{Directory: &directoryTask{}}, false},
	} {
		env := strings.Join(environ(c.t), "\n")
		if strings.Contains(env, "secret") || !strings.Contains(env, "HTTPS_PROXY=") || strings.Contains(env, "TOKEN") != c.token {
			t.Errorf("%s: %s", name, env)
		}
	}
}

func TestTheTokenIsInNoArgument(t *testing.T) {
	const token = "gr-token-77"
	t.Setenv("GREENROOM_SPECS_TOKEN", token)
	seen := filepath.Join(t.TempDir(), "cmdline")
	f := open(t, Options{Source: "https://127.0.0.1:1/f.git"})
	f.o.Self, f.o.ReaderArgs = "/bin/sh", []string{"-c", "tr '\\0' ' ' < /proc/$$/cmdline > " + seen + "; env > " + seen + ".env"}
	f.Read(t.Context(), "")
	cmdline, err := os.ReadFile(seen)
	noError(t, err)
	env, err := os.ReadFile(seen + ".env")
	noError(t, err)
	if bytes.Contains(cmdline, []byte(token)) || !bytes.Contains(env, []byte(token)) {
		t.Errorf("arguments: %s", cmdline)
	}
}

func TestManyFaultsAreCutShort(t *testing.T) {
	var text strings.Builder
	for i := range 200 {
		fmt.Fprintf(&text, "pool \"p%d\" {\n  module = \"local\"\n  max = \"\x1b[31mred\"\n}\n", i)
	}
	f := archiveSource(t)
	f.o.Log = slog.New(slog.DiscardHandler)
	r := f.Archive(t.Context(), pack(t, entry{name: "a.hcl", body: text.String()}), nil)
	mustFault(t, r, condition.SpecInvalid, "200 faults", "and 150 more")
	if strings.Contains(r.Fault.Message, "\x1b") || len(r.Fault.Message) > 2*maxFaultText {
		t.Errorf("%d bytes: %.300q", len(r.Fault.Message), r.Fault.Message)
	}
}
