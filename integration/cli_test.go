package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"greenroom/lease"
	"greenroom/lease/client"
)

// shop is a live server with two guests, for commands.
func shop(t *testing.T, n int) *house {
	t.Helper()
	h := newHouse(t, options{})
	h.write(fleet{max: n, warm: n, size: n})
	h.start()
	h.converged()
	return h
}

func TestWithLendsAGuestToACommand(t *testing.T) {
	h := shop(t, 2)
	const script = `test "$GREENROOM_HOST" && test "$GREENROOM_PORT" && test "$GREENROOM_USER" && test "$GREENROOM_LEASE" || exit 99
		ssh -F "$GREENROOM_SSH_CONFIG" guest 'echo "in $GREENROOM_GUEST"' || exit 98
		echo "by $GREENROOM_GUEST"
		exit 7`
	out, errs, code := h.cli("with", "--cache", "ci", "--", "sh", "-c", script)
	lines := strings.Fields(out)
	if code != 7 || len(lines) != 4 || lines[0] != "in" || lines[2] != "by" || lines[1] != lines[3] {
		t.Errorf("exit status %d, want 7; output %q, errors %q", code, out, errs)
	}
	if errs != "" {
		t.Errorf("a command that was lent a guest says %q, want nothing of ours", errs)
	}
	h.gaveBack("fail")
	if _, errs, code = h.cli("with", "--cache", "ci", "--", "true"); code != 0 {
		t.Errorf("exit status %d, want 0: %s", code, errs)
	}
	h.gaveBack("pass")
	if _, _, code = h.cli("with", "--cache", "ci", "--", "sh", "-c", "kill -9 $$"); code != 128+9 {
		t.Errorf("exit status %d of a command that was killed, want %d", code, 128+9)
	}
	if _, errs, code = h.cli("with", "--cache", "ci", "--", "no-such-command"); code != 127 || !strings.Contains(errs, "nothing was leased") {
		t.Errorf("exit status %d of no command, want 127: %s", code, errs)
	}
	if _, errs, code = h.cli("with", "--cache", "nowhere", "--", "true"); code != 1 || !strings.Contains(errs, "greenroom cache list") {
		t.Errorf("exit status %d of an unknown cache, want 1 and a hint: %s", code, errs)
	}
}

// gaveBack asserts that no lease is left, and how the last one ended.
func (h *house) gaveBack(outcome string) {
	h.Helper()
	if left := must(h.api.Leases(h.Context(), "ci"))(h); len(left) > 0 {
		h.Errorf("leases are left: %+v", left)
	}
	last := ""
	for name := range h.guests() {
		for _, e := range must(h.api.Events(h.Context(), name, 10))(h) {
			if e.From == lease.Leased {
				last = max(last, e.Time.Format(time.RFC3339Nano)+" "+e.Detail)
			}
		}
	}
	if !strings.HasSuffix(last, "released: "+outcome) {
		h.Errorf("the last lease ended with %q, want %q", last, outcome)
	}
}

func TestRunPassesStreamsAndExitCodesThrough(t *testing.T) {
	h := shop(t, 2)
	cmd := h.command("run", "--cache", "ci", "--", `cat; echo oops >&2; exit 3`)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("through the guest"), &out, &errs
	if code := exitCode(t, cmd.Run()); code != 3 || out.String() != "through the guest" || errs.String() != "oops\n" {
		t.Errorf("exit status %d, output %q, errors %q", code, &out, &errs)
	}
	h.gaveBack("fail")
	got, _, code := h.cli("run", "--cache", "ci", "--", "printf", `%s|`, "two words", `$HOME`, `it's`)
	if code != 0 || got != `two words|$HOME|it's|` {
		t.Errorf("exit status %d, output %q", code, got)
	}
	if _, _, code := h.cli("run", "--cache", "ci", "--", `kill -TERM $$`); code != 128+15 {
		t.Errorf("exit status %d of a command that was killed, want %d", code, 128+15)
	}
}

func TestFilesAreCopiedToAGuestAndBack(t *testing.T) {
	h := shop(t, 1)
	out, errs, code := h.cli("acquire", "--cache", "ci", "-o", "json")
	var l client.Lease
	if err := json.Unmarshal([]byte(out), &l); err != nil || code != 0 {
		t.Fatalf("exit status %d: %v: %s%s", code, err, out, errs)
	}
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	noError(t, os.MkdirAll(h.path("tree/below"), 0o755))
	noError(t, os.WriteFile(h.path("tree/below/file"), content, 0o640))
	for _, args := range [][]string{
		{"cp", "--lease", l.ID, h.path("tree"), "guest:copied"},
		{"cp", "--lease", l.ID, "guest:copied", h.path("back")},
		{"release", l.ID},
	} {
		if _, errs, code := h.cli(args...); code != 0 {
			t.Fatalf("%v: exit status %d: %s", args, code, errs)
		}
	}
	if got := must(os.ReadFile(h.path("back/below/file")))(t); !bytes.Equal(got, content) {
		t.Errorf("%d bytes came back, not the %d that went", len(got), len(content))
	}
	if _, errs, code := h.cli("cp", "--lease", l.ID, "guest:copied", h.path("again")); code != 1 || !strings.Contains(errs, "over") {
		t.Errorf("exit status %d after the release, want 1: %s", code, errs)
	}
}

func TestSSHOpensAShellOnATerminal(t *testing.T) {
	h := shop(t, 1)
	cmd := h.command("ssh", "--cache", "ci")
	cmd.Env = append(cmd.Env, "TERM=dumb")
	terminal := must(pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 111}))(t)
	defer terminal.Close()
	late := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer late.Stop()
	must(io.WriteString(terminal, "echo sum=$((40+2)); stty size; tty; exit 5\n"))(t)
	text, _ := io.ReadAll(terminal) // a terminal ends with EIO
	if code := exitCode(t, cmd.Wait()); code != 5 {
		t.Errorf("exit status %d, want the shell's 5", code)
	}
	for _, want := range []string{"sum=42", "33 111", "/dev/pts/"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the terminal shows no %q:\n%s", want, text)
		}
	}
	h.gaveBack("fail")
}

func TestAnInterruptWhileQueuedCancelsTheRequest(t *testing.T) {
	h := shop(t, 1)
	held := h.acquire()
	for _, args := range [][]string{
		{"acquire", "--cache", "ci"},
		{"with", "--cache", "ci", "--", "true"},
		{"run", "--cache", "ci", "--", "true"},
	} {
		t.Run(args[0], func(t *testing.T) {
			var errs logbook
			cmd := h.command(args...)
			cmd.Stderr = &errs
			noError(t, cmd.Start())
			h.until("it is in line", func() error {
				if !strings.Contains(errs.String(), "1st in line for cache ci") {
					return fmt.Errorf("it says %q", &errs)
				}
				return nil
			})
			if queue := must(h.api.Queue(t.Context(), "ci"))(t); len(queue) != 1 {
				t.Errorf("the queue is %+v, want one request", queue)
			}
			noError(t, cmd.Process.Signal(syscall.SIGINT))
			if code := exitCode(t, cmd.Wait()); code != 130 {
				t.Errorf("exit status %d, want 130", code)
			}
			if queue := must(h.api.Queue(t.Context(), "ci"))(t); len(queue) != 0 {
				t.Errorf("the queue is %+v, want it empty", queue)
			}
			t.Logf("it says: %s", &errs)
		})
	}
	if now := must(h.api.Lease(t.Context(), held.ID))(t); now.Phase != lease.Active {
		t.Errorf("the other's lease is %s", now.Phase)
	}
}
