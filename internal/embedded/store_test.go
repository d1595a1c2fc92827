package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
)

func TestEveryTypeSurvivesAReopenAndACompaction(t *testing.T) {
	s := open(t, Options{Now: newManual().Now})
	for _, args := range [][]any{
		{"SET", "string", "a\x00\r\nb"},
		{"SET", "mortal", "x", "PX", 3_600_000},
		{"HSET", "hash", "f", "v", "g", ""},
		{"RPUSH", "list", "a", "b", "a"},
		{"SADD", "set", "a", "b"},
		{"ZADD", "zset", 1<<53 - 1, "large", "0.1", "tenth", "-inf", "low", "+inf", "high", "1e-300", "tiny"},
		{"XADD", "stream", "*", "k", "v"},
		{"XADD", "stream", "MAXLEN", "~", 10, "*", "k", "w", "k", "twice"},
		{"XADD", "empty", "*", "k", "v"},
		{"XTRIM", "empty", "MAXLEN", 0},
		{"SCRIPT", "LOAD", "return redis.call('TIME')"},
	} {
		must(t, s, args...)
	}
	want := state(s)
	s = reopen(t, s)
	if diff := cmp.Diff(want, state(s)); diff != "" {
		t.Error("after a reopen:", diff)
	}
	if err := compactNow(s); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, state(s)); diff != "" {
		t.Error("after a compaction:", diff)
	}
	s = reopen(t, s)
	if diff := cmp.Diff(want, state(s)); diff != "" {
		t.Error("after a reopen of a snapshot:", diff)
	}
}

func TestADeletedEntrysIDIsNotGivenAgain(t *testing.T) {
	s := open(t, Options{Now: newManual().Now})
	first := must(t, s, "XADD", "s", "*", "k", "v")
	must(t, s, "XDEL", "s", first)
	if err := compactNow(s); err != nil {
		t.Fatal(err)
	}
	if second := must(t, reopen(t, s), "XADD", "s", "*", "k", "v"); second == first {
		t.Errorf("ID %v was given twice", first)
	}
}

func compactNow(s *Store) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.compact()
}

func TestSnapshotHoldsKeysOfAnySize(t *testing.T) {
	s := open(t, Options{})
	for i := range 2000 {
		must(t, s, "HSET", "hash", i, i)
		must(t, s, "ZADD", "zset", i, i)
		must(t, s, "RPUSH", "list", i)
	}
	want := state(s)
	if err := compactNow(s); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, state(reopen(t, s))); diff != "" {
		t.Error(diff)
	}
}

func TestTimeInsideAScriptIsTheTimeOfItsRecord(t *testing.T) {
	clock := newManual()
	s := open(t, Options{Now: clock.Now, Log: discard()})
	stamp := redis.NewScript(`
		local t = redis.call('TIME')
		redis.call('RPUSH', KEYS[1], t[1] .. '.' .. t[2])
		redis.call('XADD', KEYS[2], 'MAXLEN', '~', 100, '*', 'k', 'v')
		return t[1] * 1000 + t[2] / 1000`)
	for range 3 {
		clock.add(1234 * time.Millisecond)
		got, err := stamp.Run(context.Background(), s.Client(), []string{"times", "stream"}).Int64()
		if err != nil || got != clock.now.UnixMilli() {
			t.Fatalf("the script saw %d, %v; want %d", got, err, clock.now.UnixMilli())
		}
	}
	want := state(s)
	if !strings.Contains(want, fmt.Sprintf("%d-0", clock.now.UnixMilli())) {
		t.Errorf("no stream entry has the script's time:\n%s", want)
	}
	clock.add(time.Hour)
	if diff := cmp.Diff(want, state(reopen(t, s))); diff != "" {
		t.Error(diff)
	}
}

func TestTimeNeverGoesBackwards(t *testing.T) {
	clock := newManual()
	s := open(t, Options{Now: clock.Now, Log: discard()})
	first := must(t, s, "XADD", "s", "*", "k", "v")
	before := must(t, s, "TIME")
	clock.add(-time.Hour)
	s = reopen(t, s)
	if diff := cmp.Diff(before, must(t, s, "TIME")); diff != "" {
		t.Error(diff)
	}
	if second := must(t, s, "XADD", "s", "*", "k", "v"); first.(string) >= second.(string) {
		t.Errorf("entry %v after %v", second, first)
	}
}

