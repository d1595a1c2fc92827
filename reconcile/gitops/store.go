package gitops

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-billy/v5/osfs"
	git "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/memory"
	"golang.org/x/sys/unix"

	"greenroom/reconcile/condition"
)

const (
	objectCache = 32 << 20 // bytes
	maxPacks    = 100      // then the clone is made anew, because each look opens all of them
)

// store is the bare clone in the state directory. The follower's child alone writes to it; those of previews read it, and keep
// what they fetch besides in a directory of their own for as long as they live. They share a lock on it, so that it is thrown
// away only while nobody reads it.
type store struct {
	dir  string
	url  string // of the repository that it is a clone of
	keep bool   // what is fetched becomes part of it

	alone bool // a preview does without it

	lock    *os.File
	aside   string // directory of a preview's own objects
	objects *objects
}

// objects are those of the clone, and of a preview. The refs are those of this look alone: go-git would write them to files in
// place, where others could find them half written.
type objects struct {
	*filesystem.Storage // gets what is fetched
	memory.ReferenceStorage
	base *filesystem.Storage // looked into besides; nil: none is
}

func (o *objects) EncodedObject(t plumbing.ObjectType, h plumbing.Hash) (plumbing.EncodedObject, error) {
	found, err := o.Storage.EncodedObject(t, h)
	if o.base != nil && errors.Is(err, plumbing.ErrObjectNotFound) {
		return o.base.EncodedObject(t, h)
	}
	return found, err
}

func (o *objects) HasEncodedObject(h plumbing.Hash) error {
	err := o.Storage.HasEncodedObject(h)
	if o.base != nil && errors.Is(err, plumbing.ErrObjectNotFound) {
		return o.base.HasEncodedObject(h)
	}
	return err
}

func (o *objects) EncodedObjectSize(h plumbing.Hash) (int64, error) {
	size, err := o.Storage.EncodedObjectSize(h)
	if o.base != nil && errors.Is(err, plumbing.ErrObjectNotFound) {
		return o.base.EncodedObjectSize(h)
	}
	return size, err
}

// peel follows tags to their commit.
func (o *objects) peel(hash plumbing.Hash, ref string) (*object.Commit, error) {
	for range maxPeels {
		found, err := object.GetObject(o, hash)
		if err != nil {
			return nil, fmt.Errorf("%w: object %s: %w", errDamaged, hash, err)
		}
		switch found := found.(type) {
		case *object.Commit:
			return found, nil
		case *object.Tag:
			hash = found.Target
			continue
		}
		break
	}
	return nil, &refusal{condition.RefMissing, fmt.Errorf("%s names no commit", shownRef(ref))}
}

func originAt(url string) *config.RemoteConfig {
	return &config.RemoteConfig{Name: remoteName, URLs: []string{url}}
}

func storageIn(dir string) *filesystem.Storage {
	return filesystem.NewStorageWithOptions(osfs.New(dir), cache.NewObjectLRU(objectCache), filesystem.Options{MaxOpenDescriptors: 64})
}

// open takes the lock and opens the clone; the follower begins it where there is none.
func (s *store) open(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(s.dir), 0o700); err != nil {
		return err
	}
	if err := s.take(ctx, unix.LOCK_SH); err != nil {
		return err
	}
	base, err := s.use()
	none := errors.Is(err, fs.ErrNotExist)
	switch {
	case s.keep && (none || err == nil && worn(base)):
		err = s.begin(ctx)
	case err == nil && s.keep:
		s.objects.Storage = base
	case err == nil || none:
		err = s.beside(base)
	}
	if err != nil {
		s.close()
	}
	return err
}

