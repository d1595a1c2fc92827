package embedded

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// commands draws a write on one of few keys, so that types clash and keys vanish too.
func drawCommand(t *rapid.T) []any {
	key := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "key")
	other := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "other")
	v := rapid.SampledFrom([]string{"", "1", "x\x00\r\n$3", magic, "ÿ\xff"}).Draw(t, "value")
	n := rapid.IntRange(-3, 40).Draw(t, "n")
	score := rapid.Float64().Draw(t, "score")
	return rapid.SampledFrom([][]any{
		{"SET", key, v},
		{"SET", key, v, "PX", n + 4},
		{"INCR", key},
		{"APPEND", key, v},
		{"DEL", key},
		{"RENAME", key, other},
		{"PEXPIRE", key, n},
		{"PERSIST", key},
		{"HSET", key, v, n},
		{"HDEL", key, v},
		{"HINCRBYFLOAT", key, "f", score},
		{"RPUSH", key, v, n},
		{"LPOP", key},
		{"LTRIM", key, n, 2},
		{"LMOVE", key, other, "LEFT", "RIGHT"},
		{"SADD", key, v, n},
		{"SREM", key, v},
		{"SMOVE", key, other, v},
		{"ZADD", key, score, v, n, n},
		{"ZPOPMIN", key, 1},
		{"ZREMRANGEBYSCORE", key, "-inf", score},
		{"ZINCRBY", key, score, v},
		{"XADD", key, "MAXLEN", "~", 3, "*", v, n},
		{"XTRIM", key, "MAXLEN", max(n, 0)},
		{"XADD", key, fmt.Sprintf("%d-1", n), "k", v},
		{"FLUSHALL"},
		{"EVAL", "local t = redis.call('TIME'); return redis.call('ZADD', KEYS[1], t[1] * 1000 + t[2] / 1000, ARGV[1])", 1, key, v},
		{"EVAL", "redis.call('RPUSH', KEYS[1], ARGV[1]); return redis.call('HSET', KEYS[2], 'f', ARGV[1])", 2, key, other, v},
		{"EVAL", "for i, k in ipairs(redis.call('KEYS', '*')) do redis.pcall('XADD', KEYS[1], '*', k, i) end", 1, key},
		{"EVAL", "redis.call('DEL', KEYS[1]); error('half way')", 1, key},
	}).Draw(t, "command")
}

func TestAReopenedStoreEqualsTheOneThatWasClosed(t *testing.T) {
	parent, draw := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		draw++
		dir := filepath.Join(parent, strconv.Itoa(draw))
		clock := newManual()
		opts := Options{Dir: dir, Now: clock.Now, Log: discard()}
		s := openModel(t, opts)
		defer func() { _ = s.Close() }()
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) { do(s, drawCommand(t)...) },
			"read":  func(*rapid.T) { do(s, "GET", "a") }, // may expire keys, unjournalled
			"wait":  func(t *rapid.T) { clock.add(time.Duration(rapid.IntRange(0, 30).Draw(t, "ms")) * time.Millisecond) },
			"compact": func(t *rapid.T) {
				before := state(s)
				if err := compactNow(s); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(before, state(s)); diff != "" {
					t.Fatalf("the compaction changed something: %s", diff)
				}
			},
			"reopen": func(t *rapid.T) {
				before := state(s)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = openModel(t, opts)
				if diff := cmp.Diff(before, state(s)); diff != "" {
					t.Fatalf("the reopened store differs: %s", diff)
				}
			},
		})
	})
}

func openModel(t *rapid.T, o Options) *Store {
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The store's state before a write equals that after opening a journal which was cut off anywhere
// in that write's record.
func TestAnyTornTailIsDroppedWhole(t *testing.T) {
	parent, draw := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		draw++
		dir := filepath.Join(parent, strconv.Itoa(draw))
		clock := newManual()
		opts := Options{Dir: dir, Now: clock.Now, Log: discard()}
		s := openModel(t, opts)
		for range rapid.IntRange(0, 5).Draw(t, "commands") {
			do(s, drawCommand(t)...)
		}
		before, size := state(s), s.journal.size
		do(s, "SET", "last", rapid.StringN(0, 8, -1).Draw(t, "last"))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		whole, err := os.ReadFile(s.gen.journal())
		if err != nil {
			t.Fatal(err)
		}
		for cut := size; cut < int64(len(whole)); cut++ {
			if err := os.WriteFile(s.gen.journal(), whole[:cut], 0o600); err != nil {
				t.Fatal(err)
			}
			torn := openModel(t, opts)
			got, left := state(torn), torn.journal.size
			if err := torn.Close(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, got); diff != "" || left != size {
				t.Fatalf("cut at %d of %d, %d bytes are left, want %d: %s", cut, len(whole), left, size, diff)
			}
		}
	})
}
