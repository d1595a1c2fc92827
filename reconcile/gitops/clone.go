package gitops

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"golang.org/x/sys/unix"

	"greenroom/reconcile/condition"
)

const (
	remoteName  = "origin"
	followedRef = "refs/greenroom/followed"
	previewRefs = "refs/greenroom/preview/"

	objectCache = 32 << 20 // bytes
	maxPacks    = 100      // then the clone is made anew, because each look opens all of them
	maxPreviews = 50       // refs that are kept, so that the next fetch of them is small
	maxPeels    = 10       // tags of tags
)

// errDamaged marks what the repository on our own disk is to blame for.
var errDamaged = errors.New("the clone is damaged")

// clone is the bare repository in the state directory. Children of the follower and of previews use it at once under a shared
// lock: what they write are new files. It is thrown away under an exclusive one.
type clone struct {
	gitTask
	auth    transport.AuthMethod
	secrets []string
	notes   []string
	lock    *os.File
	storage *filesystem.Storage
}

// do looks at the ref, fetches it when it has moved, and reads the specs of its commit.
func (t gitTask) do(ctx context.Context, say func(answer) error) answer {
	c := &clone{gitTask: t}
	a, err := c.look(ctx, say)
	if errors.Is(err, errDamaged) {
		c.note("%v; it is thrown away and made anew", err)
		if err = c.discard(ctx); err == nil {
			a, err = c.look(ctx, say)
		}
	}
	if err != nil {
		a = answer{Name: a.Name, Fault: c.explain(ctx, err)}
		a.Fault.Revision = a.Name
	}
	if a.Fault != nil {
		a.Fault.Message = c.redact(a.Fault.Message)
	}
	a.Notes = c.notes
	for i := range a.Notes {
		a.Notes[i] = c.redact(a.Notes[i])
	}
	return a
}

func (c *clone) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

func (c *clone) redact(text string) string {
	for _, s := range c.secrets {
		if len(s) > 3 {
			text = strings.ReplaceAll(text, s, "[token]")
		}
	}
	return text
}

func (c *clone) look(ctx context.Context, say func(answer) error) (answer, error) {
	var err error
	if c.auth, c.secrets, err = c.credentials(); err != nil {
		return answer{}, &refusal{condition.Unauthorized, err}
	}
	refs, err := c.list(ctx)
	if err != nil {
		return answer{}, err
	}
	want, err := resolve(refs, c.Ref)
	if err != nil {
		return answer{}, err
	}
	if want.hash.String() == c.Seen {
		return answer{Same: true, Seen: c.Seen}, nil
	}
	if err := c.open(ctx); err != nil {
		return answer{}, err
	}
	defer c.close()
	commit, err := c.fetch(ctx, want)
	if err != nil {
		return answer{}, err
	}
	return c.read(commit, want, say)
}

// read loads the specs of a commit.
func (c *clone) read(commit *object.Commit, want target, say func(answer) error) (answer, error) {
	a := answer{Name: commit.Hash.String(), Seen: want.hash.String()}
	if err := say(answer{Reading: true, Name: a.Name}); err != nil {
		return a, err
	}
	tree := newTreeFS(c.storage, commit.TreeHash)
	top, err := tree.sub(c.Address.Path)
	if err == nil {
		what := fmt.Sprintf("commit %s of %s", a.Name[:12], c.Address)
		r, _, _ := reading{what: what, commit: a.Name, store: c.Modules}.load(top)
		a.Fleet, a.Fault, tree.damage = r.Fleet, r.Fault, top.damage
	} else {
		a.Fault = &condition.Fault{
			Reason: condition.SpecInvalid, Revision: a.Name,
			Message: fmt.Sprintf("commit %s of %s has no directory %s: %v", a.Name[:12], c.Address, c.Address.Path, pathCause(err)),
		}
	}
	if tree.damage != nil {
		return a, fmt.Errorf("%w: %w", errDamaged, tree.damage)
	}
	if c.Preview {
		pruneModules(c.Modules)
		return a, nil
	}
	a.Detached, err = c.detached(commit)
	return a, err
}

