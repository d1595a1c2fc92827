package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/reconcile/condition"
)

// busyHouse is a view with something of everything.
func busyHouse() view {
	now := time.Date(2026, 11, 20, 12, 0, 30, 0, time.UTC)
	ready := []condition.Condition{{Type: condition.Ready, Status: true}}
	pool := func(name string, maximum int, guests map[lease.State]int, conditions []condition.Condition) client.Pool {
		return client.Pool{PoolStatus: condition.PoolStatus{Pool: name, Module: "local", Max: maximum, Guests: guests, Conditions: conditions}}
	}
	cache := func(name string, warm, size, maximum int, guests map[lease.State]int) client.Cache {
		return client.Cache{Name: name, Owner: "platform", Warm: warm, Size: size, Max: maximum, Enabled: true, Guests: guests, Leases: guests[lease.Leased]}
	}
	ci := cache("ci", 2, 4, 6, map[lease.State]int{lease.Shelved: 3, lease.Leased: 1, lease.Booting: 1})
	ci.Hits, ci.Misses = 92, 8
	nightly := cache("nightly", 50, 300, 400, map[lease.State]int{lease.Shelved: 200, lease.Leased: 150, lease.Tainted: 1})
	nightly.Queue, nightly.Oldest, nightly.Misses = 12, now.Add(-3*time.Minute), 7
	off := cache("lab", 0, 0, 2, nil)
	off.Enabled = false
	spares := cache("big", 0, 1, 1, map[lease.State]int{lease.Shelved: 1})
	spares.Invisible = true
	bare := cache("local", 0, 0, 0, nil)
	bare.Invisible = true
	paused := pool("old", 3, map[lease.State]int{lease.Held: 1, lease.Failed: 1}, ready)
	paused.Pause = &lease.Pause{By: "root"}
	braked := pool("sick", 4, map[lease.State]int{lease.Shelved: 4}, ready)
	braked.Brake = "3 of 4 are dead"
	events := someEvents()
	return view{
		now: now, events: events,
		status: client.Status{
			Status: condition.Status{
				Revision: "3f786850e387550fdab836ed7e6dc881de23001b", Source: "https://git.example.org/fleet.git", SpecSince: now.Add(-26 * time.Hour),
				SpecFault:  &condition.Fault{Reason: condition.GuardExceeded, Message: "12 of 20 guests would go\nmore"},
				Conditions: []condition.Condition{{Type: condition.Waiting, Status: true, Message: "module local pauses"}, {Type: condition.Ready, Status: true}},
			},
			Caches: []client.Cache{ci, nightly, off, spares, bare},
			Pools: []client.Pool{
				pool("big", 400, map[lease.State]int{lease.Shelved: 201, lease.Leased: 150, lease.Tainted: 1}, ready),
				pool("local", 6, map[lease.State]int{lease.Shelved: 3, lease.Leased: 1, lease.Booting: 1}, []condition.Condition{{Type: condition.Reconciling, Status: true, Message: "1 run"}}),
				pool("empty", 2, nil, nil), paused, braked,
				pool("stuck", 2, map[lease.State]int{lease.Failed: 2}, []condition.Condition{{Type: condition.Stalled, Status: true, Message: "no such image\nat all"}}),
			},
		},
	}
}

func inUTC(t *testing.T) {
	before := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = before })
}

func TestAFrameShowsTheHouse(t *testing.T) {
	inUTC(t)
	away := busyHouse()
	away.seen = away.now.Add(-7 * time.Second)
	away.fault, away.status.Store = "cannot reach the server at /run/greenroom.sock: connection refused", "the store cannot be reached"
	for name, frame := range map[string]string{
		"top_plain.txt":  draw(busyHouse(), 0, 0, false),
		"top_wide.txt":   draw(busyHouse(), 140, 40, false),
		"top_small.txt":  draw(away, 80, 24, false),
		"top_narrow.txt": draw(busyHouse(), 40, 24, false),
		"top_colour.txt": draw(busyHouse(), 140, 40, true),
		"top_empty.txt":  draw(view{now: away.now}, 80, 24, true),
	} {
		t.Run(name, func(t *testing.T) {
			golden(t, name, strings.NewReplacer(newLine, "\n", "\x1b[", "^[").Replace(frame))
		})
	}
}

func TestAFrameFitsEveryScreen(t *testing.T) {
	inUTC(t)
	for height := 1; height < 50; height++ {
		for width := 1; width < 200; width += 7 {
			lines := strings.Split(draw(busyHouse(), width, height, false), newLine)
			if len(lines) > height {
				t.Fatalf("%dx%d: %d lines", width, height, len(lines))
			}
			for _, l := range lines {
				if n := utf8.RuneCountInString(strings.TrimPrefix(l, endOfScreen)); n > width {
					t.Fatalf("%dx%d: a line of %d characters: %q", width, height, n, l)
				}
			}
		}
	}
}

