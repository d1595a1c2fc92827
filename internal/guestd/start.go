package guestd

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"time"

	"greenroom/internal/ssh"
)

const (
	// probeLimit is how long a guest may take to prove that it lives.
	probeLimit = 5 * time.Second
	// endGrace is what processes get between SIGTERM and SIGKILL.
	endGrace = time.Second
	endLimit = 15 * time.Second
	// readyFD is where guestd reports to Start: the first of exec.Cmd.ExtraFiles.
	readyFD = 3
)

// Options say where a guest is to live and what it is born from.
type Options struct {
	// Dir is made, with mode 0700; an existing one must be empty or a guest's.
	Dir   string
	Birth Birth
	// Serve is the command line that runs Serve on the directory that is appended to it. Empty
	// means this program with the arguments "guestd", "serve", "--dir".
	Serve []string
}

// Start makes a guest and returns once it answers with its host key. It is idempotent: a living
// guest of that directory is returned as it is, and what a dead one left is cleared away first.
// When it fails, no process is left. It is meant for a short-lived process, whose end leaves the
// guest to init.
func Start(ctx context.Context, o Options) (Info, error) {
	if err := o.Birth.Validate(); err != nil {
		return Info{}, err
	}
	dir, err := canonical(o.Dir)
	if err != nil {
		return Info{}, err
	}
	release, err := claimNew(ctx, dir)
	if err != nil {
		return Info{}, err
	}
	defer release()
	if info, err := living(ctx, dir); err == nil {
		return info, o.sameGuest(info)
	}
	if err := checkOurs(dir); err != nil {
		return Info{}, err
	}
	info, err := o.beBorn(ctx, dir)
	if err != nil {
		return Info{}, fmt.Errorf("start guest %s: %w", o.Birth.Name, errors.Join(err, undo(ctx, dir)))
	}
	return info, nil
}

func (o Options) sameGuest(info Info) error {
	if info.Name != o.Birth.Name || info.Incarnation != o.Birth.Incarnation {
		return fmt.Errorf("%s holds the living guest %s.%d, not %s: stop that one first",
			o.Dir, info.Name, info.Incarnation, o.Birth.principal())
	}
	return nil
}

// undo clears up after a failed birth, also when ctx is what failed it.
func undo(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer cancel()
	return destroy(ctx, dir, 0)
}

// Status returns a guest that lives and answers; the error is ErrNoGuest when there is none.
func Status(ctx context.Context, dir string) (Info, error) {
	dir, err := canonical(dir)
	if err != nil {
		return Info{}, err
	}
	return living(ctx, dir)
}

func living(ctx context.Context, dir string) (Info, error) {
	info, err := ReadInfo(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Info{}, fmt.Errorf("%w in %s", ErrNoGuest, dir)
	case err != nil:
		return Info{}, err
	case !locked(dir):
		return info, fmt.Errorf("%w in %s: guestd of %s has ended", ErrNoGuest, dir, info.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	if err := ssh.Handshake(ctx, info.Target()); err != nil {
		return info, fmt.Errorf("%w in %s: %w", ErrNoGuest, dir, err)
	}
	return info, nil
}

// beBorn does the work of Start in a claimed directory where nothing lives.
func (o Options) beBorn(ctx context.Context, dir string) (Info, error) {
	if err := errors.Join(end(ctx, dir, 0), empty(dir)); err != nil {
		return Info{}, fmt.Errorf("clear what an earlier guest left: %w", err)
	}
	hostKey, err := furnish(dir, o.Birth)
	if err != nil {
		return Info{}, err
	}
	info, err := o.describe(dir, hostKey)
	if err != nil {
		return Info{}, err
	}
	if info.PID, info.Port, err = o.spawn(ctx, dir, info.User); err != nil {
		return Info{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	if err := ssh.Handshake(ctx, info.Target()); err != nil {
		return Info{}, fmt.Errorf("it was started but does not answer: %w", err)
	}
	return info, writeJSON(filepath.Join(dir, infoFile), info)
}

// furnish writes what guestd expects to find, the lock file first.
func furnish(dir string, birth Birth) (hostKey ssh.PublicKey, err error) {
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, lockFile), nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Mkdir(filepath.Join(dir, homeDir), 0o700); err != nil {
		return nil, err
	}
	if err := writeJSON(filepath.Join(dir, birthFile), birth); err != nil {
		return nil, err
	}
	signer, err := ssh.LoadOrCreateKey(filepath.Join(dir, hostKeyFile))
	if err != nil {
		return nil, err
	}
	return signer.PublicKey(), nil
}

// describe is all of Info but what guestd itself decides.
func (o Options) describe(dir string, hostKey ssh.PublicKey) (Info, error) {
	current, err := user.Current()
	if err != nil {
		return Info{}, fmt.Errorf("find the current user: %w", err)
	}
	return Info{
		Name:        o.Birth.Name,
		Incarnation: o.Birth.Incarnation,
		ID:          o.Birth.principal() + "-" + rand.Text()[:8],
		Host:        loopback,
		User:        current.Username,
		HostKey:     ssh.Line(hostKey),
		Started:     time.Now().UTC(),
		Attributes:  map[string]string{"dir": dir, "isolation": o.Birth.Isolation, "reset": ResetCommand},
	}, nil
}

// report is what guestd sends once: its port, or why there is none.
type report struct {
	Port  int    `json:"port,omitempty"`
	Error string `json:"error,omitempty"`
}

// spawn starts guestd in its own session (and namespaces) and waits for its report. Its
// environment is made from nothing, so that no secret of ours reaches a guest.
func (o Options) spawn(ctx context.Context, dir, user string) (pid, port int, err error) {
	argv, err := o.argv(dir)
	if err != nil {
		return 0, 0, err
	}
	log, err := os.OpenFile(filepath.Join(dir, logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, 0, err
	}
	defer log.Close()
	reports, theirs, err := os.Pipe()
	if err != nil {
		return 0, 0, err
	}
	defer reports.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = []string{dirVar + "=" + dir, "PATH=" + searchPath, "HOME=" + filepath.Join(dir, homeDir), "USER=" + user}
	cmd.Dir = filepath.Join(dir, homeDir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = attributes(o.Birth.Isolation)
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return 0, 0, explainIsolation(o.Birth.Isolation, err)
	}
	defer context.AfterFunc(ctx, func() { reports.SetReadDeadline(time.Unix(1, 0)) })()
	port, err = readReport(ctx, reports)
	if err != nil {
		cmd.Process.Kill()
		return 0, 0, errors.Join(err, reap(cmd))
	}
	pid = cmd.Process.Pid // Release forgets it
	return pid, port, cmd.Process.Release()
}

// reap waits for a child that was killed; that it was is no news.
func reap(cmd *exec.Cmd) error {
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		return err
	}
	return nil
}

func (o Options) argv(dir string) ([]string, error) {
	if len(o.Serve) > 0 {
		return append(slices.Clip(o.Serve), dir), nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return []string{self, "guestd", "serve", "--dir", dir}, nil
}

func readReport(ctx context.Context, r io.Reader) (port int, err error) {
	var got report
	err = json.NewDecoder(io.LimitReader(r, maxJSONBytes)).Decode(&got)
	switch {
	case ctx.Err() != nil:
		return 0, fmt.Errorf("it was not ready in time: %w", context.Cause(ctx))
	case err != nil:
		return 0, fmt.Errorf("guestd ended without a word; see %s: %w", logFile, err)
	case got.Error != "":
		return 0, errors.New(got.Error)
	}
	return got.Port, nil
}
