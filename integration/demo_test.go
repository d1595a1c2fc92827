package integration

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"greenroom/internal/demo"
)

// demoHouse is a house without a server of its own: the demo brings one, in a directory that the house looks after.
func demoHouse(t *testing.T) *house {
	t.Helper()
	h := newHouse(t, options{})
	noError(t, os.Mkdir(h.path("tmp"), 0o700))
	h.write(fleet{max: 1})
	return h
}

// demo runs greenroom demo to its end, calling seen after each line of its output.
func (h *house) demo(seen func(line string, p *os.Process), args ...string) (out, notes string, code int) {
	h.Helper()
	var errs logbook
	var text bytes.Buffer
	cmd := h.command(append([]string{"demo"}, args...)...)
	cmd.Env = append(cmd.Env, "TMPDIR="+h.path("tmp"))
	cmd.Stderr = &errs
	pipe := must(cmd.StdoutPipe())(h)
	noError(h, cmd.Start())
	late := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer late.Stop()
	buf := make([]byte, 4096)
	for {
		n, err := pipe.Read(buf)
		text.Write(buf[:n])
		if n > 0 && seen != nil {
			seen(string(buf[:n]), cmd.Process)
		}
		if err != nil {
			break
		}
	}
	code = exitCode(h, cmd.Wait())
	left := must(os.ReadDir(h.path("tmp")))(h)
	if len(left) > 0 {
		h.Errorf("the demo has left %v", left)
	}
	if living := h.strays(); len(living) > 0 {
		h.Errorf("the demo has left these processes: %v", living)
	}
	return text.String(), errs.String(), code
}

var demoSteps = []string{
	"guests ready", "acquire", "command inside the guest", "release", "acquire again", "guest killed and replaced", "warm raised", "guests retired",
}

func TestTheDemoWalksThroughAndEnds(t *testing.T) {
	h := demoHouse(t)
	out, notes, code := h.demo(nil, "--exit")
	if code != 0 {
		t.Fatalf("exit status %d\n%s%s", code, out, notes)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != len(demoSteps) {
		t.Fatalf("the demo has %d lines, want %d:\n%s", len(lines), len(demoSteps), out)
	}
	for i, step := range demoSteps {
		if !strings.Contains(lines[i], step) {
			t.Errorf("line %d is %q, want the step %q", i+1, lines[i], step)
		}
	}
}

func TestTheDemoTellsMachinesOneObjectAStep(t *testing.T) {
	h := demoHouse(t)
	out, notes, code := h.demo(nil, "--exit", "-o", "json")
	if code != 0 {
		t.Fatalf("exit status %d\n%s%s", code, out, notes)
	}
	var names []string
	for line := range strings.Lines(out) {
		var s demo.Step
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&s); err != nil || s.Seconds <= 0 {
			t.Errorf("line %q: %v, %v seconds, want a step with more than none", line, err, s.Seconds)
		}
		names = append(names, s.Step)
		switch s.Step {
		case "acquire", "acquire again":
			if s.Hit == nil || !*s.Hit {
				t.Errorf("the lease was no hit: %s", line)
			}
		case "command inside the guest":
			if !strings.Contains(s.Detail, s.Guest+" says hello") {
				t.Errorf("the command's output is missing: %s", line)
			}
		}
	}
	if diff := cmp.Diff(demoSteps, names); diff != "" {
		t.Error(diff)
	}
}

func TestTheDemoCleansUpWhenItIsInterrupted(t *testing.T) {
	for _, step := range []string{"guests ready", "release", "killed and replaced", "warm raised"} {
		t.Run("after "+step, func(t *testing.T) {
			h := demoHouse(t)
			sent := false
			out, notes, code := h.demo(func(text string, p *os.Process) {
				if !sent && strings.Contains(text, step) {
					sent = true
					noError(t, p.Signal(syscall.SIGINT))
				}
			})
			if code != 0 || !sent {
				t.Errorf("exit status %d, interrupted %t\n%s%s", code, sent, out, notes)
			}
			if !strings.Contains(out, "guests retired") {
				t.Errorf("it does not say that the guests are retired:\n%s%s", out, notes)
			}
		})
	}
}
