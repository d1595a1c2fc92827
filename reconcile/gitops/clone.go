package gitops

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	git "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/plumbing/transport"

	"greenroom/reconcile/condition"
)

const (
	remoteName   = "origin"
	followedRef  = "refs/greenroom/followed"
	fetchedRef   = "refs/greenroom/fetched"
	fetchedHeads = "refs/greenroom/heads/"

	maxPeels      = 10               // tags of tags
	discardWithin = 10 * time.Second // previews may be reading the clone
)

// errDamaged marks what the repository on our own disk is to blame for.
var errDamaged = errors.New("the clone is damaged")

// clone is a look at a repository, with the objects that are had of it already.
type clone struct {
	gitTask
	store
	auth    transport.AuthMethod
	secrets []string
	notes   []string
}

// do looks at the ref, fetches it when it has moved, and reads the specs of its commit.
func (t gitTask) do(ctx context.Context, say func(answer) error) answer {
	c := &clone{gitTask: t, store: store{dir: t.Clone, url: t.Address.Repo, keep: !t.Preview}}
	var a answer
	var err error
	if c.auth, c.secrets, err = t.credentials(); err != nil {
		err = &refusal{condition.Unauthorized, err}
	} else {
		a, err = c.look(ctx, say)
	}
	if errors.Is(err, errDamaged) {
		a, err = c.again(ctx, say, err)
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

// again looks once more when the clone is damaged, or seems to be. A preview must do without it then, and condemns it only when
// that has helped: else whoever can push a damaged commit could have it thrown away.
func (c *clone) again(ctx context.Context, say func(answer) error, damage error) (a answer, err error) {
	if c.alone = !c.keep; c.alone {
		if a, err = c.look(ctx, say); err != nil {
			return a, err
		}
	}
	c.note("%v; it is thrown away and made anew", damage)
	soon, cancel := context.WithTimeout(ctx, discardWithin)
	defer cancel()
	if err := c.discard(soon); c.keep && err != nil {
		return answer{}, err
	}
	if c.keep {
		return c.look(ctx, say)
	}
	return a, nil
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
	if c.keep {
		if err := c.follow(commit.Hash); err != nil {
			return answer{}, err
		}
	}
	return c.read(commit, want, say)
}

// read loads the specs of a commit.
func (c *clone) read(commit *object.Commit, want target, say func(answer) error) (answer, error) {
	a := answer{Name: commit.Hash.String(), Seen: want.hash.String()}
	if err := say(answer{Reading: true, Name: a.Name}); err != nil {
		return a, err
	}
	tree := newTreeFS(c.objects, commit.TreeHash)
	top, err := tree.sub(c.Address.Path)
	if err == nil {
		what := fmt.Sprintf("commit %s of %s", a.Name[:12], c.Address)
		o := reading{what: what, commit: a.Name, store: c.Modules}
		if c.Preview {
			o.shelf = newShelf(c.Modules, c.Room)
		}
		r, _, _ := o.load(top)
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
	if a.Fault != nil && a.Fault.Reason == condition.Unreachable {
		a.Seen = "" // the fault is ours, so that the same commit is read again
	}
	if c.Preview {
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
	err := c.objects.HasEncodedObject(base)
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
	remote := git.NewRemote(nil, originAt(c.Address.Repo))
	refs, err := remote.ListContext(ctx, &git.ListOptions{Auth: c.auth})
	if err != nil {
		return nil, fmt.Errorf("asking for its branches: %w", err)
	}
	return refs, nil
}

// fetch brings what a ref names into the clone and returns the commit that it stands for.
func (c *clone) fetch(ctx context.Context, want target) (*object.Commit, error) {
	if err := c.bring(ctx, want); err != nil {
		return nil, err
	}
	hash := want.hash
	if ref, err := c.objects.Reference(fetchedRef); err == nil && !plumbing.IsHash(c.Ref) {
		hash = ref.Hash() // it may have moved since it was listed
	}
	return c.objects.peel(hash, c.Ref)
}

// bring fetches one ref; a commit that is no ref's it fetches by itself where the server allows that, and with all branches
// where it does not.
func (c *clone) bring(ctx context.Context, want target) error {
	remote := git.NewRemote(c.objects, originAt(c.Address.Repo))
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
		return c.fetched(get("+" + want.name.String() + ":" + fetchedRef))
	}
	if c.objects.HasEncodedObject(want.hash) == nil {
		return nil
	}
	err := get(want.hash.String() + ":" + fetchedRef)
	if errors.Is(err, git.ErrExactSHA1NotSupported) {
		err = get("+refs/heads/*:" + fetchedHeads + "*")
	}
	if err := c.fetched(err); err != nil {
		return err
	}
	if c.objects.HasEncodedObject(want.hash) != nil {
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
