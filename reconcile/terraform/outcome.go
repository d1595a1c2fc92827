package terraform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// causeOf returns the reason why a command was cut short: an interrupt or a budget. Its error
// then says nothing else.
func causeOf(err error) error {
	var budget *budgetError
	if errors.Is(err, errInterrupted) || errors.As(err, &budget) {
		return err
	}
	return nil
}

// commandFault says why a command failed, from its diagnostics, and keeps them.
func (r *run) commandFault(kind string, s *stream, err error) error {
	r.keepDiagnostics(s, nil)
	if err == nil {
		return nil
	}
	if cause := causeOf(err); cause != nil {
		return cause
	}
	errs := s.errors()
	if lock, ok := lockOf(errs); ok {
		return r.lockedFault(lock)
	}
	if r.diskFull() || slices.ContainsFunc(errs, func(d Diagnostic) bool { return strings.Contains(d.Detail+d.Summary, "no space left on device") }) {
		return &Fault{Kind: FaultDisk, Message: "no space left on the disk in terraform " + kind, Hint: "free some space in the state directory"}
	}
	if len(errs) > 0 {
		texts := make([]string, 0, 3)
		for _, d := range errs[:min(len(errs), 3)] {
			texts = append(texts, d.text())
		}
		return &Fault{Kind: kind, Message: strings.Join(texts, "; ")}
	}
	message := r.said(err)
	if len(s.tail) > 0 {
		message += ": " + firstLines(string(s.tail))
	}
	return &Fault{Kind: kind, Message: message}
}

// lockedFault names the holder of the lock, where the backend tells: that for http gives Terraform's
// own vain request as the holder, which is younger than the run.
func (r *run) lockedFault(lock lockInfo) *Fault {
	who := fmt.Sprintf("by %s since %s (lock %s)", lock.Who, lock.Created.Format(time.RFC3339), lock.ID)
	if lock.Created.IsZero() || lock.Created.After(r.out.Started) {
		who = "by somebody whom its backend does not name"
	}
	return &Fault{
		Kind: FaultLocked, Message: "the state is locked " + who,
		Hint: "wait for it, or free it with terraform force-unlock if its holder is dead",
	}
}

// keepDiagnostics moves a stream's diagnostics into the outcome, with their guests.
func (r *run) keepDiagnostics(s *stream, names []string) {
	if names == nil {
		names = r.names(&state{})
	}
	for _, d := range s.diags {
		d.Guest = ownerOf(d.Address, names)
		if len(r.out.Diagnostics) < maxDiagnostics && !slices.Contains(r.out.Diagnostics, d) {
			r.out.Diagnostics = append(r.out.Diagnostics, d)
		}
	}
}

// text is a diagnostic in one line.
func (d Diagnostic) text() string {
	text := d.Summary
	if d.Detail != "" {
		text += ": " + d.Detail
	}
	if d.File != "" {
		text += fmt.Sprintf(" (%s:%d)", d.File, d.Line)
	}
	return firstLines(text)
}

// said is an error as one line. Secrets go before it is cut, which could make one unknown.
func (r *run) said(err error) string { return firstLines(r.redact.Replace(err.Error())) }

// firstLines makes one line, of bounded length, of a text.
func firstLines(text string) string {
	return cut(strings.Join(strings.Fields(text), " "), 1000)
}

// lockInfo is what Terraform says of a lock that it could not get.
type lockInfo struct {
	ID, Who string
	Created time.Time
}

// lockOf finds a lock conflict among diagnostics. Terraform gives the lock's data in no other form
// than the "Name: value" lines of the detail, which both Terraform and OpenTofu write.
func lockOf(diags []Diagnostic) (lockInfo, bool) {
	for _, d := range diags {
		if d.Summary != "Error acquiring the state lock" {
			continue
		}
		var lock lockInfo
		for line := range strings.Lines(d.Detail) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			switch value = strings.TrimSpace(value); name {
			case "ID":
				lock.ID = value
			case "Who":
				lock.Who = value
			case "Created":
				lock.Created, _ = time.Parse("2006-01-02 15:04:05.999999999 -0700 MST", value) // zero: not ours
			}
		}
		return lock, true
	}
	return lockInfo{}, false
}

