package gitops

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"greenroom/reconcile/condition"
)

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
