package reconcile

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"greenroom/internal/atomicfile"
	"greenroom/modules"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/terraform"
	"greenroom/specs"
)

// recipe is everything that a guest of a pool is born of. Its digest is the pool's.
type recipe struct {
	Pool      string          `json:"pool"`
	Source    string          `json:"source"` // as the spec has it
	Tree      string          `json:"tree,omitempty"`
	Variables json.RawMessage `json:"variables"`
	UserData  string          `json:"user_data,omitempty"`

	digest string
	job    terraform.Module
}

// newRecipe reads what the pool's guests are born of. The digest covers the module's tree, the variables and the bootstrap;
// labels, sizes, probes and credentials are not in it.
func newRecipe(p *specs.Pool) (recipe, error) {
	r := recipe{Pool: p.Name, Source: p.Module, Variables: p.Variables, UserData: p.UserData}
	tree, local, err := moduleTree(p)
	if err != nil {
		return r, err
	}
	if local {
		if r.Tree, err = terraform.Digest(tree); err != nil {
			return r, fmt.Errorf("module %s: %w", p.Module, err)
		}
		r.job = terraform.Module{FS: tree, Digest: r.Tree}
	} else {
		r.job = terraform.Module{Source: p.Module}
	}
	r.digest = r.sum()
	return r, nil
}

func (r recipe) sum() string {
	body, _ := json.Marshal(r) // strings and valid JSON: it cannot fail
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

func moduleTree(p *specs.Pool) (tree fs.FS, local bool, err error) {
	if p.ModuleDir != "" {
		if _, err := os.Stat(p.ModuleDir); err != nil {
			return nil, false, fmt.Errorf("module %s: %w", p.Module, err)
		}
		return os.DirFS(p.ModuleDir), true, nil
	}
	if tree, ok := modules.Lookup(p.Module); ok {
		return tree, true, nil
	}
	return nil, false, nil
}

// shardMeta is kept with each shard, so that it can be run and rebuilt when the spec and the store have forgotten it.
type shardMeta struct {
	Recipe recipe            `json:"recipe"`
	Digest string            `json:"digest"`
	Caches map[string]string `json:"caches"` // guest -> cache
	Ran    bool              `json:"ran"`    // a run was started, so that the module store has the tree
}

// module returns the job's module for a recipe that was read back: the tree is in the module store by its digest.
func (m shardMeta) module() terraform.Module {
	if m.Recipe.Tree != "" {
		return terraform.Module{Digest: m.Recipe.Tree}
	}
	return terraform.Module{Source: m.Recipe.Source}
}

// Revision is one state of the specs, as a source found it.
type Revision struct {
	Name     string           // commit, or digest of a directory; empty when none could be read
	Fleet    *specs.Fleet     // what it declares; its Revision is Name
	Fault    *condition.Fault // why there is no Fleet
	Detached bool             // it does not descend from the one in force
}

// Offer hands the loop a newer revision of the specs, or the reason why the newest one is bad: then the one in force stays.
func (l *Loop) Offer(r Revision) {
	l.mu.Lock()
	l.fault, l.offered, l.heldDigest = r.Fault, nil, ""
	if r.Fault != nil {
		r.Fault.Since = cmp.Or(r.Fault.Since, l.o.Now())
	} else {
		l.offered = &r
		l.lengthen(r.Fleet)
	}
	l.mu.Unlock()
	if r.Fault != nil {
		l.o.Log.Error("the newest specs are bad; what was in force before stays so", "revision", l.inForce().Revision, "reason", r.Fault.Reason, "err", r.Fault)
	}
	l.nudge()
}

// lengthen notes the longest lease of a fleet that was offered. It needs l.mu.
func (l *Loop) lengthen(fleet *specs.Fleet) {
	for _, c := range fleet.AllCaches() {
		l.longest = max(l.longest, c.Lease.Max)
	}
}

// adopt brings what was in force before a restart into force again, and then what is offered, unless that is held.
func (l *Loop) adopt(ctx context.Context) error {
	l.mu.Lock()
	restored := l.restored
	l.mu.Unlock()
	if restored != nil {
		if err := l.bring(ctx, restored, ""); err != nil {
			return err
		}
		l.mu.Lock()
		l.restored = nil
		l.mu.Unlock()
	}
	l.mu.Lock()
	next := l.offered
	l.mu.Unlock()
	if next == nil {
		return nil
	}
	if held, err := l.held(ctx, *next); held || err != nil {
		return err
	}
	l.mu.Lock()
	digest := l.heldDigest
	l.mu.Unlock()
	if err := l.bring(ctx, next.Fleet, digest); err != nil {
		return err
	}
	l.mu.Lock()
	if l.offered == next {
		l.offered, l.fault, l.heldDigest = nil, nil, ""
	}
	l.mu.Unlock()
	return nil
}

// bring puts a fleet into force: all that can fail comes before anything is changed.
func (l *Loop) bring(ctx context.Context, fleet *specs.Fleet, approved string) error {
	recipes, faults := recipesOf(fleet)
	if err := l.o.Store.Adopt(ctx, fleet); err != nil {
		return err
	}
	since, again := l.since(fleet), fleet.Revision == l.inForce().Revision
	if err := l.keep(fleet, since); err != nil {
		l.o.Log.Error("the fleet could not be kept for the next start", "err", err)
	}
	l.putInForce(fleet, recipes, faults, since, approved)
	if !again { // else the server was started anew or the store was lost: plans are of the same two revisions as before, and what is held stays so
		l.o.Adopted()
	}
	return nil
}

func recipesOf(fleet *specs.Fleet) (recipes map[string]recipe, faults map[string]error) {
	recipes, faults = map[string]recipe{}, map[string]error{}
	for _, p := range fleet.Pools {
		r, err := newRecipe(p)
		if err != nil {
			faults[p.Name] = err
			continue
		}
		recipes[p.Name] = r
	}
	return recipes, faults
}

// since is when a fleet that comes into force has done so: neither a restart nor a lost store is a new beginning.
func (l *Loop) since(fleet *specs.Fleet) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if fleet == l.restored || fleet.Revision == l.fleet.Revision {
		return l.specSince
	}
	return l.o.Now()
}