func pathCause(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}

// detached tells that the revision in force is a commit which the new one does not descend from. One that the clone does not
// know is none: the branch it was on is gone.
func (c *clone) detached(commit *object.Commit) (bool, error) {
	if !plumbing.IsHash(c.InForce) {
		return false, nil // no commit is in force
	}
	base := plumbing.NewHash(c.InForce)
	err := c.storage.HasEncodedObject(base)
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		return true, nil
	}
	found := false
	if err == nil {
		err = object.NewCommitIterCTime(commit, nil, nil).ForEach(func(at *object.Commit) error {
			if found = at.Hash == base; found {
				return storer.ErrStop
			}
			return nil
		})
	}
	if err != nil {
		return false, fmt.Errorf("%w: the history of %s: %w", errDamaged, commit.Hash, err)
	}
	return !found, nil
}

// list asks for the refs of the repository.
func (c *clone) list(ctx context.Context) ([]*plumbing.Reference, error) {
	remote := git.NewRemote(nil, c.remote())
	refs, err := remote.ListContext(ctx, &git.ListOptions{Auth: c.auth})
	if err != nil {
		return nil, fmt.Errorf("asking for its branches: %w", err)
	}
	return refs, nil
}

func (c *clone) remote() *config.RemoteConfig {
	return &config.RemoteConfig{Name: remoteName, URLs: []string{c.Address.Repo}}
}

// target is what a ref names.
type target struct {
	name plumbing.ReferenceName // in the repository; empty: only the hash is known
	hash plumbing.Hash
}

// resolve finds what a ref means: a commit, a full name, or a branch before a tag.
func resolve(refs []*plumbing.Reference, ref string) (target, error) {
	byName := map[plumbing.ReferenceName]*plumbing.Reference{}
	for _, r := range refs {
		byName[r.Name()] = r
	}
	if plumbing.IsHash(ref) {
		return target{name: nameOf(refs, ref), hash: plumbing.NewHash(ref)}, nil
	}
	names := []plumbing.ReferenceName{plumbing.ReferenceName(ref)}
	switch {
	case ref == "":
		names = []plumbing.ReferenceName{plumbing.HEAD}
	case !strings.HasPrefix(ref, "refs/"):
		names = []plumbing.ReferenceName{plumbing.NewBranchReferenceName(ref), plumbing.NewTagReferenceName(ref), plumbing.ReferenceName(ref)}
	}
	for _, name := range names {
		r := byName[name]
		if r != nil && r.Type() == plumbing.SymbolicReference {
			r = byName[r.Target()]
		}
		if r != nil && r.Type() == plumbing.HashReference {
			return target{name: r.Name(), hash: r.Hash()}, nil
		}
	}
	return target{}, &refusal{condition.RefMissing, fmt.Errorf("there is no branch or tag %s; %s", shownRef(ref), known(refs))}
}

func shownRef(ref string) string {
	if ref == "" {
		return "HEAD"
	}
	return fmt.Sprintf("%q", ref)
}

func nameOf(refs []*plumbing.Reference, hash string) plumbing.ReferenceName {
	for _, r := range refs {
		if r.Type() == plumbing.HashReference && r.Hash().String() == hash {
			return r.Name()
		}
	}
	return ""
}

const maxKnown = 20

// known lists the branches and tags that there are.
func known(refs []*plumbing.Reference) string {
	var names []string
	for _, r := range refs {
		if r.Name().IsBranch() || r.Name().IsTag() {
			names = append(names, fmt.Sprintf("%.80q", r.Name().Short()))
		}
	}
	if len(names) == 0 {
		return "the repository has none"
	}
	slices.Sort(names)
	if more := len(names) - maxKnown; more > 0 {
		return fmt.Sprintf("there are %s and %d more", strings.Join(names[:maxKnown], ", "), more)
	}
	return "there are " + strings.Join(names, ", ")
}