func TestKeysExpireOnTheStoresClock(t *testing.T) {
	clock := newManual()
	s := open(t, Options{Now: clock.Now})
	must(t, s, "SET", "k", "v", "PX", 1500)
	clock.add(1499 * time.Millisecond)
	if got := must(t, s, "PTTL", "k"); got != int64(1) {
		t.Errorf("PTTL %v, want 1", got)
	}
	s = reopen(t, s)
	clock.add(time.Second)
	if got := must(t, s, "EXISTS", "k"); got != int64(0) {
		t.Error("the key outlived its time over a reopen")
	}
}

func TestAScriptsBodyIsJournalledOnce(t *testing.T) {
	s := open(t, Options{})
	body := "redis.call('INCR', KEYS[1]) -- " + strings.Repeat("x", 1000)
	for range 5 {
		if err := s.Client().Eval(context.Background(), body, []string{"n"}).Err(); err != nil && !errors.Is(err, redis.Nil) {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(s.gen.journal())
	if err != nil || strings.Count(string(b), body) != 1 {
		t.Errorf("the journal holds the body %d times, want 1; %v", strings.Count(string(b), body), err)
	}
	s = reopen(t, s)
	if got := do(s, "EVALSHA", scriptSHA(body), 1, "n"); got != redis.Nil.Error() {
		t.Errorf("the script is not known after a reopen: %v", got)
	}
	if got := must(t, s, "GET", "n"); got != "6" {
		t.Errorf("n = %v, want 6", got)
	}
}

func TestReadsAreNotJournalled(t *testing.T) {
	s := open(t, Options{})
	must(t, s, "SET", "k", "v")
	script := redis.NewScript("return redis.call('GET', KEYS[1])")
	must(t, s, "SCRIPT", "LOAD", "return redis.call('GET', KEYS[1])")
	size := s.journal.size
	for _, args := range [][]any{
		{"GET", "k"},
		{"EXISTS", "k"},
		{"EVALSHA_RO", script.Hash(), 1, "k"},
		{"EVAL_RO", "return redis.call('GET', KEYS[1])", 1, "k"},
		{"SCRIPT", "EXISTS", script.Hash()},
		{"SCRIPT", "LOAD", "return redis.call('GET', KEYS[1])"},
		{"TIME"},
		{"XREAD", "STREAMS", "none", "0"},
	} {
		must(t, s, args...)
	}
	if got := do(s, "EVALSHA", strings.Repeat("0", 40), 0); !strings.HasPrefix(got.(string), "NOSCRIPT") {
		t.Errorf("an unknown script: %v", got)
	}
	if s.journal.size != size {
		t.Errorf("reads made the journal grow by %d bytes", s.journal.size-size)
	}
}

func TestReadOnlyScriptsCanNotWrite(t *testing.T) {
	s := open(t, Options{})
	got := do(s, "EVAL_RO", "return redis.call('SET', KEYS[1], 'v')", 1, "k")
	if !strings.Contains(fmt.Sprint(got), "not allowed in read-only scripts") {
		t.Errorf("got %v", got)
	}
}

func TestWhatCanNotBeReplayedIsRefused(t *testing.T) {
	s := open(t, Options{})
	for _, args := range [][]any{
		{"BLPOP", "k", 0},
		{"XREAD", "BLOCK", 0, "STREAMS", "k", "0"},
		{"SUBSCRIBE", "k"},
		{"SPOP", "k"},
		{"WATCH", "k"},
		{"SELECT", 1},
		{"XGROUP", "CREATE", "k", "g", "$", "MKSTREAM"},
		{"PFADD", "k", "v"},
		{"HEXPIRE", "k", 1, "FIELDS", 1, "f"},
		{"SCRIPT", "FLUSH"},
		{"EVAL", "return math.random()", 0},
		{"EVAL", "return redis.call('SPOP', 'k')", 0},
		{"NONSENSE"},
	} {
		if got := fmt.Sprint(do(s, args...)); !strings.Contains(got, "not available in the embedded Redis") {
			t.Errorf("%v: %v", args, got)
		}
	}
}

func TestTransactionIsOneRecordAndAnswersEachCommand(t *testing.T) {
	s := open(t, Options{})
	ctx := context.Background()
	cmds, err := s.Client().TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Set(ctx, "a", "1", 0)
		p.Incr(ctx, "a")
		p.LPush(ctx, "a", "wrong type")
		p.Eval(ctx, "return redis.call('INCR', KEYS[1])", []string{"a"})
		return nil
	})
	if err == nil || !strings.HasPrefix(err.Error(), "WRONGTYPE") {
		t.Errorf("error %v, want that of the third command", err)
	}
	if got := cmds[3].(*redis.Cmd).Val(); got != int64(3) {
		t.Errorf("the script returned %v, want 3", got)
	}
	if got := must(t, reopen(t, s), "GET", "a"); got != "3" {
		t.Errorf("a = %v after a reopen, want 3", got)
	}
}

