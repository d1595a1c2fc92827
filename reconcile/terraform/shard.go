package terraform

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"greenroom/internal/atomicfile"
)

// maxFile bounds every file that is read whole: states, intents, results.
const maxFile = 256 << 20

// shardDir is the private directory of one shard, see the package comment.
type shardDir string

func (s shardDir) file(name string) string { return filepath.Join(string(s), name) }
func (s shardDir) intent() string          { return s.file("run.json") }
func (s shardDir) result() string          { return s.file("result.json") }
func (s shardDir) lock() string            { return s.file("runner.lock") }
func (s shardDir) log() string             { return s.file("runner.log") }
func (s shardDir) seen() string            { return s.file("seen.json") }
func (s shardDir) applied() string         { return s.file("applied.json") }
func (s shardDir) unsettled() string       { return s.file("unsettled.json") }
func (s shardDir) orphan() string          { return s.file("orphan.json") }
func (s shardDir) meta() string            { return s.file("meta.json") }
func (s shardDir) backups() string         { return s.file("backups") }
func (s shardDir) work() string            { return s.file("work") }
func (s shardDir) inputs() string          { return filepath.Join(s.work(), "greenroom.auto.tfvars.json") }
func (s shardDir) state() string           { return filepath.Join(s.work(), "terraform.tfstate") }

func (d *Driver) shard(name string) shardDir {
	return shardDir(filepath.Join(d.opts.StateDir, "shards", name))
}

// intent is what a runner is started for: everything it needs, in one file.
type intent struct {
	Job       Job             `json:"job"`
	Binary    string          `json:"binary"`
	Version   string          `json:"version"` // of the binary
	Self      string          `json:"self"`
	Modules   string          `json:"modules"`    // directory of the module store
	GuestsDir string          `json:"guests_dir"` // where modules keep guests that live on this host
	Mirror    string          `json:"mirror,omitempty"`
	Env       []string        `json:"env,omitempty"`
	Backend   json.RawMessage `json:"backend,omitempty"`
	Budgets   Budgets         `json:"budgets"`
	Who       string          `json:"who"` // as Terraform's lock info names us
	Created   time.Time       `json:"created"`
	Crowded   bool            `json:"crowded,omitempty"` // there is a run for each processor
	Preview   shardDir        `json:"preview,omitempty"` // the shard whose run is only to be previewed
}

// orphan marks a run whose runner died: the only one whose left-over lock may be broken.
type orphan struct {
	Run   string    `json:"run"`
	Who   string    `json:"who"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
}

// tryLock takes the runner's lock of the shard, or returns ErrBusy while a runner holds it.
// The lock belongs to the open file, so that a child can inherit it.
func (s shardDir) tryLock() (*os.File, error) {
	f, err := os.OpenFile(s.lock(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the runner's lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, fmt.Errorf("locking %s: %w", s.lock(), err)
	}
	return f, nil
}

// holder returns the process id that the lock's holder wrote into it.
func (s shardDir) holder() (int, error) {
	raw, err := readBounded(s.lock())
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(raw))
}

// writeJSON replaces a file by rename and syncs it, so that a crash of the machine leaves the old or the new one.
func writeJSON(file string, v any) error {
	raw, err := encode(file, v)
	if err != nil {
		return err
	}
	return writeFile(file, raw)
}

func encode(file string, v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", filepath.Base(file), err)
	}
	return raw, nil
}

// writeFile is writeJSON for other files.
func writeFile(file string, raw []byte) error { return replace(file, raw, atomicfile.Write) }

// replaceJSON and replaceFile replace a file by rename, and leave it to the system when it gets to the disk: they are for what
// is of no use after a crash of the machine.
func replaceJSON(file string, v any) error {
	raw, err := encode(file, v)
	if err != nil {
		return err
	}
	return replaceFile(file, raw)
}

func replaceFile(file string, raw []byte) error { return replace(file, raw, atomicfile.Swap) }

// replace leaves a file that is so already as it is: a run writes many that seldom change.
func replace(file string, raw []byte, how func(string, []byte) error) error {
	if had, err := os.ReadFile(file); err == nil && bytes.Equal(had, raw) {
		return nil
	}
	if err := how(file, raw); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	return nil
}

func readBounded(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(raw) > maxFile {
		err = fmt.Errorf("%s: more than %d MiB", file, maxFile>>20)
	}
	return raw, err
}

const keepBackups = 5

// backup keeps a copy of the state from before a write, and the last few of them.
func (s shardDir) backup(st *state, now time.Time) error {
	if len(st.raw) == 0 {
		return nil
	}
	if err := os.MkdirAll(s.backups(), 0o700); err != nil {
		return err
	}
	name := fmt.Sprintf("%s-serial%d.tfstate", now.UTC().Format("20060102T150405.000000000"), st.Serial)
	if err := writeFile(filepath.Join(s.backups(), name), st.raw); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(s.backups(), "*.tfstate"))
	if err != nil {
		return err
	}
	slices.Sort(old)
	for _, file := range old[:max(0, len(old)-keepBackups)] {
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	return nil
}
