package embedded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// A directory holds one generation: snapshot-N (none for 0) and journal-N, which goes on from it.
// A compaction writes generation N+1 aside and brings it into force by renaming its snapshot, so
// that a crash leaves either N, or N+1, with rests of the other that the next open removes.
type generation struct {
	dir string
	n   int
}

func (g generation) snapshot() string { return filepath.Join(g.dir, fmt.Sprintf("snapshot-%d", g.n)) }

func (g generation) journal() string    { return filepath.Join(g.dir, fmt.Sprintf("journal-%d", g.n)) }
func (g generation) unfinished() string { return g.snapshot() + ".tmp" }

const (
	mark   = "GREENROOM" // the name of the pseudo-commands that frame a file
	format = "1"
)

// head is the first record of a file.
func (g generation) head(kind string) []string {
	return []string{mark, kind, format, strconv.Itoa(g.n)}
}

// newest finds the generation that is in force, and removes the rests of others.
func newest(dir string) (generation, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return generation{}, fmt.Errorf("looking for the embedded store's journal: %w", err)
	}
	g := generation{dir: dir}
	var names []string
	for _, e := range entries {
		var n int
		if _, err := fmt.Sscanf(e.Name(), "snapshot-%d", &n); err == nil && e.Name() == filepath.Base(generation{n: n}.snapshot()) {
			g.n = max(g.n, n)
		}
		names = append(names, e.Name())
	}
	for _, name := range names {
		if err := g.tidy(name); err != nil {
			return g, err
		}
	}
	return g, nil
}

// tidy removes what a crash in a compaction left. A later journal that holds writes is no such
// rest: its snapshot was lost.
func (g generation) tidy(name string) error {
	for _, pattern := range []string{"snapshot-%d.tmp", "snapshot-%d", "journal-%d"} {
		var n int
		if _, err := fmt.Sscanf(name, pattern, &n); err != nil || fmt.Sprintf(pattern, n) != name {
			continue
		}
		other := generation{dir: g.dir, n: n}
		switch {
		case pattern != "snapshot-%d.tmp" && n == g.n:
			return nil
		case pattern == "journal-%d" && n > g.n && !other.isUnused():
			return fmt.Errorf("%w: %s has writes but %s is missing; restore both from one backup, or move the journal away",
				ErrCorrupt, other.journal(), other.snapshot())
		}
		return os.Remove(filepath.Join(g.dir, name))
	}
	return nil
}

// isUnused says whether the journal holds nothing but its head.
func (g generation) isUnused() bool {
	b, err := os.ReadFile(g.journal())
	head, encErr := record{Commands: [][]string{g.head("journal")}}.encode(0)
	return err == nil && encErr == nil && len(b) <= len(head)
}

// load brings the newest generation into memory and opens its journal for appending.
func (s *Store) load() error {
	g, err := newest(s.opts.Dir)
	if err != nil {
		return err
	}
	s.gen = g
	if s.mem, err = newMemory(); err != nil {
		return err
	}
	if g.n > 0 {
		err = s.mem.loadSnapshot(g, g.snapshot())
	}
	if err == nil {
		err = s.openJournal()
	}
	if err != nil {
		s.mem.mini.Close()
		return err
	}
	if now := s.opts.Now().UnixMilli(); s.mem.millis > now+time.Minute.Milliseconds() {
		s.opts.Log.Warn(fmt.Sprintf("the host's clock is %v behind the embedded store's last write; time stands still until it catches up",
			time.Duration(s.mem.millis-now)*time.Millisecond))
	}
	s.base = fileSize(g.snapshot())
	s.compactIfLarge()
	return nil
}

// openJournal replays the journal of s.gen. Only generation 0 is without one at first.
func (s *Store) openJournal() error {
	flag := os.O_RDWR
	if s.gen.n == 0 {
		flag |= os.O_CREATE
	}
	f, err := os.OpenFile(s.gen.journal(), flag, 0o600)
	if err != nil {
		return fmt.Errorf("opening the embedded store's journal: %w", err)
	}
	s.journal = &journal{file: f}
	if err := s.replay(); err != nil {
		return errors.Join(err, f.Close())
	}
	return nil
}

func (s *Store) replay() error {
	b, err := readFile(s.journal.file)
	if err != nil {
		return err
	}
	head := s.gen.head("journal")
	frame, err := record{Commands: [][]string{head}}.encode(0)
	if err != nil {
		return err
	}
	if s.gen.n == 0 && len(b) < len(frame) { // new, or killed while it was made
		return s.journal.append(record{Commands: [][]string{head}})
	}
	first := true
	size, err := scan(b, func(r record) error {
		if first {
			first = false
			return checkHead(r, head)
		}
		return s.mem.replay(r)
	})
	if err == nil && first {
		err = fmt.Errorf("%w: its first record is damaged", ErrCorrupt)
	}
	if err != nil {
		return fmt.Errorf("%s: %w; nothing was changed: restore the directory from a backup, or cut the file off there to lose all later writes",
			s.journal.file.Name(), err)
	}
	s.journal.size = size
	if size == int64(len(b)) {
		return nil
	}
	s.opts.Log.Warn(fmt.Sprintf("dropping the last %d bytes of the journal, a record that a crash left incomplete", int64(len(b))-size), "path", s.journal.file.Name())
	return s.journal.file.Truncate(size)
}

func checkHead(r record, want []string) error {
	if len(r.Commands) != 1 || !slices.Equal(r.Commands[0], want) {
		return fmt.Errorf("it begins with %q, want %q: another version of Greenroom wrote it, or files were mixed up", r.Commands, want)
	}
	return nil
}

// loadSnapshot reads a snapshot, which must be whole.
func (m *memory) loadSnapshot(g generation, path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the embedded store's snapshot: %w", err)
	}
	count := 0
	whole := false
	_, err = scan(b, func(r record) error {
		count++
		if count == 1 {
			return checkHead(r, g.head("snapshot"))
		}
		if whole = slices.Equal(r.Commands[0], foot(count-2)); whole {
			return nil
		}
		return m.replay(r)
	})
	if err == nil && !whole {
		err = fmt.Errorf("%w: it ends before its last record", ErrCorrupt)
	}
	if err != nil {
		return fmt.Errorf("%s: %w; nothing was changed: restore the directory from a backup", path, err)
	}
	return nil
}

// foot is the last record of a snapshot: how many commands lie between it and the head.
func foot(count int) []string { return []string{mark, "end", strconv.Itoa(count)} }
