package embedded

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// child starts this test binary again in another role, on dir.
func child(t *testing.T, role, dir string) (*exec.Cmd, io.Reader) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "EMBEDDED_TEST_CHILD="+role, "EMBEDDED_TEST_DIR="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// writeForever appends numbers to a list, and prints each number when the store has taken it.
func writeForever(dir string) error {
	s, err := Open(Options{Dir: dir, CompactBytes: 8 << 10, Log: discard()})
	if err != nil {
		return err
	}
	push := redis.NewScript("local n = redis.call('LLEN', KEYS[1]); redis.call('RPUSH', KEYS[1], n); return n")
	for {
		n, err := push.Run(context.Background(), s.Client(), []string{"numbers"}).Int()
		if err != nil {
			return err
		}
		fmt.Println(n)
	}
}

func TestKill9LosesNoAcknowledgedWrite(t *testing.T) {
	dir := t.TempDir()
	total := 0
	for round := range 20 {
		cmd, out := child(t, "writer", dir)
		acked := killAfter(t, cmd, out, total+25+13*round)
		s, err := Open(Options{Dir: dir, Log: discard()})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		list, err := s.Client().LRange(context.Background(), "numbers", 0, -1).Result()
		if err := errors.Join(err, s.Close()); err != nil {
			t.Fatal(err)
		}
		for i, v := range list {
			if v != strconv.Itoa(i) {
				t.Fatalf("round %d: entry %d is %s", round, i, v)
			}
		}
		if len(list) <= acked {
			t.Fatalf("round %d: %d was acknowledged, and %d entries are left", round, acked, len(list))
		}
		total = len(list)
	}
}

// killAfter kills the child once it has printed the number, and returns the last one that it printed.
func killAfter(t *testing.T, cmd *exec.Cmd, out io.Reader, number int) int {
	t.Helper()
	last := -1
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			break // the kill tore the line
		}
		if last = n; n == number {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child ended by itself after %d: %v", last, err)
	}
	return last
}

// fillDisk runs into a file size limit, which refuses writes as a full disk does: with a part of
// the record written. Then it lifts the limit.
func fillDisk(dir string) error {
	s, err := Open(Options{Dir: dir, CompactBytes: 1 << 10, Log: discard()})
	if err != nil {
		return err
	}
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		return err
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 10_000, Max: was.Max}); err != nil {
		return err
	}
	ctx := context.Background()
	value := strings.Repeat("v", 300)
	written := 0
	for ; written < 1000 && err == nil; written++ {
		err = s.Client().RPush(ctx, "list", value+strconv.Itoa(written)).Err()
	}
	fmt.Println("failed", errors.Is(err, ErrJournal), err)
	n, lenErr := s.Client().LLen(ctx, "list").Result()
	fmt.Println("executed", n == int64(written-1), "reads", lenErr)
	_, err = s.Client().TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.RPush(ctx, "list", value)
		return nil
	})
	fmt.Println("transaction", errors.Is(err, ErrJournal))
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		return err
	}
	fmt.Println("resumed", s.Client().RPush(ctx, "list", "after").Err(), n+1)
	return syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

func TestFullDiskRefusesWritesAndResumesByItself(t *testing.T) {
	dir := t.TempDir()
	cmd, out := child(t, "full", dir)
	b, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it kills itself
	got := string(b)
	for _, want := range []string{
		"failed true the journal can't be written: write ", ": file too large; the command was not executed: see to the disk of " + dir,
		"executed true reads <nil>", "transaction true", "resumed <nil> ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	s := open(t, Options{Dir: dir, Log: discard()})
	n := must(t, s, "LLEN", "list")
	if !strings.Contains(got, fmt.Sprintf("resumed <nil> %d\n", n)) || must(t, s, "LINDEX", "list", -1) != "after" {
		t.Errorf("%d entries are left after:\n%s", n, got)
	}
}