func TestTransactionWithARefusedCommandDoesNothing(t *testing.T) {
	s := open(t, Options{})
	ctx := context.Background()
	_, err := s.Client().TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Set(ctx, "a", "1", 0)
		p.SPop(ctx, "b")
		return nil
	})
	if err == nil {
		t.Error("no error")
	}
	if got := must(t, s, "EXISTS", "a"); got != int64(0) {
		t.Error("a part of it was executed")
	}
}

func TestPipelineLargerThanEveryBuffer(t *testing.T) {
	s := open(t, Options{})
	ctx := context.Background()
	value := strings.Repeat("v", 10_000)
	cmds, err := s.Client().Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range 500 {
			p.Set(ctx, fmt.Sprint(i), value, 0)
			p.Get(ctx, fmt.Sprint(i))
		}
		return nil
	})
	if err != nil || cmds[999].(*redis.StringCmd).Val() != value {
		t.Fatal(err)
	}
}

func TestConcurrentClientsLoseNoWrite(t *testing.T) {
	s := open(t, Options{CompactBytes: 4 << 10, SyncEvery: time.Millisecond})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if _, err := s.Client().Incr(context.Background(), "n").Result(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := must(t, reopen(t, s), "GET", "n"); got != "800" {
		t.Errorf("n = %v, want 800", got)
	}
}

func TestScoresOfMillisecondsRoundTripThroughScripts(t *testing.T) {
	s := open(t, Options{})
	for _, score := range []float64{1<<53 - 1, 1_700_000_000_123, 0.1, math.MaxFloat64} {
		must(t, s, "ZADD", "z", score, "m")
		must(t, s, "EVAL", "redis.call('ZADD', KEYS[2], redis.call('ZSCORE', KEYS[1], 'm'), 'm')", 2, "z", "y")
		s = reopen(t, s)
		got, err := s.Client().ZScore(context.Background(), "y", "m").Result()
		if err != nil || got != score {
			t.Errorf("score %v came back as %v, %v", score, got, err)
		}
	}
}

func TestJSONOfAScriptIsTheSameEachTime(t *testing.T) {
	s := open(t, Options{})
	in, err := json.Marshal(map[string]int{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		must(t, s, "EVAL", "redis.call('RPUSH', KEYS[1], cjson.encode(cjson.decode(ARGV[1])))", 1, "k", string(in))
	}
	want := state(s)
	if diff := cmp.Diff(want, state(reopen(t, s))); diff != "" {
		t.Error(diff)
	}
}

func TestSecondOpenIsRefusedAndSaysWho(t *testing.T) {
	s := open(t, Options{})
	_, err := Open(s.opts)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("process %d holds", os.Getpid())) {
		t.Errorf("got %v", err)
	}
}

func TestFilesAreForTheirOwnerOnly(t *testing.T) {
	s := open(t, Options{Dir: filepath.Join(t.TempDir(), "new")})
	must(t, s, "SET", "k", "v")
	if err := compactNow(s); err != nil {
		t.Fatal(err)
	}
	modes := map[string]string{}
	for _, path := range []string{"", "lock", "snapshot-1", "journal-1"} {
		info, err := os.Stat(filepath.Join(s.opts.Dir, path))
		if err != nil {
			t.Fatal(err)
		}
		modes[path] = info.Mode().String()
	}
	want := map[string]string{"": "drwx------", "lock": "-rw-------", "snapshot-1": "-rw-------", "journal-1": "-rw-------"}
	if diff := cmp.Diff(want, modes); diff != "" {
		t.Error(diff)
	}
	if left, err := filepath.Glob(filepath.Join(s.opts.Dir, "*-0")); err != nil || len(left) > 0 {
		t.Errorf("the compaction left %v, %v", left, err)
	}
}

func TestAClosedStoreAnswersErrors(t *testing.T) {
	s := open(t, Options{})
	must(t, s, "SET", "k", "v")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Client().Get(context.Background(), "k").Err(); !errors.Is(err, redis.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if _, err := s.dial(context.Background(), "", ""); !errors.Is(err, errClosed) {
		t.Errorf("got %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("the second close: %v", err)
	}
}

func TestGarbageOnAConnectionEndsIt(t *testing.T) {
	s := open(t, Options{})
	c, err := s.dial(context.Background(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("GET / HTTP/1.1\r\n")); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if n, err := c.Read(make([]byte, 1)); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("read %d bytes, %v; want the end of the connection", n, err)
	}
}
