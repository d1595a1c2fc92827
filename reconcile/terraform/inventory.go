package terraform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Meta is one shard with what the caller keeps about it.
type Meta struct {
	Shard string          `json:"shard"`
	JSON  json.RawMessage `json:"json,omitempty"`
}

const maxMeta = 1 << 20

// BrokenError says of shards why what is kept with them cannot be read. All that is said of the others holds.
type BrokenError map[string]error

func (b BrokenError) Error() string {
	names := slices.Sorted(maps.Keys(b))
	return fmt.Sprintf("%d shards cannot be read, %s among them: %v", len(b), names[0], b[names[0]])
}

// or is the error of what could be done but for the broken ones.
func (b BrokenError) or() error {
	if len(b) == 0 {
		return nil
	}
	return b
}

// Shards lists the shard directories by name. Errors: BrokenError, with those that can be read.
func (d *Driver) Shards() ([]Meta, error) {
	entries, err := os.ReadDir(filepath.Join(d.opts.StateDir, "shards"))
	if err != nil {
		return nil, fmt.Errorf("listing shards: %w", err)
	}
	var shards []Meta
	broken := BrokenError{}
	for _, entry := range entries {
		if !entry.IsDir() || !safeName.MatchString(entry.Name()) {
			continue
		}
		meta := Meta{Shard: entry.Name()}
		if err := readJSON(d.shard(entry.Name()).meta(), &meta.JSON); err != nil {
			broken[meta.Shard] = err
			continue
		}
		shards = append(shards, meta)
	}
	return shards, broken.or()
}

// SetMeta stores a small JSON document (at most 1 MiB) with a shard, creating its directory.
func (d *Driver) SetMeta(shard string, meta json.RawMessage) error {
	if !safeName.MatchString(shard) || len(meta) > maxMeta || !json.Valid(meta) {
		return fmt.Errorf("meta of shard %q: a shard's name and valid JSON of at most 1 MiB are needed", shard)
	}
	dir := d.shard(shard)
	if err := os.MkdirAll(string(dir), 0o700); err != nil {
		return err
	}
	return writeJSON(dir.meta(), meta)
}

// Inventory reads a shard's guests and incarnations straight from its state, to rebuild a lost
// inventory. A name with an incarnation and no output is a broken guest that occupies its slot. It
// is all or nothing: ErrBusy while a run is live, an error when anything can't be read whole.
func (d *Driver) Inventory(ctx context.Context, shard string) (map[string]Output, map[string]int, error) {
	guests, incarnations, err := d.inventory(ctx, shard)
	if err != nil {
		return nil, nil, fmt.Errorf("inventory of shard %s: %w", shard, err)
	}
	return guests, incarnations, nil
}

func (d *Driver) inventory(ctx context.Context, shard string) (map[string]Output, map[string]int, error) {
	st, applied, unlock, err := d.lockedState(ctx, shard)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	raw, err := st.outputs()
	if err != nil {
		return nil, nil, err
	}
	names := slices.AppendSeq(slices.Collect(maps.Keys(applied)), maps.Keys(raw))
	known, broken := st.known(names)
	var unsettled []string
	if err := readJSON(d.shard(shard).unsettled(), &unsettled); err != nil {
		return nil, nil, err
	}
	broken = append(broken, unsettled...)
	good, bad := checkOutputs(raw)
	for name, why := range bad {
		if !slices.Contains(broken, name) && !errors.Is(why, errUnusable) {
			return nil, nil, fmt.Errorf("guest %s breaks the contract: %w", name, why)
		}
	}
	incarnations := map[string]int{}
	for name := range raw {
		if _, ok := applied[name]; !ok {
			return nil, nil, fmt.Errorf("the incarnation of guest %s is not known", name)
		}
		incarnations[name] = applied[name]
		if slices.Contains(broken, name) {
			delete(good, name)
		}
	}
	for name := range known {
		incarnations[name] = applied[name]
	}
	return good, incarnations, nil
}