// fetch brings what a ref names into the clone and returns the commit that it stands for.
func (c *clone) fetch(ctx context.Context, want target) (*object.Commit, error) {
	local := plumbing.ReferenceName(followedRef)
	if c.Preview {
		sum := sha256.Sum256([]byte(c.Ref))
		local = plumbing.ReferenceName(previewRefs + hex.EncodeToString(sum[:8]))
	}
	if err := c.bring(ctx, want, local); err != nil {
		return nil, err
	}
	hash := want.hash
	if want.name != "" && !plumbing.IsHash(c.Ref) { // it may have moved since it was listed
		ref, err := c.storage.Reference(local)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", errDamaged, local, err)
		}
		hash = ref.Hash()
	}
	return c.peel(hash)
}

// bring fetches one ref; a commit that is no ref's it fetches by itself where the server allows that, and with all branches
// where it does not.
func (c *clone) bring(ctx context.Context, want target, local plumbing.ReferenceName) error {
	remote := git.NewRemote(c.storage, c.remote())
	get := func(spec string) error {
		err := remote.FetchContext(ctx, &git.FetchOptions{
			RemoteName: remoteName, Auth: c.auth, Tags: git.NoTags, Force: true, RefSpecs: []config.RefSpec{config.RefSpec(spec)},
		})
		if errors.Is(err, git.NoErrAlreadyUpToDate) {
			return nil
		}
		return err
	}
	if want.name != "" {
		return c.fetched(get("+" + want.name.String() + ":" + local.String()))
	}
	if c.storage.HasEncodedObject(want.hash) == nil {
		return nil
	}
	err := get(want.hash.String() + ":" + local.String())
	if errors.Is(err, git.ErrExactSHA1NotSupported) {
		err = get("+refs/heads/*:" + previewRefs + "heads/*")
	}
	if err := c.fetched(err); err != nil {
		return err
	}
	if c.storage.HasEncodedObject(want.hash) != nil {
		return &refusal{condition.RefMissing, fmt.Errorf("no branch has a commit %s", want.hash)}
	}
	return nil
}

func (c *clone) fetched(err error) error {
	if err != nil {
		return fmt.Errorf("fetching: %w", err)
	}
	return nil
}

// peel follows tags to their commit.
func (c *clone) peel(hash plumbing.Hash) (*object.Commit, error) {
	for range maxPeels {
		o, err := object.GetObject(c.storage, hash)
		if err != nil {
			return nil, fmt.Errorf("%w: object %s: %w", errDamaged, hash, err)
		}
		switch o := o.(type) {
		case *object.Commit:
			return o, nil
		case *object.Tag:
			hash = o.Target
			continue
		}
		break
	}
	return nil, &refusal{condition.RefMissing, fmt.Errorf("%s names no commit", shownRef(c.Ref))}
}

// open takes the lock and opens the clone, or begins it.
func (c *clone) open(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(c.Clone), 0o700); err != nil {
		return err
	}
	if err := c.take(ctx, unix.LOCK_SH); err != nil {
		return err
	}
	err := c.use()
	if errors.Is(err, fs.ErrNotExist) || err == nil && c.worn() {
		c.close()
		return c.begin(ctx)
	}
	if err != nil {
		c.close()
	}
	return err
}

func (c *clone) files() *filesystem.Storage {
	return filesystem.NewStorageWithOptions(osfs.New(c.Clone), cache.NewObjectLRU(objectCache), filesystem.Options{MaxOpenDescriptors: 64})
}

