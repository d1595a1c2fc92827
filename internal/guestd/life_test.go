package guestd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"greenroom/internal/ssh"
)

func TestStartMakesAGuestThatAnswersAndSaysSoInItsDirectory(t *testing.T) {
	g := newGuest(t, nil)
	must(t, ssh.Handshake(limit(t), g.Target()))
	read, err := ReadInfo(g.dir)
	must(t, err)
	if diff := cmp.Diff(g.Info, read); diff != "" {
		t.Errorf("guest.json differs from what Start returned (-Start +file):\n%s", diff)
	}
	if !lives(g.PID) || g.Name != "local-3" || g.Incarnation != 2 || g.Host != "127.0.0.1" {
		t.Errorf("unexpected guest: %+v", g.Info)
	}
	modes := map[string]os.FileMode{}
	for _, name := range []string{".", hostKeyFile, birthFile, infoFile, homeDir, logFile} {
		info, err := os.Stat(filepath.Join(g.dir, name))
		must(t, err)
		modes[name] = info.Mode().Perm()
	}
	want := map[string]os.FileMode{".": 0o700, hostKeyFile: 0o600, birthFile: 0o600, infoFile: 0o600, homeDir: 0o700, logFile: 0o600}
	if diff := cmp.Diff(want, modes); diff != "" {
		t.Errorf("modes (-want +got):\n%s", diff)
	}
}

func TestStartOfALivingGuestReturnsIt(t *testing.T) {
	o, _, _ := options(t)
	t.Cleanup(func() { must(t, Stop(context.Background(), o.Dir)) })
	infos := make([]Info, 8)
	var starts sync.WaitGroup
	for i := range infos {
		starts.Go(func() { infos[i], _ = Start(limit(t), o) })
	}
	starts.Wait()
	for i := range infos {
		if infos[i].PID < 2 || infos[i].ID != infos[0].ID {
			t.Errorf("start %d returned %+v, start 0 %+v", i, infos[i], infos[0])
		}
	}
	o.Birth.Incarnation++
	if _, err := Start(limit(t), o); err == nil || !strings.Contains(err.Error(), "holds the living guest local-3.2, not local-3.3") {
		t.Errorf("start of another incarnation in the same directory: %v", err)
	}
}

func TestStartReplacesADeadGuest(t *testing.T) {
	g := newGuest(t, nil)
	kill(t, g.PID)
	eventually(t, "guestd is dead", func() bool { return !lives(g.PID) })
	if _, err := Status(limit(t), g.dir); !errors.Is(err, ErrNoGuest) {
		t.Fatalf("status of a dead guest: %v", err)
	}
	o, _, _ := options(t)
	o.Dir = g.dir
	info, err := Start(limit(t), o)
	must(t, err)
	if info.ID == g.ID || info.HostKey == g.HostKey {
		t.Errorf("the new guest passes for the dead one: %+v", info)
	}
}