// spoil puts what would clear the screen, and break the line, into every text of a value.
func spoil(v reflect.Value) {
	const evil = "\x1b[2J\n\u202e\u009b"
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + evil)
	case reflect.Struct:
		for _, field := range v.Fields() {
			if field.CanSet() {
				spoil(field)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			spoil(v.Index(i))
		}
	case reflect.Pointer:
		if !v.IsNil() {
			spoil(v.Elem())
		}
	}
}

func TestNoTextOfTheServerSteersTheTerminal(t *testing.T) {
	clean := busyHouse()
	clean.fault = "away"
	hostile := clean
	spoil(reflect.ValueOf(&hostile.status).Elem())
	spoil(reflect.ValueOf(&hostile.events).Elem())
	hostile.fault += "\x1b[2J"
	hostile.status.Store = "" // there, so that pools show what they have
	sameFrames(t, clean, hostile)
	clean.status.Store, hostile.status.Store = "away", "away\x1b[2J\n"
	sameFrames(t, clean, hostile)
}

// sameFrames tells that a hostile view has the lines of a clean one, and no sequences but our own.
func sameFrames(t *testing.T, clean, hostile view) {
	t.Helper()
	for _, p := range []paint{true, false} {
		want, got := draw(clean, 0, 0, p), draw(hostile, 0, 0, p)
		if !strings.Contains(got, `ci\x1b[2J\n\u202e\u009b`) {
			t.Fatalf("the view is not spoilt: %s", got)
		}
		own := strings.NewReplacer("\x1b[0m", "", "\x1b[1m", "", "\x1b[2m", "", "\x1b[3", "", "\x1b[90m", "")
		for _, r := range own.Replace(got) {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Errorf("%q reaches the terminal", r)
			}
		}
		if strings.Count(want, "\n") != strings.Count(got, "\n") {
			t.Errorf("the lines are others:\n%s\nwant:\n%s", got, want)
		}
	}
}

func TestABarShowsEachPartThatIsThere(t *testing.T) {
	bar := func(whole, cells int, ns ...int) string {
		var parts []share
		for i, n := range ns {
			parts = append(parts, share{n, "", string(rune('a' + i))})
		}
		return fill(parts, whole, cells).in(false, 0)
	}
	got := []string{bar(4, 4, 1, 2), bar(1000, 10, 1, 500, 1), bar(4, 4, 9), bar(100, 3, 1, 1, 1), bar(1, 1), bar(100, 2, 1, 1, 1)}
	want := []string{"abb·", "abbbbbc···", "aaaa", "abc", "·", "ab"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// restored tells that the alternate screen was entered once and left at the very end, and that the modes are as they were.
func restored(t *testing.T, s *terminal) (out string) {
	t.Helper()
	s.unchanged(t)
	out = s.close()
	if !strings.HasPrefix(out, enterScreen) || !strings.HasSuffix(out, leaveScreen) || strings.Count(out, "\x1b[?1049") != 2 {
		t.Errorf("the terminal was not given back: %q … %q", out[:min(len(out), 40)], out[max(0, len(out)-40):])
	}
	return out
}

// looks is a source of views that does something at its nth look.
func looks(n int, do func() (view, error)) func(context.Context) (view, error) {
	return func(context.Context) (view, error) {
		if n--; n == 0 {
			return do()
		}
		return busyHouse(), nil
	}
}

func TestTheTerminalIsRestoredHoweverTopEnds(t *testing.T) {
	types := func(keys string) func(*testing.T, *terminal, func()) {
		return func(t *testing.T, s *terminal, _ func()) { s.enter(t, keys) }
	}
	for name, end := range map[string]func(t *testing.T, s *terminal, cancel func()){
		"by q, behind a key that means nothing":  types("xq"),
		"by Ctrl-C, which is a byte in raw mode": types(string(rune(ctrlC))),
		"by the end of its context":              func(_ *testing.T, _ *terminal, cancel func()) { cancel() },
		"by a panic in a look":                   func(*testing.T, *terminal, func()) { panic("a fault") },
	} {
		t.Run(name, func(t *testing.T) {
			s := newTerminal(t, 24, 100)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			look := looks(2, func() (view, error) { end(t, s, cancel); return view{}, errors.New("away") })
			screen := &top{in: s.tty, out: s.tty, every: 10 * time.Millisecond, view: busyHouse(), look: look}
			fault := func() (fault any) {
				defer func() { fault = recover() }()
				if err := screen.run(ctx); err != nil {
					t.Error(err)
				}
				return nil
			}()
			restored(t, s)
			if strings.Contains(name, "panic") != strings.HasPrefix(fmt.Sprint(fault), "a fault\n") {
				t.Errorf("the panic is %v", fault)
			}
		})
	}
}

// aHouse answers what top asks for. It stands for a server that is slow to reach its states.
func aHouse(t *testing.T) *httptest.Server {
	v := busyHouse()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body any = v.status
		if r.URL.Path == "/v1/events" {
			body = client.Feed{Events: v.events}
		}
		_ = json.NewEncoder(w).Encode(body)
	}))
	t.Cleanup(server.Close)
	return server
}

