package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"greenroom/lease/client"
)

// shortest is the least time between two looks: a screen that is left open must not cost the server anything.
const shortest = 200 * time.Millisecond

// longest is how long a look may take: a server that does not answer is as good as away.
const longest = 5 * time.Second

func newTop() *cobra.Command {
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show caches, pools and what happens, live",
		Long: "Show caches, pools and what happens, live: q or Ctrl-C ends it. Where stdout is no terminal, it prints what there is to see once.\n\n" +
			"A shelf is drawn to the cache's max: █ shelved, ▓ leased, ▒ on their way, ┊ at warm and │ at size. NO_COLOR takes the colours away.",
		Args: exactArgs(),
	}
	cmd.Flags().DurationVar(&every, "every", time.Second, "time between two looks")
	at := linked(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case isJSON(cmd):
			return usage("top is for people; see \"greenroom status -o json\" and \"greenroom events -o json\"")
		case every < shortest:
			return usage("--every %v, want at least %v", every, shortest)
		}
		c, err := at.open(cmd, soon)
		if err != nil {
			return err
		}
		first, err := observe(cmd.Context(), c)
		if err != nil {
			return hinted(err)
		}
		out, terminal := cmd.OutOrStdout().(*os.File)
		if terminal {
			_, terminal = screen(out)
		}
		if !terminal {
			_, err := io.WriteString(cmd.OutOrStdout(), draw(first, 0, 0, false))
			return err
		}
		t := &top{in: cmd.InOrStdin(), out: out, every: every, view: first, look: func(ctx context.Context) (view, error) { return observe(ctx, c) }}
		return t.run(cmd.Context())
	}
	return cmd
}

// shownEvents is how many events are asked for; a screen has no room for more.
const shownEvents = 100

// observe asks for all that is shown.
func observe(ctx context.Context, c *client.Client) (view, error) {
	status, err := c.Status(ctx)
	if err != nil {
		return view{}, err
	}
	feed, err := c.Feed(ctx, client.EventFilter{Number: shownEvents})
	now := time.Now()
	return view{now: now, seen: now, status: status, events: feed.Events}, err
}

// top is a screen that is drawn again and again.
type top struct {
	in    io.Reader
	out   *os.File
	every time.Duration
	view  view
	look  func(ctx context.Context) (view, error)
}

// seen is what a look came to.
type seen struct {
	view  view
	err   error
	panic any // with its stack, because it is raised again in another goroutine
}

// run draws until somebody ends it. However that happens, the terminal is as it was afterwards: what goes wrong beside this
// goroutine is brought here.
func (t *top) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	restore, err := t.enter()
	if err != nil {
		return err
	}
	defer restore()
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	looks, keys := make(chan seen), make(chan byte)
	beside.Go(func() { t.watch(ctx, looks) })
	if in, ok := t.in.(*os.File); ok {
		beside.Go(func() { readKeys(ctx, int(in.Fd()), keys) })
	}
	for {
		if err := t.draw(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-resized:
		case key := <-keys:
			if key == 'q' || key == 'Q' || key == ctrlC {
				return nil
			}
		case s := <-looks:
			t.take(s)
		}
	}
}

const ctrlC = 3 // what it is as a byte, where the terminal makes no signal of it

// take shows what a look came to; one that failed leaves what was seen last.
func (t *top) take(s seen) {
	switch {
	case s.panic != nil:
		panic(s.panic)
	case s.err != nil:
		t.view.now, t.view.fault = time.Now(), s.err.Error()
	default:
		t.view = s.view
	}
}

// watch looks every now and then.
func (t *top) watch(ctx context.Context, out chan<- seen) {
	tick := time.NewTicker(t.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case <-ctx.Done():
			return
		case out <- t.lookOnce(ctx):
		}
	}
}

func (t *top) lookOnce(ctx context.Context) (s seen) {
	defer func() {
		if fault := recover(); fault != nil {
			s.panic = fmt.Sprintf("%v\n%s", fault, debug.Stack())
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	s.view, s.err = t.look(ctx)
	return s
}

// Sequences of ECMA-48 and of xterm, which every terminal of today knows.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l" // the alternate screen, without a cursor; lines do not break
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H\x1b[K"
	newLine     = "\r\n\x1b[K" // wiped first: behind a full line the cursor stands on its last character
	endOfScreen = "\x1b[J"
)

// enter takes the terminal over; restore gives it back.
func (t *top) enter() (restore func(), err error) {
	raw := func() error { return nil }
	if in, ok := t.in.(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		before, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return nil, fmt.Errorf("take the terminal over: %w", err)
		}
		raw = func() error { return term.Restore(int(in.Fd()), before) }
	}
	restore = func() {
		_, _ = io.WriteString(t.out, leaveScreen) // a terminal that is gone needs nothing
		_ = raw()
	}
	if _, err := io.WriteString(t.out, enterScreen); err != nil {
		restore()
		return nil, err
	}
	return restore, nil
}

// draw puts the view on the screen as large as it is just now.
func (t *top) draw() error {
	width, height, err := term.GetSize(int(t.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	_, err = io.WriteString(t.out, home+draw(t.view, width, height, paintOf(t.out)))
	return err
}

// readKeys hands on what is typed. It asks before it reads, so that it can end.
func readKeys(ctx context.Context, fd int, out chan<- byte) {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for ctx.Err() == nil {
		n, err := unix.Poll(poll, 100)
		switch {
		case n == 0, errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return
		}
		var key [1]byte
		if n, err := unix.Read(fd, key[:]); n == 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return // who has no keyboard can still send a signal
		}
		select {
		case <-ctx.Done():
		case out <- key[0]:
		}
	}
}
