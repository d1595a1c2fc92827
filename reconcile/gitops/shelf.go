package gitops

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"greenroom/reconcile/terraform"
)

const (
	shelfSize  = 1 << 30                                    // bytes of the modules that only previews use
	shelfRoom  = shelfSize - 2*maxUnpacked                  // with more than that the next one, with its many small files, could be too much
	shelfTrees = 100                                        // modules that are kept however old they are
	inUse      = firstWithin + secondWithin + 3*time.Minute // no preview needs its modules longer, with time to spare for its end
)

var errShelfFull = errors.New("there is no room for the modules of another preview")

// shelf is the store of modules that only previews use. Whoever may ask for a preview adds to it, so that its size is bounded.
type shelf struct {
	dir   string
	room  int64            // bytes of modules with which no other is let in
	sizes map[string]int64 // by name: what is in the store never changes
}

func newShelf(dir string, room int64) *shelf {
	return &shelf{dir: dir, room: room, sizes: map[string]int64{}}
}

// reserve makes room for a module, or refuses one that would have to be added to a full store. Until release is called no
// other process adds to the store or removes from it.
func (s *shelf) reserve(tree fs.FS) (release func(), err error) {
	lock, err := s.lock()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", terraform.ErrStore, err)
	}
	used := s.prune(time.Now())
	if used <= s.room {
		return func() { lock.Close() }, nil
	}
	digest, err := terraform.Digest(tree)
	if err == nil && !s.has(digest) {
		err = fmt.Errorf("%w: those of the last %.0f minutes take %.1f MiB, and beyond %.1f MiB none is added; try again in %.0f minutes, or make modules smaller",
			errShelfFull, inUse.Minutes(), mebibytes(used), mebibytes(s.room), inUse.Minutes())
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return func() { lock.Close() }, nil
}

func (s *shelf) has(name string) bool {
	_, err := os.Stat(filepath.Join(s.dir, name))
	return err == nil
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

func (s *shelf) lock() (*os.File, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	dir, err := os.Open(s.dir)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX) // no longer than others store one module, or the parent kills us
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, unix.EINTR) {
			dir.Close()
			return nil, fmt.Errorf("locking %s: %w", s.dir, err)
		}
	}
}

// prune removes the oldest modules while there are too many of them or they take too much, and tells what the rest takes.
func (s *shelf) prune(now time.Time) (used int64) {
	_ = terraform.RemoveHalves(s.dir)
	removeOldest(s.dir, shelfTrees, now.Add(-time.Hour))
	names, times := byAge(s.dir)
	for _, name := range names {
		used += s.size(name)
	}
	for _, name := range names {
		if used <= s.room || !times[name].Before(now.Add(-inUse)) {
			break
		}
		if terraform.RemoveTree(s.dir, name) == nil {
			used -= s.size(name)
			delete(s.sizes, name)
		}
	}
	return used
}

// size is what a module takes of the disk, about.
func (s *shelf) size(name string) int64 {
	if size, known := s.sizes[name]; known {
		return size
	}
	size := terraform.TreeSize(filepath.Join(s.dir, name))
	s.sizes[name] = size
	return size
}

// removeOldest leaves at most some entries in a directory, and those that are newer than a time.
func removeOldest(dir string, leave int, newer time.Time) {
	names, times := byAge(dir)
	for i, name := range names {
		if i < len(names)-leave && times[name].Before(newer) {
			_ = terraform.RemoveTree(dir, name)
		}
	}
}

// byAge lists a directory, the oldest entry first.
func byAge(dir string) (names []string, times map[string]time.Time) {
	entries, _ := os.ReadDir(dir)
	times = map[string]time.Time{}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			times[e.Name()] = info.ModTime()
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int { return times[a].Compare(times[b]) })
	return names, times
}
