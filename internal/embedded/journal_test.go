package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
)

func encodeAll(t testing.TB, records ...record) []byte {
	t.Helper()
	var b []byte
	for _, r := range records {
		frame, err := r.encode(int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, frame...)
	}
	return b
}

func TestRecordsComeBackAsTheyWere(t *testing.T) {
	want := []record{
		{Millis: 1, Swept: -1, Commands: [][]string{{"SET", "", "\x00\xff" + magic}}},
		{Millis: 1 << 53, Commands: [][]string{{"A"}, {"B", strings.Repeat("x", 70_000)}}},
		{Commands: [][]string{}},
	}
	var got []record
	b := encodeAll(t, want...)
	size, err := scan(b, func(r record) error { got = append(got, r); return nil })
	if err != nil || size != int64(len(b)) {
		t.Errorf("read %d of %d bytes, %v", size, len(b), err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestACommandThatIsTooLargeIsRefusedWhole(t *testing.T) {
	s := open(t, Options{})
	err := s.Client().Set(context.Background(), "k", make([]byte, maxPayload), 0).Err()
	if !errors.Is(err, ErrJournal) || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("got %v", err)
	}
	if got := must(t, s, "EXISTS", "k"); got != int64(0) {
		t.Error("it was executed")
	}
}

func TestDamageBeforeTheLastRecordStopsTheOpenAndChangesNothing(t *testing.T) {
	s := open(t, Options{Log: discard()})
	must(t, s, "SET", "a", "1")
	last := s.journal.size
	must(t, s, "SET", "b", magic+"2")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := s.gen.journal()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := range whole {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 0x40
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := Open(s.opts)
		if err == nil {
			got := do(again, "MGET", "a", "b")
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
			if int64(at) < last || fmt.Sprint(got) != "[1 <nil>]" {
				t.Fatalf("damage at byte %d of %d went unseen: %v", at, len(whole), got)
			}
			continue
		}
		left, readErr := os.ReadFile(path)
		if int64(at) >= last || !errors.Is(err, ErrCorrupt) || readErr != nil || !bytes.Equal(left, damaged) {
			t.Fatalf("damage at byte %d of %d: %v, %v", at, len(whole), err, readErr)
		}
	}
}

func TestErrorOfADamagedJournalSaysWhereAndWhatToDo(t *testing.T) {
	s := open(t, Options{})
	must(t, s, "SET", "a", "1")
	at := s.journal.size
	must(t, s, "SET", "b", "2")
	must(t, s, "SET", "c", "3")
	damageFile(t, s, s.gen.journal(), at+headerSize)
	_, err := Open(s.opts)
	for _, want := range []string{s.gen.journal(), fmt.Sprintf("the record at byte %d of", at), "restore the directory from a backup"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
	}
}

// damageFile closes the store and flips a bit of one of its files.
func damageFile(t *testing.T, s *Store, path string, at int64) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedSnapshotStopsTheOpen(t *testing.T) {
	for name, damage := range map[string]func(*testing.T, *Store){
		"a bit is flipped": func(t *testing.T, s *Store) { damageFile(t, s, s.gen.snapshot(), 40) },
		"its end is gone": func(t *testing.T, s *Store) {
			if err := os.Truncate(s.gen.snapshot(), fileSize(s.gen.snapshot())-1); err != nil {
				t.Fatal(err)
			}
		},
		"another took its place": func(t *testing.T, s *Store) {
			g := generation{dir: s.gen.dir, n: 9}
			if err := s.mem.saveSnapshot(g); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(g.unfinished(), s.gen.snapshot()); err != nil {
				t.Fatal(err)
			}
		},
		"its journal is gone": func(t *testing.T, s *Store) {
			if err := os.Remove(s.gen.journal()); err != nil {
				t.Fatal(err)
			}
		},
		"it is gone": func(t *testing.T, s *Store) {
			if err := os.Remove(s.gen.snapshot()); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, Options{})
			if err := compactNow(s); err != nil {
				t.Fatal(err)
			}
			must(t, s, "SET", "a", "1")
			damage(t, s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			before := listing(t, s.gen.dir)
			if _, err := Open(s.opts); err == nil {
				t.Error("it was opened")
			}
			if diff := cmp.Diff(before, listing(t, s.gen.dir)); diff != "" {
				t.Error("files changed:", diff)
			}
		})
	}
}

// listing is the contents of all files but the lock.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if e.Name() != "lock" {
			files[e.Name()] = string(b)
		}
	}
	return files
}