// lockedState reads a shard's state while no run can start.
func (d *Driver) lockedState(ctx context.Context, shard string) (*state, map[string]int, func(), error) {
	dir := d.shard(shard)
	if _, err := os.Stat(string(dir)); err != nil || !safeName.MatchString(shard) {
		return nil, nil, nil, ErrNoShard
	}
	lock, err := dir.tryLock()
	if err != nil {
		return nil, nil, nil, err
	}
	st, applied, err := d.idleState(ctx, dir)
	if err != nil {
		lock.Close()
		return nil, nil, nil, err
	}
	return st, applied, func() { lock.Close() }, nil
}

func (d *Driver) idleState(ctx context.Context, dir shardDir) (*state, map[string]int, error) {
	if _, err := os.Stat(filepath.Join(dir.work(), erroredFile)); err == nil {
		return nil, nil, errors.New("a state was not written yet (" + erroredFile + "): run the shard first")
	}
	applied := map[string]int{}
	if err := readJSON(dir.applied(), &applied); err != nil {
		return nil, nil, err
	}
	r := run{dir: dir, in: d.newIntent(Job{}), applied: applied}
	if d.backend != nil {
		session, err := newSession(r.in, dir.work(), r.cliConfig())
		if err != nil {
			return nil, nil, err
		}
		r.session = session
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	st, err := r.checkedState(ctx)
	if r.session != nil {
		d.started.Add(int64(len(r.session.steps)))
	}
	return st, applied, err
}

// Remove takes an empty shard's directory away, after saving its last states in StateDir/archive, where those of 100 shards
// are kept for 30 days; what is older goes with the next removal.
// ErrNotEmpty when the state still has resources, ErrBusy when a run is live or not acknowledged.
func (d *Driver) Remove(ctx context.Context, shard string) error {
	st, _, unlock, err := d.lockedState(ctx, shard)
	if err != nil {
		return fmt.Errorf("removing shard %s: %w", shard, err)
	}
	defer unlock()
	dir := d.shard(shard)
	if _, err := os.Stat(dir.intent()); err == nil {
		return fmt.Errorf("removing shard %s: %w", shard, ErrBusy)
	}
	if n := len(st.instances()); n > 0 {
		return fmt.Errorf("removing shard %s: %w: %d", shard, ErrNotEmpty, n)
	}
	if err := dir.backup(st, time.Now()); err != nil {
		return fmt.Errorf("removing shard %s: %w", shard, err)
	}
	if err := d.archive(dir, shard, time.Now()); err != nil {
		return fmt.Errorf("removing shard %s: %w", shard, err)
	}
	return os.RemoveAll(string(dir))
}

// The states of removed shards may hold secrets, so that they are not kept for ever.
const (
	keepArchived = 100
	archivedFor  = 30 * 24 * time.Hour
)

// archive moves a shard's last states to the archive, and removes from there what has had its time.
func (d *Driver) archive(dir shardDir, shard string, now time.Time) error {
	archived := filepath.Join(d.opts.StateDir, "archive", shard+"-"+now.UTC().Format("20060102T150405.000000000"))
	err := os.Rename(dir.backups(), archived)
	if err == nil {
		err = os.Chtimes(archived, now, now) // else that of the last backup
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	d.pruneArchive(now)
	return nil
}

// pruneArchive clears the archive. Where that fails, the next removal or start tries again.
func (d *Driver) pruneArchive(now time.Time) {
	dir := filepath.Join(d.opts.StateDir, "archive")
	if err := removeOld(dir, now); err != nil {
		d.opts.Log.Error("old states of removed shards, which may hold secrets, can't be removed", "path", dir, "err", err)
	}
}

// removeOld leaves the newest entries of the archive that are not too old.
func removeOld(dir string, now time.Time) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var archived []fs.FileInfo
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil { // else another removal was first
			archived = append(archived, info)
		}
	}
	slices.SortFunc(archived, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	var failed error
	for i, info := range archived {
		if i >= keepArchived || now.Sub(info.ModTime()) > archivedFor {
			failed = errors.Join(failed, os.RemoveAll(filepath.Join(dir, info.Name())))
		}
	}
	return failed
}