// use opens the clone and checks what can be checked quickly. A clone of another repository is as good as none.
func (s *store) use() (*filesystem.Storage, error) {
	s.objects = &objects{ReferenceStorage: memory.ReferenceStorage{}}
	if _, err := os.Stat(s.dir); err != nil || s.alone {
		return nil, cmp.Or(err, fs.ErrNotExist)
	}
	storage := storageIn(s.dir)
	cfg, err := storage.Config()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if origin := cfg.Remotes[remoteName]; origin == nil || !slices.Equal(origin.URLs, []string{s.url}) {
		return nil, fmt.Errorf("%w: it is of another repository, or was never finished", errDamaged)
	}
	followed, err := os.ReadFile(s.followed()) // before the indexes, which may know more by then, but never less
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if err := storage.HasEncodedObject(plumbing.ZeroHash); !errors.Is(err, plumbing.ErrObjectNotFound) { // reads all indexes
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if followed == nil {
		return storage, nil
	}
	return storage, s.recall(storage, followed)
}

// recall makes the commit that was fetched last known to the repository, so that only what is new is fetched.
func (s *store) recall(storage *filesystem.Storage, text []byte) error {
	commit, err := (&objects{Storage: storage}).peel(plumbing.NewHash(strings.TrimSpace(string(text))), "")
	if err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	return s.objects.SetReference(plumbing.NewHashReference(followedRef, commit.Hash))
}

func (s *store) followed() string { return filepath.Join(s.dir, filepath.FromSlash(followedRef)) }

// follow remembers the commit that was fetched. It waits for no disk, which go-git does not either for the objects: a clone that a
// crash of the machine has damaged is made anew. The name is always the same, so that a child that is killed leaves one rest at most.
func (s *store) follow(commit plumbing.Hash) error {
	next := s.followed() + ".next"
	if err := os.MkdirAll(filepath.Dir(next), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(next, []byte(commit.String()+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(next, s.followed())
}

// worn tells that the clone has more packs than are good for it.
func worn(storage *filesystem.Storage) bool {
	packs, err := storage.ObjectPacks()
	return err == nil && len(packs) > maxPacks
}

// beside gives a preview a place for what it fetches.
func (s *store) beside(base *filesystem.Storage) (err error) {
	all := s.dir + ".previews"
	removeOldest(all, 0, time.Now().Add(-time.Hour)) // of those that were killed
	if err := os.MkdirAll(all, 0o700); err != nil {
		return err
	}
	if s.aside, err = os.MkdirTemp(all, ""); err != nil {
		return err
	}
	s.objects.base, s.objects.Storage = base, storageIn(s.aside)
	return s.objects.Storage.Init()
}

// begin makes an empty clone.
func (s *store) begin(ctx context.Context) error {
	s.close()
	if err := s.discard(ctx); err != nil {
		return err
	}
	if err := s.take(ctx, unix.LOCK_SH); err != nil {
		return err
	}
	if err := s.create(); err != nil {
		return fmt.Errorf("making the clone: %w", err)
	}
	storage, err := s.use()
	s.objects.Storage = storage
	return err
}

func (s *store) create() error {
	next := s.dir + ".new"
	if err := os.RemoveAll(next); err != nil {
		return err
	}
	repo, err := git.Init(storageIn(next), nil)
	if err != nil {
		return err
	}
	if _, err := repo.CreateRemote(originAt(s.url)); err != nil {
		return err
	}
	if err := os.Chmod(next, 0o700); err != nil {
		return err
	}
	return os.Rename(next, s.dir)
}

// discard throws the clone away.
func (s *store) discard(ctx context.Context) error {
	if err := s.take(ctx, unix.LOCK_EX); err != nil {
		return err
	}
	defer s.close()
	return os.RemoveAll(s.dir)
}

// take waits for the lock on the clone.
func (s *store) take(ctx context.Context, how int) error {
	f, err := os.OpenFile(s.dir+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			s.lock = f
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return fmt.Errorf("locking the clone: %w", err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return fmt.Errorf("waiting for others who use the clone: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

func (s *store) close() {
	if s.keep && s.objects != nil {
		s.tidy()
	}
	if s.aside != "" {
		_ = os.RemoveAll(s.aside)
	}
	if s.lock != nil {
		s.lock.Close()
	}
	s.lock, s.aside, s.objects = nil, "", nil
}

// tidy removes what a follower that was killed has left half written.
func (s *store) tidy() {
	half, _ := filepath.Glob(filepath.Join(s.dir, "objects", "pack", "tmp_*"))
	for _, name := range half {
		_ = os.Remove(name)
	}
}