func TestAFailedStartSaysWhyAndLeavesNothing(t *testing.T) {
	full := t.TempDir()
	must(t, os.WriteFile(filepath.Join(full, "thesis.tex"), nil, 0o600))
	tests := map[string]struct {
		change func(*Options)
		want   string
	}{
		"user data that fails": {func(o *Options) {
			o.Birth.UserData = "#!/bin/sh\nsetsid sleep 1000 & echo no such package; exit 3\n"
		}, "no such package"},
		"a guestd that ends at once":   {func(o *Options) { o.Serve = []string{"/bin/false"} }, "ended without a word"},
		"a guestd that does not exist": {func(o *Options) { o.Serve = []string{"/nonexistent"} }, "no such file"},
		"a name that is no host name":  {func(o *Options) { o.Birth.Name = "../x" }, "allowed are"},
		"an unknown isolation":         {func(o *Options) { o.Birth.Isolation = "vm" }, `allowed are "process" and "namespaces"`},
		"no incarnation":               {func(o *Options) { o.Birth.Incarnation = 0 }, "counts from 1"},
		"a broken key":                 {func(o *Options) { o.Birth.AuthorizedKeys = []string{"ssh-ed25519 AAAA"} }, "authorized key 1"},
		"somebody's directory":         {func(o *Options) { o.Dir = full }, "is not a guest's directory"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o, _, _ := options(t)
			test.change(&o)
			_, err := Start(limit(t), o)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
			if left, err := members(o.Dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			if _, err := os.Stat(o.Dir); o.Dir != full && !os.IsNotExist(err) {
				t.Errorf("the directory is still there: %v", err)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(full, "thesis.tex")); err != nil {
		t.Error(err)
	}
	if err := Stop(limit(t), full); err == nil {
		t.Error("stop would have removed somebody's directory")
	}
}

func TestAStartThatIsGivenUpLeavesNothing(t *testing.T) {
	o, _, _ := options(t)
	fifo := filepath.Join(t.TempDir(), "began")
	must(t, syscall.Mkfifo(fifo, 0o600))
	o.Birth.UserData = "#!/bin/sh\necho began > " + fifo + "\nexec sleep 1000\n"
	ctx, giveUp := context.WithCancel(limit(t))
	go func() {
		os.ReadFile(fifo)
		giveUp()
	}()
	if _, err := Start(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if left, err := members(o.Dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestUserDataRunsOnceInTheGuestBeforeItIsReady(t *testing.T) {
	g := newGuest(t, func(o *Options) { o.Birth.UserData = "#!/bin/sh\npwd > born; echo $GREENROOM_GUEST >> born\n" })
	born, err := os.ReadFile(filepath.Join(g.dir, homeDir, "born"))
	must(t, err)
	if want := filepath.Join(g.Attributes["dir"], homeDir) + "\nlocal-3\n"; string(born) != want {
		t.Errorf("user data wrote %q, want %q", born, want)
	}
}

// escapees starts processes that leave their session, and returns their pids as the host counts.
func (g testGuest) escapees(t *testing.T, cmds ...string) []int {
	t.Helper()
	client := g.dial(t, g.key)
	var pids []int
	for _, cmd := range cmds {
		out, exit := run(t, client, cmd+` </dev/null >/dev/null 2>&1 & echo $!; sleep 0.1`)
		pid, err := strconv.Atoi(out)
		if err != nil || exit != 0 {
			t.Fatalf("%s: %q, exit %d", cmd, out, exit)
		}
		pids = append(pids, pid)
	}
	return pids
}

func TestStopEndsEveryProcessOfTheGuestAndRemovesIt(t *testing.T) {
	tests := map[string]struct {
		killFirst bool
		escapes   []string
	}{
		"while guestd lives":           {false, []string{"setsid sleep 1000", "env -i setsid sleep 1000", `setsid sh -c "trap '' TERM; while :; do sleep 1; done"`}},
		"after guestd was killed (-9)": {true, []string{"setsid sleep 1000", `setsid sh -c "trap '' TERM; while :; do sleep 1; done"`}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, nil)
			pids := g.escapees(t, test.escapes...)
			if test.killFirst {
				kill(t, g.PID)
				eventually(t, "guestd is dead", func() bool { return !lives(g.PID) })
			}
			for _, pid := range pids {
				if !lives(pid) {
					t.Errorf("process %d did not even escape its session", pid)
				}
			}
			must(t, Stop(limit(t), g.dir))
			for _, pid := range append(pids, g.PID) {
				if lives(pid) {
					t.Errorf("process %d outlived its guest", pid)
				}
			}
			if _, err := os.Stat(g.dir); !os.IsNotExist(err) {
				t.Errorf("the directory is still there: %v", err)
			}
			must(t, Stop(limit(t), g.dir))
		})
	}
}

func TestStopOfADirectoryThatWasRemovedByHandStillEndsTheGuest(t *testing.T) {
	g := newGuest(t, nil)
	must(t, os.RemoveAll(g.dir))
	must(t, Stop(limit(t), g.dir))
	if lives(g.PID) {
		t.Error("guestd lives on")
	}
}

func TestStopRemovesTreesThatForbidWriting(t *testing.T) {
	g := newGuest(t, nil)
	if _, exit := run(t, g.dial(t, g.key), "mkdir -p go/mod && touch go/mod/file && chmod 0500 go/mod go"); exit != 0 {
		t.Fatal("could not make the tree")
	}
	must(t, Stop(limit(t), g.dir))
	if _, err := os.Stat(g.dir); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
}

func TestSIGTERMEndsTheGuestWithItsSessions(t *testing.T) {
	g := newGuest(t, nil)
	pids := g.escapees(t, "setsid sleep 1000")
	if g.PID < 2 {
		t.Fatal(g.PID)
	}
	must(t, syscall.Kill(g.PID, syscall.SIGTERM))
	eventually(t, "guestd and its processes have ended", func() bool { return !lives(g.PID) && !lives(pids[0]) })
}

func TestOrphansAreReaped(t *testing.T) {
	g := newGuest(t, nil)
	client := g.dial(t, g.key)
	if _, exit := run(t, client, `for i in 1 2 3 4 5; do setsid sh -c 'exit 0' & done; sleep 0.1`); exit != 0 {
		t.Fatal(exit)
	}
	eventually(t, "guestd has no zombies", func() bool { return len(zombies(t, g.PID)) == 0 })
}

// zombies are the ended children that a process has not reaped.
func zombies(t *testing.T, parent int) []string {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	must(t, err)
	var found []string
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if err == nil && strings.Contains(string(text), fmt.Sprintf(") Z %d ", parent)) {
			found = append(found, string(text))
		}
	}
	return found
}

func TestNamespacesIsolateAGuest(t *testing.T) {
	g := newGuest(t, func(o *Options) { o.Birth.Isolation = IsolationNamespaces })
	client := g.dial(t, g.key)
	if out, _ := run(t, client, "hostname"); out != "local-3" {
		t.Errorf("hostname %q", out)
	}
	out, _ := run(t, client, `ls /proc | grep -E '^[0-9]+$' | sort -n | head -1; cat /proc/1/cmdline | tr '\0' ' '; ls /proc | grep -cE '^[0-9]+$'`)
	lines := strings.Split(out, "\n")
	count, err := strconv.Atoi(strings.TrimSpace(lines[len(lines)-1][strings.LastIndexByte(lines[len(lines)-1], ' ')+1:]))
	if lines[0] != "1" || !strings.Contains(out, "serve "+g.Attributes["dir"]) || err != nil || count > 10 {
		t.Errorf("the guest sees other processes than its own:\n%s", out)
	}
	g.hide(t, client)
	pids := g.pids(t)
	if len(pids) < 3 {
		t.Fatalf("expected guestd and the two that hide, found %v", pids)
	}
	kill(t, g.PID)
	eventually(t, "the end of init ends all", func() bool {
		return !slices.ContainsFunc(pids, lives)
	})
}

// hide starts processes that nothing but a pid namespace could find once their parent is dead.
func (g testGuest) hide(t *testing.T, client *ssh.Client) {
	t.Helper()
	if _, exit := run(t, client, `for i in 1 2; do env -i setsid sleep 1000 </dev/null >/dev/null 2>&1 & done; sleep 0.1`); exit != 0 {
		t.Fatal(exit)
	}
}

func TestTheErrorOfImpossibleNamespacesSaysWhatWorks(t *testing.T) {
	err := explainIsolation(IsolationNamespaces, syscall.EPERM)
	if !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), `isolation = "process" works without`) {
		t.Error(err)
	}
	if err := explainIsolation(IsolationProcess, syscall.EPERM); err != syscall.EPERM {
		t.Error(err)
	}
}

func TestServeIsNotForHands(t *testing.T) {
	if err := Serve(limit(t), t.TempDir()); err == nil || !strings.Contains(err.Error(), "guestd start") {
		t.Error(err)
	}
}