// use opens the clone and checks what can be checked quickly. A clone of another repository is as good as none.
func (c *clone) use() error {
	if _, err := os.Stat(c.Clone); err != nil {
		return err
	}
	c.storage = c.files()
	cfg, err := c.storage.Config()
	if err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	origin := cfg.Remotes[remoteName]
	if origin == nil || !slices.Equal(origin.URLs, []string{c.Address.Repo}) {
		return fmt.Errorf("%w: it is of another repository, or was never finished", errDamaged)
	}
	if err := c.storage.HasEncodedObject(plumbing.ZeroHash); !errors.Is(err, plumbing.ErrObjectNotFound) { // reads all indexes
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	if ref, err := c.storage.Reference(followedRef); err == nil {
		if _, err := c.peel(ref.Hash()); err != nil {
			return err
		}
	}
	return nil
}

// worn tells that the clone has more packs than are good for it; a preview leaves that to the follower.
func (c *clone) worn() bool {
	packs, err := c.storage.ObjectPacks()
	return err == nil && len(packs) > maxPacks && !c.Preview
}

// begin makes an empty clone.
func (c *clone) begin(ctx context.Context) error {
	if err := c.discard(ctx); err != nil {
		return err
	}
	if err := c.take(ctx, unix.LOCK_EX); err != nil {
		return err
	}
	if _, err := os.Stat(c.Clone); errors.Is(err, fs.ErrNotExist) {
		if err := c.create(); err != nil {
			c.close()
			return fmt.Errorf("making the clone: %w", err)
		}
	}
	if err := unix.Flock(int(c.lock.Fd()), unix.LOCK_SH); err != nil {
		c.close()
		return fmt.Errorf("locking the clone: %w", err)
	}
	err := c.use()
	if err != nil {
		c.close()
	}
	return err
}

func (c *clone) create() error {
	next := c.Clone + ".new"
	if err := os.RemoveAll(next); err != nil {
		return err
	}
	storage := filesystem.NewStorage(osfs.New(next), cache.NewObjectLRU(objectCache))
	repo, err := git.Init(storage, nil)
	if err != nil {
		return err
	}
	if _, err := repo.CreateRemote(c.remote()); err != nil {
		return err
	}
	if err := os.Chmod(next, 0o700); err != nil {
		return err
	}
	return os.Rename(next, c.Clone)
}

// discard throws the clone away.
func (c *clone) discard(ctx context.Context) error {
	if err := c.take(ctx, unix.LOCK_EX); err != nil {
		return err
	}
	defer c.close()
	return os.RemoveAll(c.Clone)
}

// take waits for the lock on the clone.
func (c *clone) take(ctx context.Context, how int) error {
	f, err := os.OpenFile(c.Clone+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			c.lock = f
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

func (c *clone) close() {
	if c.lock != nil {
		c.tidy()
		c.lock.Close()
		c.lock = nil
	}
	if c.storage != nil {
		_ = c.storage.Close()
	}
}

// tidy removes what a killed child has left half written, and the refs of old previews.
func (c *clone) tidy() {
	old := time.Now().Add(-2 * defaultDeadlines.clone)
	half, _ := filepath.Glob(filepath.Join(c.Clone, "objects", "pack", "tmp_*"))
	for _, name := range half {
		if info, err := os.Stat(name); err == nil && info.ModTime().Before(old) {
			_ = os.Remove(name)
		}
	}
	if c.Preview {
		removeOldest(filepath.Join(c.Clone, filepath.FromSlash(previewRefs)), maxPreviews, time.Now())
	}
}

// pruneModules keeps the store of modules that only previews use from growing without end.
func pruneModules(dir string) {
	removeOldest(dir, 100, time.Now().Add(-time.Hour))
}

// removeOldest leaves at most some entries in a directory, and those that are newer than a time.
func removeOldest(dir string, leave int, newer time.Time) {
	entries, _ := os.ReadDir(dir)
	times := map[string]time.Time{}
	var names []string
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			times[e.Name()] = info.ModTime()
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int { return times[a].Compare(times[b]) })
	for i, name := range names {
		if i < len(names)-leave && times[name].Before(newer) {
			_ = os.RemoveAll(filepath.Join(dir, name))
		}
	}
}
