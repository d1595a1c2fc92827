package embedded

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/alicebob/miniredis/v2/server"
)

// compactIfLarge writes a snapshot when the journal has outgrown its limit and, so that the cost
// follows the writes, twice the snapshot that it goes on from.
func (s *Store) compactIfLarge() {
	if s.journal.size < max(s.opts.CompactBytes, 2*s.base, s.retryAt) {
		return
	}
	if err := s.compact(); err != nil {
		s.retryAt = s.journal.size + s.opts.CompactBytes/4
		s.opts.Log.Error("compacting the embedded store's journal; going on with the old one", "err", err)
	}
}

// compact writes the next generation, reads it back, and brings it into force. The store goes on
// from what was read back, so that a restart can't find anything else.
func (s *Store) compact() error {
	next := generation{dir: s.gen.dir, n: s.gen.n + 1}
	mem, j, err := s.mem.rewrite(next)
	if err == nil {
		err = os.Rename(next.unfinished(), next.snapshot())
	}
	if err != nil {
		if mem != nil {
			mem.mini.Close()
			_ = j.file.Close()
		}
		_ = os.Remove(next.unfinished())
		_ = os.Remove(next.journal())
		return fmt.Errorf("writing a snapshot: %w", err)
	}
	old, oldJournal, oldMem := s.gen, s.journal, s.mem
	s.gen, s.journal, s.mem, s.unsafe, s.retryAt = next, j, mem, nil, 0
	s.base = fileSize(next.snapshot())
	oldMem.mini.Close()
	_ = oldJournal.file.Close()
	if err := syncDir(next.dir); err != nil {
		s.unsafe = err
		return err // the old files stay until the next open: the rename may not be on the disk
	}
	_ = os.Remove(old.journal())
	_ = os.Remove(old.snapshot())
	return nil
}

// rewrite makes all files of g but for the last rename, durably, and returns what they hold.
func (m *memory) rewrite(g generation) (*memory, *journal, error) {
	if err := m.saveSnapshot(g); err != nil {
		return nil, nil, err
	}
	back, err := newMemory()
	if err != nil {
		return nil, nil, err
	}
	if err := back.loadSnapshot(g, g.unfinished()); err != nil {
		back.mini.Close()
		return nil, nil, err
	}
	j, err := createJournal(g)
	if err != nil {
		back.mini.Close()
		return nil, nil, err
	}
	back.cost = m.cost
	return back, j, nil
}

func createJournal(g generation) (*journal, error) {
	f, err := os.OpenFile(g.journal(), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	j := &journal{file: f}
	err = j.append(record{Commands: [][]string{g.head("journal")}})
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = syncDir(g.dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return j, nil
}

// saveSnapshot writes m to the unfinished file of g and syncs it.
func (m *memory) saveSnapshot(g generation) error {
	f, err := os.OpenFile(g.unfinished(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<16)
	at, count := int64(0), 0
	put := func(args []string) error {
		b, err := record{Millis: m.millis, Swept: m.swept, Commands: [][]string{args}}.encode(at)
		at += int64(len(b))
		if err == nil {
			_, err = w.Write(b)
		}
		return err
	}
	err = put(g.head("snapshot"))
	for args := range m.dump() {
		if err != nil {
			break
		}
		err = put(args)
		count++
	}
	if err == nil {
		err = put(foot(count))
	}
	return errors.Join(err, w.Flush(), f.Sync(), f.Close())
}

// dump yields the commands that make m out of nothing, in order of the keys.
func (m *memory) dump() iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		for _, sha := range slices.Sorted(maps.Keys(m.scripts)) {
			if !yield([]string{"SCRIPT", "LOAD", m.scripts[sha]}) {
				return
			}
		}
		for _, key := range m.mini.Keys() {
			for _, args := range m.dumpKey(key) {
				if !yield(args) {
					return
				}
			}
		}
	}
}

// dumpKey returns the commands that make one key. The miniredis calls can't fail: the key is there
// and of that type.
func (m *memory) dumpKey(key string) [][]string {
	var commands [][]string
	switch m.mini.Type(key) {
	case "string":
		v, _ := m.mini.Get(key)
		commands = [][]string{{"SET", key, v}}
	case "hash":
		fields, _ := m.mini.HKeys(key)
		commands = inChunks([]string{"HSET", key}, fields, func(f string) []string { return []string{f, m.mini.HGet(key, f)} })
	case "list":
		items, _ := m.mini.List(key)
		commands = inChunks([]string{"RPUSH", key}, items, func(v string) []string { return []string{v} })
	case "set":
		members, _ := m.mini.Members(key)
		commands = inChunks([]string{"SADD", key}, members, func(v string) []string { return []string{v} })
	case "zset":
		scores, _ := m.mini.SortedSet(key)
		commands = inChunks([]string{"ZADD", key}, slices.Sorted(maps.Keys(scores)), func(v string) []string {
			return []string{strconv.FormatFloat(scores[v], 'g', -1, 64), v}
		})
	case "stream":
		commands = m.dumpStream(key)
	}
	if ttl := m.mini.TTL(key); ttl > 0 {
		commands = append(commands, []string{"PEXPIRE", key, strconv.FormatInt(int64(ttl/time.Millisecond), 10)})
	}
	return commands
}

// dumpStream makes the last entry too where it was deleted, since no later one may have its ID.
func (m *memory) dumpStream(key string) [][]string {
	var commands [][]string
	entries, _ := m.mini.Stream(key)
	newest := ""
	for _, e := range entries {
		commands = append(commands, append([]string{"XADD", key, e.ID}, e.Values...))
		newest = e.ID
	}
	last := m.lastID(key)
	if last == newest {
		return commands
	}
	return append(commands, []string{"XADD", key, last, "", ""}, []string{"XDEL", key, last})
}

// lastID is the last ID that the stream gave, or the lowest one where it gave none.
func (m *memory) lastID(key string) string {
	var reply bytes.Buffer
	p := server.NewPeer(bufio.NewWriter(&reply))
	m.dispatch(p, []string{"XINFO", "STREAM", key})
	p.Flush()
	v, _ := server.ParseReply(bufio.NewReader(&reply))
	if info, ok := v.([]any); ok && len(info) == 4 && info[3] != "" {
		return fmt.Sprint(info[3])
	}
	return "0-1"
}

// inChunks spreads the arguments that item makes of the items over commands of a bearable size.
func inChunks(command, items []string, item func(string) []string) [][]string {
	var commands [][]string
	for chunk := range slices.Chunk(items, 512) {
		args := slices.Clone(command)
		for _, v := range chunk {
			args = append(args, item(v)...)
		}
		commands = append(commands, args)
	}
	return commands
}

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

func syncDir(dir string) error {
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