func TestRestsOfACompactionThatCrashedAreRemoved(t *testing.T) {
	for name, crash := range map[string]func(*testing.T, *Store){
		"before the snapshot was whole": func(t *testing.T, s *Store) {
			if err := os.WriteFile(generation{dir: s.gen.dir, n: 2}.unfinished(), []byte(magic), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"before the rename": func(t *testing.T, s *Store) {
			mem, j, err := s.mem.rewrite(generation{dir: s.gen.dir, n: 2})
			if err != nil {
				t.Fatal(err)
			}
			mem.mini.Close()
			_ = j.file.Close()
		},
		"before the old files were removed": func(t *testing.T, s *Store) {
			old := listing(t, s.gen.dir)
			if err := compactNow(s); err != nil {
				t.Fatal(err)
			}
			for path, content := range old {
				if err := os.WriteFile(filepath.Join(s.gen.dir, path), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, Options{Now: newManual().Now})
			must(t, s, "SET", "a", "1")
			if err := compactNow(s); err != nil {
				t.Fatal(err)
			}
			must(t, s, "SET", "b", "2")
			want := state(s)
			crash(t, s)
			s = reopen(t, s)
			if diff := cmp.Diff(want, state(s)); diff != "" {
				t.Error(diff)
			}
			if got := len(listing(t, s.gen.dir)); got != 2 {
				t.Errorf("%d files are left, want a snapshot and a journal", got)
			}
		})
	}
}

func TestAFailedSyncMakesTheNextWriteStartANewJournal(t *testing.T) {
	s := open(t, Options{Log: discard()})
	must(t, s, "SET", "a", "1")
	s.mu.Lock()
	_ = s.journal.file.Close() // a sync fails, and so does every write to the old file
	s.unsafe = errors.New("input/output error")
	s.mu.Unlock()
	must(t, s, "SET", "b", "2")
	if s.gen.n != 1 || fmt.Sprint(must(t, reopen(t, s), "MGET", "a", "b")) != "[1 2]" {
		t.Errorf("generation %d", s.gen.n)
	}
}

func TestACompactionThatFailsLeavesTheOldJournalInForce(t *testing.T) {
	s := open(t, Options{CompactBytes: 100, Log: discard()})
	next := generation{dir: s.gen.dir, n: 1}
	if err := os.Mkdir(next.unfinished(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(next.unfinished(), "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		must(t, s, "INCR", "n")
	}
	if s.gen.n != 0 {
		t.Fatal("there was a compaction")
	}
	if err := os.RemoveAll(next.unfinished()); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		must(t, s, "INCR", "n")
	}
	if s.gen.n == 0 {
		t.Error("the compaction was not tried again")
	}
	if got := must(t, reopen(t, s), "GET", "n"); got != "20" {
		t.Errorf("n = %v, want 20", got)
	}
}

func FuzzScan(f *testing.F) {
	whole := encodeAll(f, record{Millis: 1, Commands: [][]string{{"SET", "k", "v"}}}, record{Commands: [][]string{{"A"}, {"B"}}})
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add(append(bytes.Clone(whole[:40]), whole...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		size, err := scan(b, func(r record) error {
			frame, err := r.encode(int64(len(again)))
			again = append(again, frame...)
			return err
		})
		if err == nil && size < int64(len(b)) && findRecord(b, int(size)+1) >= 0 {
			t.Error("a record follows what was taken for a torn tail")
		}
		// Each record that was read had a right checksum: it is what encode makes of it, but for
		// varints that are longer than need be.
		if int64(len(again)) > size {
			t.Errorf("%d bytes were made of the first %d", len(again), size)
		}
		if int64(len(again)) == size && !bytes.Equal(again, b[:size]) {
			t.Error("a record was read that is not what its bytes say")
		}
	})
}

const pushScript = `redis.call('HSET', KEYS[1], 'state', ARGV[1]); redis.call('ZADD', KEYS[2], ARGV[1], KEYS[1]); return redis.call('TIME')`

// BenchmarkWrite tells what the journal adds to a script of the size of the lease scripts.
func BenchmarkWrite(b *testing.B) {
	b.Run("journalled", func(b *testing.B) {
		s := open(b, Options{Log: discard()})
		benchScript(b, s.Client())
	})
	b.Run("bare", func(b *testing.B) {
		m := miniredis.NewMiniRedis()
		c := redis.NewClient(&redis.Options{Dialer: func(context.Context, string, string) (net.Conn, error) { return m.Dial() }})
		benchScript(b, c)
		_ = c.Close()
		m.Close()
	})
}

func benchScript(b *testing.B, c redis.UniversalClient) {
	script := redis.NewScript(pushScript)
	ctx := context.Background()
	i := 0
	for b.Loop() {
		i++
		if err := script.Run(ctx, c, []string{fmt.Sprint("guest:", i%2000), "shelf"}, i).Err(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReplay tells how long an open takes for each journalled script.
func BenchmarkReplay(b *testing.B) {
	s := open(b, Options{Log: discard()})
	script := redis.NewScript(pushScript)
	for i := range 2000 {
		if err := script.Run(context.Background(), s.Client(), []string{fmt.Sprint("guest:", i), "shelf"}, i).Err(); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		again, err := Open(s.opts)
		if err != nil {
			b.Fatal(err)
		}
		if err := again.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/2000, "µs/record")
}
