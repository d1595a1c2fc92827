package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"greenroom/internal/atomicfile"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/plan"
	"greenroom/specs"
)

// A revision is held when it does not descend from the one in force, or when its preview is past a guard of either. Once it
// is held it stays so, whatever happens to the guests: an admin approves the digest of its preview, or another revision
// takes its place.

// maxApprovals bounds how many approvals wait for their revision, and keepApprovals for how long.
const (
	maxApprovals  = 100
	keepApprovals = 7 * 24 * time.Hour
)

// held tells that the revision must not come into force now, and says so to everybody.
func (l *Loop) held(ctx context.Context, r Revision) (bool, error) {
	base := l.inForce()
	if base.Revision == "" && !guarded(r.Fleet) || !r.Detached && !guarded(base) && !guarded(r.Fleet) {
		return false, nil
	}
	l.mu.Lock()
	digest := l.heldDigest
	l.mu.Unlock()
	if digest != "" && l.approved(digest) {
		if recipes, _ := recipesOf(r.Fleet); fingerprint(base.Revision, r.Fleet, recipes) != digest {
			digest = "" // a module that is no part of the revision has changed since: that was not approved
		}
	}
	if digest == "" {
		preview, err := l.Preview(ctx, r)
		if err != nil {
			return false, err
		}
		digest = preview.Plan.Digest
		fault := breach(r, base.Revision, preview.Plan)
		if fault == nil {
			return false, nil
		}
		if !l.approved(digest) {
			fault.Plan = l.o.Held(r, preview)
		}
		l.hold(r, digest, fault)
	}
	return !l.approved(digest), nil
}

func (l *Loop) hold(r Revision, digest string, fault *condition.Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.offered == nil || l.offered.Fleet != r.Fleet {
		return // a newer one has come
	}
	fault.Since = l.o.Now()
	l.heldDigest, l.fault = digest, fault
	if fault.Plan != "" {
		l.o.Log.Warn("a revision is held until it is approved", "revision", fault.Revision, "reason", fault.Reason, "plan", fault.Plan, "err", fault)
	}
}

// breach says why a revision is held; nil: it is not.
func breach(r Revision, base string, p plan.Plan) *condition.Fault {
	fault := &condition.Fault{Revision: r.Fleet.Revision}
	switch {
	case r.Detached && base != "":
		fault.Reason = condition.NotFastForward
		fault.Message = fmt.Sprintf("revision %s does not descend from %s, which is in force: history was rewritten; push one that does, or approve the plan", r.Fleet.Revision, base)
	case len(p.Breaches) > 0:
		fault.Reason = condition.GuardExceeded
		lines := make([]string, len(p.Breaches))
		for i, b := range p.Breaches {
			lines[i] = b.String()
		}
		fault.Message = strings.Join(lines, "; ")
	default:
		return nil
	}
	return fault
}

func guarded(f *specs.Fleet) bool {
	return f.Guard != nil || slices.ContainsFunc(f.Pools, func(p *specs.Pool) bool { return p.Guard != nil })
}

// Approve lets the revision come into force that a preview with this digest was made of, though it is held: once, and also
// after a restart. A digest that nothing held has waits a week for its revision.
func (l *Loop) Approve(by, digest string) error {
	now := l.o.Now()
	l.mu.Lock()
	next := slices.DeleteFunc(slices.Clone(l.approvals), func(a plan.Approval) bool {
		return a.Digest == digest || now.Sub(a.At) > keepApprovals
	})
	next = append(next, plan.Approval{By: by, At: now, Digest: digest})
	err := l.setApprovals(next[max(0, len(next)-maxApprovals):])
	l.mu.Unlock()
	l.nudge()
	return err
}

func (l *Loop) approved(digest string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.approvals, func(a plan.Approval) bool { return a.Digest == digest && l.o.Now().Sub(a.At) <= keepApprovals })
}

// useUp ends the approval of what comes into force, and all others when what was in force moves on: they were of what would
// become of that, and it may come back. It needs l.mu.
func (l *Loop) useUp(digest string, moved bool) {
	left := slices.DeleteFunc(slices.Clone(l.approvals), func(a plan.Approval) bool { return moved || a.Digest == digest })
	if len(left) == len(l.approvals) {
		return
	}
	if err := l.setApprovals(left); err != nil {
		l.o.Log.Error("an approval that was used could not be removed", "err", err)
	}
}

// setApprovals writes them down before they count. It needs l.mu.
func (l *Loop) setApprovals(next []plan.Approval) error {
	if l.o.ApprovalsFile != "" {
		body, err := json.Marshal(next)
		if err == nil {
			err = atomicfile.Write(l.o.ApprovalsFile, body)
		}
		if err != nil {
			return fmt.Errorf("keeping the approvals: %w", err)
		}
	}
	l.approvals = next
	return nil
}

func (l *Loop) restoreApprovals() error {
	if l.o.ApprovalsFile == "" {
		return nil
	}
	body, err := os.ReadFile(l.o.ApprovalsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var approvals []plan.Approval
	if err == nil {
		err = json.Unmarshal(body, &approvals)
	}
	if err != nil {
		return err
	}
	l.approvals = approvals
	return nil
}
