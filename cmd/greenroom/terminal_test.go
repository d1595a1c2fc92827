package main

import (
	"bytes"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// terminal is a real one: programs write to tty, and who sits before it types into master.
type terminal struct {
	tty, master *os.File
	before      unix.Termios

	grown chan struct{}
	ended sync.WaitGroup
	mu    sync.Mutex // of what follows
	seen  bytes.Buffer
}

func newTerminal(t *testing.T, rows, cols uint16) *terminal {
	t.Helper()
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	s := &terminal{tty: tty, master: master, before: modes(t, tty), grown: make(chan struct{}, 1)}
	t.Cleanup(func() { s.close() })
	s.resize(t, rows, cols)
	s.ended.Go(s.read)
	return s
}

// read ends when nobody has the other end open any more.
func (s *terminal) read() {
	part := make([]byte, 4096)
	for {
		n, err := s.master.Read(part)
		s.mu.Lock()
		s.seen.Write(part[:n])
		s.mu.Unlock()
		select {
		case s.grown <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// text is what was written so far.
func (s *terminal) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.String()
}

// await waits until so many of a text were written.
func (s *terminal) await(t *testing.T, want string, times int) {
	t.Helper()
	late := time.After(time.Minute)
	for strings.Count(s.text(), want) < times {
		select {
		case <-s.grown:
		case <-late:
			t.Fatalf("the terminal shows no %q %d times: %.1000q", want, times, s.text())
		}
	}
}

// enter types.
func (s *terminal) enter(t *testing.T, keys string) {
	t.Helper()
	if _, err := s.master.WriteString(keys); err != nil {
		t.Error(err)
	}
}

func (s *terminal) resize(t *testing.T, rows, cols uint16) {
	t.Helper()
	if err := pty.Setsize(s.tty, &pty.Winsize{Rows: rows, Cols: cols}); err != nil {
		t.Fatal(err)
	}
}

// close returns all that was written.
func (s *terminal) close() string {
	s.tty.Close()
	s.ended.Wait()
	s.master.Close()
	return s.text()
}

// unchanged tells that the terminal is as it was.
func (s *terminal) unchanged(t *testing.T) {
	t.Helper()
	if after := modes(t, s.tty); after != s.before {
		t.Errorf("the terminal's modes are %+v, and were %+v", after, s.before)
	}
}

func modes(t *testing.T, tty *os.File) unix.Termios {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *m
}