// startTop runs the command on a terminal that is its controlling one.
func startTop(t *testing.T, s *terminal, server string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), "greenroom", "top", "--every", "200ms", "--server", server)
	cmd.Env = append(os.Environ(), "GREENROOM_TOKEN=gr_TEST", "NO_COLOR=1", "TZ=UTC", "TERM=xterm")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.tty, s.tty, s.tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestTopLivesInATerminalUntilASignalEndsIt(t *testing.T) {
	heard := make(chan os.Signal, 1) // also where the tests were started by nohup
	signal.Notify(heard, syscall.SIGHUP)
	defer signal.Stop(heard)
	server := aHouse(t)
	for _, end := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		t.Run(end.String(), func(t *testing.T) {
			s := newTerminal(t, 24, 100)
			cmd := startTop(t, s, server.URL)
			s.await(t, home, 2)
			if err := cmd.Process.Signal(end); err != nil {
				t.Error(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("the end: %v", err)
			}
			if out := restored(t, s); !strings.Contains(out, "CACHE") || strings.Contains(out, "\x1b[32m") {
				t.Errorf("the screen: %.500q", out)
			}
		})
	}
}

func TestTopSaysThatTheServerIsAwayAndGoesOn(t *testing.T) {
	house := aHouse(t).Config.Handler
	var away atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if away.Load() {
			panic(http.ErrAbortHandler) // the port stays ours; another would be given to anybody
		}
		house.ServeHTTP(w, r)
	}))
	defer server.Close()
	s := newTerminal(t, 24, 100)
	cmd := startTop(t, s, server.URL)
	s.await(t, home, 1)
	away.Store(true)
	s.await(t, ": cannot reach the server", 1)
	away.Store(false)
	for frame := "NOT LIVE"; strings.Contains(frame, "NOT LIVE"); {
		s.await(t, home, strings.Count(s.text(), home)+1)
		frames := strings.Split(s.text(), home)
		frame = frames[len(frames)-2] // the one before may not be whole yet
	}
	s.enter(t, "q")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	restored(t, s)
}

func TestTopFollowsTheSizeOfItsTerminal(t *testing.T) {
	s := newTerminal(t, 24, 100)
	cmd := startTop(t, s, aHouse(t).URL)
	s.await(t, home, 1)
	s.resize(t, 3, 20)
	s.await(t, home, strings.Count(s.text(), home)+2)
	s.enter(t, "q")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	out := restored(t, s)
	last := out[strings.LastIndex(out, home):]
	if n := strings.Count(last, "\r\n"); n != 2 {
		t.Errorf("the last frame has %d lines more than one, want 2: %q", n, last)
	}
}

func TestTopPrintsOneFrameWhereThereIsNoTerminal(t *testing.T) {
	t.Setenv("GREENROOM_TOKEN", "gr_TEST")
	got := execute(t.Context(), "top", "--server", aHouse(t).URL)
	if got.code != 0 || !strings.Contains(got.stdout, "nightly") || strings.Contains(got.stdout, "\x1b") || got.stderr != "" {
		t.Errorf("%+v", got)
	}
	for _, args := range []string{"-o json", "--every 1ms", "--every -1s", "ci"} {
		if got := execute(t.Context(), append([]string{"top"}, strings.Fields(args)...)...); got.code != 2 {
			t.Errorf("top %s: %+v", args, got)
		}
	}
	if got := execute(t.Context(), "top", "--server", "http://127.0.0.1:1"); got.code != 1 || !strings.Contains(got.stderr, "cannot reach the server") {
		t.Errorf("a server that is away: %+v", got)
	}
}

func TestAHowLongIsShort(t *testing.T) {
	got := []string{}
	for _, d := range []time.Duration{-time.Second, 90 * time.Second, 5 * time.Minute, 3 * time.Hour, 72 * time.Hour} {
		got = append(got, howLong(d))
	}
	if diff := cmp.Diff([]string{"0s", "90s", "5m", "3h", "3d"}, got); diff != "" {
		t.Error(diff)
	}
}