func (l *Loop) putInForce(fleet *specs.Fleet, recipes map[string]recipe, faults map[string]error, since time.Time, approved string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if fleet == l.fleet || fleet.Revision != l.fleet.Revision { // else the source has that of the last time
		l.o.Log.Info("specs are in force", "revision", fleet.Revision)
	}
	l.useUp(approved, l.fleet.Revision != "" && l.fleet.Revision != fleet.Revision)
	l.fleet, l.recipes, l.faults, l.specSince = fleet, recipes, faults, since
	l.view.forget()
	l.stirred = true
	for _, p := range fleet.Pools {
		l.pool(p.Name) // told of from now on; how it stands is for the next pass to say
	}
	l.forgiveAll()
}

// keep writes a fleet down. Since when it is in force is the time of the file.
func (l *Loop) keep(fleet *specs.Fleet, since time.Time) error {
	if l.o.FleetFile == "" {
		return nil
	}
	var body bytes.Buffer
	if err := gob.NewEncoder(&body).Encode(fleet); err != nil {
		return err
	}
	if err := atomicfile.Write(l.o.FleetFile, body.Bytes()); err != nil {
		return err
	}
	return os.Chtimes(l.o.FleetFile, since, since)
}

// Restore reads the last good fleet of a former life, so that a start on bad specs goes on with it, and the approvals.
func (l *Loop) Restore() error {
	if err := l.restoreApprovals(); err != nil {
		l.o.Log.Error("the approvals can't be read, and have to be given again", "err", err)
	}
	if l.o.FleetFile == "" {
		return nil
	}
	body, err := os.ReadFile(filepath.Clean(l.o.FleetFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	fleet, since := new(specs.Fleet), l.o.Now()
	if err == nil {
		err = gob.NewDecoder(bytes.NewReader(body)).Decode(fleet)
	}
	if err != nil {
		return fmt.Errorf("the last good fleet: %w", err)
	}
	if info, err := os.Stat(l.o.FleetFile); err == nil {
		since = info.ModTime()
	}
	l.mu.Lock()
	l.restored, l.specSince = fleet, since
	l.lengthen(fleet)
	l.mu.Unlock()
	l.nudge()
	return nil
}

// LastInForce names the revision in force or, until there is one after a start, the one that was when the server ended: what a
// new revision has to descend from.
func (l *Loop) LastInForce() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.restored != nil {
		return l.restored.Revision
	}
	return l.fleet.Revision
}