// unlockOrphan breaks the lock that stopped a plan when it is provably that of our own dead run:
// taken by this user and host, while a run of this very shard was live whose runner has since died.
func (r *run) unlockOrphan(ctx context.Context, s *stream) bool {
	lock, ok := lockOf(s.errors())
	var dead orphan
	if err := readJSON(r.dir.orphan(), &dead); err != nil || !ok || lock.ID == "" || dead.Run == "" {
		return false
	}
	if lock.Who != dead.Who || lock.Created.Before(dead.Since) || lock.Created.After(dead.Until) {
		return false
	}
	r.log.Warn("breaking the lock " + lock.ID + " that the dead run " + dead.Run + " of this shard has left")
	err := r.session.ask(ctx)
	if err == nil {
		err = r.session.do(ctx, "unlock", nil, func(ctx context.Context) error {
			return r.session.tf.ForceUnlock(ctx, lock.ID)
		})
	}
	if err != nil && causeOf(err) == nil {
		r.log.Warn("the lock could not be broken", "err", r.said(err))
	}
	return err == nil
}

// collect reads what exists now. finished says that the run did all it was asked to, so that the
// outputs must keep the contract whole.
func (r *run) collect(ctx context.Context, finished bool) error {
	st, err := r.readState(ctx)
	if err != nil {
		return err
	}
	var last seen
	if err := readJSON(r.dir.seen(), &last); err != nil {
		return err
	}
	if fault := checkState(st, last, r.dir.seen()); fault != nil {
		return fault // nothing is said on the word of a state that is not ours
	}
	raw, err := st.outputs()
	if err != nil {
		return &Fault{Kind: FaultContract, Message: err.Error()}
	}
	var unsettled []string
	switch {
	case r.settled && len(r.unfinished) > 0: // the outputs may have them, and a run that fails before its apply would take them for whole
		err = writeJSON(r.dir.unsettled(), r.unfinished)
	case r.settled:
		err = removeIfThere(r.dir.unsettled())
	default:
		err = readJSON(r.dir.unsettled(), &unsettled)
	}
	if err != nil {
		return err
	}
	good, bad := checkOutputs(raw)
	known, broken := st.known(r.names(st))
	broken = slices.Concat(broken, unsettled, r.unfinished)
	r.out.Guests, r.out.Incarnations = map[string]Output{}, map[string]int{}
	for name, o := range good {
		if !slices.Contains(broken, name) && !r.missing(name, finished) {
			r.out.Guests[name] = o
		}
	}
	for name, incarnation := range r.applied {
		if _, ok := raw[name]; ok || len(known[name]) > 0 {
			r.out.Incarnations[name] = incarnation
		}
	}
	if err := r.remember(st, last, finished); err != nil {
		return err
	}
	return r.judge(finished, raw, bad)
}

// missing says that a guest in the outputs is not there in truth.
func (r *run) missing(name string, finished bool) bool {
	_, failed := r.out.Failed[name]
	gone := slices.Contains(r.out.Vanished, name) && (!finished || !slices.Contains(r.claimed(), name) || r.in.Job.DriftOnly)
	return failed || gone
}

// remember records the state as this shard leaves it.
func (r *run) remember(st *state, last seen, finished bool) error {
	if finished {
		if err := removeIfThere(r.dir.orphan()); err != nil {
			return err
		}
		if err := writeJSON(r.dir.applied(), r.out.Incarnations); err != nil {
			return err
		}
	}
	if now := st.seen(); now != last {
		return writeJSON(r.dir.seen(), now)
	}
	return nil
}

// judge holds the outputs of a finished run against the contract.
func (r *run) judge(finished bool, raw map[string]json.RawMessage, bad map[string]error) error {
	if !finished || r.in.Job.DriftOnly {
		return nil
	}
	for _, name := range slices.Concat(r.in.Job.Create, r.in.Job.Replace) {
		if _, ok := r.out.Guests[name]; ok {
			continue
		}
		r.out.Failed[name] = "the module's output lacks it"
		if why := bad[name]; why != nil {
			r.out.Failed[name] = r.redact.Replace(why.Error())
		}
	}
	if found := breaches(r.in.Job.Guests, raw, bad); len(found) > 0 {
		return &Fault{Kind: FaultContract, Message: strings.Join(found, "; "), Hint: "modules/README.md has the contract; greenroom module test checks a module"}
	}
	if len(r.out.Failed) > 0 {
		return &Fault{Kind: FaultApply, Message: "not usable: " + quoted(slices.Collect(maps.Keys(r.out.Failed)))}
	}
	return nil
}
