package terraform

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// unusedFor is how long a module is kept that nothing needs: far longer than a revision takes from the reader, which stores its
// modules in a process of its own, into the fleet, and as long as an approval waits for its revision.
const unusedFor = 7 * 24 * time.Hour

// removedName is the name, in a directory of trees, of what is being removed.
const removedName = ".old"

// RemoveTree takes an entry's name away first: a process that is killed meanwhile leaves nothing that looks like a whole tree.
func RemoveTree(dir, name string) error {
	aside, err := setAside(dir, name)
	if err != nil {
		return err
	}
	return os.RemoveAll(aside)
}

// RemoveHalves removes what a process has left that was killed in RemoveTree.
func RemoveHalves(dir string) error { return os.RemoveAll(filepath.Join(dir, removedName)) }

func setAside(dir, name string) (aside string, err error) {
	aside = filepath.Join(dir, removedName)
	if err := RemoveHalves(dir); err != nil || name == removedName {
		return aside, err
	}
	return aside, os.Rename(filepath.Join(dir, name), aside)
}

const blockSize = 4 << 10 // bytes that the smallest file takes of a disk

// TreeSize is what a tree takes of the disk, about. What can't be read doesn't count.
func TreeSize(dir string) (size int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil {
			if info, err := e.Info(); err == nil {
				size += max(1, (info.Size()+blockSize-1)/blockSize) * blockSize
			}
		}
		return nil
	})
	return size
}

// isStored tells whether a tree is in a store, and marks it as used now. Whoever removes trees sees the mark, or has removed
// this one before it was looked for.
func isStored(modules, digest string) (found bool) {
	err := underLock(modules, syscall.LOCK_SH, func() error {
		found = useTree(modules, digest)
		return nil
	})
	return err == nil && found
}

func useTree(modules, digest string) bool {
	now := time.Now()
	return os.Chtimes(filepath.Join(modules, digest), now, now) == nil
}

// putTree gives a copied tree its name, unless another was first.
func putTree(tmp, modules, digest string) error {
	return underLock(modules, syscall.LOCK_SH, func() error {
		err := os.Rename(tmp, filepath.Join(modules, digest))
		if err == nil || useTree(modules, digest) {
			return nil
		}
		return err
	})
}

// underLock does something quick with a store of modules, whose lock lies beside it: between processes, as the reader of the specs
// is another.
func underLock(modules string, how int, do func() error) error {
	f, err := os.OpenFile(modules+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		if err = syscall.Flock(int(f.Fd()), how); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("locking %s: %w", modules, err)
	}
	return do()
}

// PruneModules removes the modules that nobody has used for a week. Those that are needed count as used now, so that one which
// falls out of use is kept for about as long: it may be in a preview, or come back. It wants to be called every day. What is kept
// of a module beside its tree, such as the lock of its providers, goes the same way.
func (d *Driver) PruneModules(ctx context.Context, needed map[string]bool, now time.Time) {
	dir := filepath.Join(d.opts.StateDir, "modules")
	failed := RemoveHalves(dir)
	entries, err := os.ReadDir(dir)
	failed = errors.Join(failed, err)
	removed, size := 0, int64(0)
	for _, entry := range entries {
		name := entry.Name()
		if ctx.Err() != nil {
			break
		}
		if needed[strings.TrimSuffix(name, lockFile)] {
			useTree(dir, name)
			continue
		}
		n, err := removeUnused(dir, name, now.Add(-unusedFor))
		failed = errors.Join(failed, err)
		size += n
		if n > 0 && entry.IsDir() {
			removed++
		}
	}
	if size > 0 {
		d.opts.Log.Info("removed modules that nobody has used for a week", "count", removed, "bytes", size)
	}
	if failed != nil {
		d.opts.Log.Error("modules that nobody uses can't be removed", "path", dir, "err", failed)
	}
}

// removeUnused removes an entry of the store, unless it has been used since a time or somebody looks into the store just now:
// then there is a next time.
func removeUnused(dir, name string, since time.Time) (size int64, err error) {
	aside := ""
	err = underLock(dir, syscall.LOCK_EX|syscall.LOCK_NB, func() error {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil || !info.ModTime().Before(since) {
			return err
		}
		aside, err = setAside(dir, name)
		return err
	})
	if aside == "" || err != nil {
		return 0, ignoreBusy(err)
	}
	return TreeSize(aside), os.RemoveAll(aside)
}

func ignoreBusy(err error) error {
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
