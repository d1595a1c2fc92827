package guestd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"greenroom/internal/atomicfile"
)

const (
	pollEvery   = 20 * time.Millisecond
	maxLogBytes = 1 << 20
)

// canonical is the one spelling of a guest's directory that its processes are marked with.
func canonical(dir string) (string, error) {
	if dir == "" {
		return "", errors.New("no directory was given")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if abs == "/" {
		return "", errors.New("/ cannot be a guest's directory")
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if errors.Is(err, fs.ErrNotExist) {
		return abs, nil
	}
	return filepath.Join(parent, filepath.Base(abs)), err
}

// claim locks an existing directory against other starts and stops of the same guest. The lock is
// on the directory itself, so that nothing is left once it is removed.
func claim(ctx context.Context, dir string) (release func(), err error) {
	for {
		file, err := os.Open(dir)
		if err != nil {
			return nil, err
		}
		if err := lock(ctx, file); err != nil {
			file.Close()
			return nil, fmt.Errorf("wait for another start or stop of %s: %w", dir, err)
		}
		if sameFile(file, dir) {
			return func() { file.Close() }, nil
		}
		file.Close()
	}
}

// claimNew claims a directory that it makes where there is none.
func claimNew(ctx context.Context, dir string) (release func(), err error) {
	for {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		if release, err = claim(ctx, dir); !errors.Is(err, fs.ErrNotExist) {
			return release, err
		}
	}
}

// lock takes an exclusive flock, polling so that ctx can end the wait.
func lock(ctx context.Context, file *os.File) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func sameFile(file *os.File, path string) bool {
	held, err1 := file.Stat()
	named, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(held, named)
}

// locked tells whether a living guestd holds the directory's lock.
func locked(dir string) bool {
	file, err := os.Open(filepath.Join(dir, lockFile))
	if err != nil {
		return false
	}
	defer file.Close()
	return errors.Is(unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// checkOurs keeps a mistyped directory from being emptied.
func checkOurs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return nil
	}
	if _, err := os.Lstat(filepath.Join(dir, lockFile)); err != nil {
		return fmt.Errorf("%s is not a guest's directory (it has files, but no %s); give one that is empty or does not exist", dir, lockFile)
	}
	return nil
}

// empty removes all that is in dir, the lock file last: as long as anything is left, it is known
// to be ours.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() == lockFile {
			continue
		}
		if err := removeAll(filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return removeAll(filepath.Join(dir, lockFile))
}

// removeAll also removes trees whose directories forbid writing, such as Go's module cache.
func removeAll(path string) error {
	if os.RemoveAll(path) == nil {
		return nil
	}
	_ = filepath.WalkDir(path, func(path string, entry fs.DirEntry, _ error) error {
		if entry != nil && entry.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(path)
}

// writeJSON replaces a file at once: a reader sees the old or the new one, whole. The disk is not waited for: no guest outlives
// a crash of the machine, and what its directory holds is cleared away before the next start.
func writeJSON(path string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Swap(path, append(text, '\n'))
}

func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxJSONBytes+1))
	if err == nil && len(text) > maxJSONBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxJSONBytes)
	}
	return text, err
}

// boundedLog begins anew rather than fill the disk. The file is open for appending.
type boundedLog struct {
	mu   sync.Mutex
	file *os.File
	size int
}

func (l *boundedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size += len(p); l.size > maxLogBytes {
		l.size = len(p)
		if err := l.file.Truncate(0); err != nil {
			return 0, err
		}
	}
	return l.file.Write(p)
}
