package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"greenroom/reconcile/plan"
)

// progress is a line on stderr that says what is waited for, and for how long by now. It is rewritten in place on a terminal;
// elsewhere there is none, so that the log of a job holds nothing that has no meaning a moment later.
type progress struct {
	cmd      *cobra.Command
	out      io.Writer
	terminal bool
	began    time.Time

	mu    sync.Mutex // of what follows
	text  string     // empty: the line is away
	ended chan struct{}
}

// newProgress shows nothing yet. Until end is called, it stands between the command and its stderr.
func newProgress(cmd *cobra.Command) *progress {
	_, terminal := screen(cmd.ErrOrStderr())
	p := &progress{cmd: cmd, out: cmd.ErrOrStderr(), terminal: terminal, began: time.Now(), ended: make(chan struct{})}
	cmd.SetErr(p)
	if terminal {
		go p.tick()
	}
	return p
}

// tick keeps the time on the line true.
func (p *progress) tick() {
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		select {
		case <-p.ended:
			return
		case <-every.C:
			p.mu.Lock()
			p.draw()
			p.mu.Unlock()
		}
	}
}

// say puts text on the line, instead of what stood there.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = fmt.Sprintf(format, args...)
	p.draw()
}

// aside takes the line away while f prints something that stays.
func (p *progress) aside(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wipe()
	f()
	p.draw()
}

// Write takes lines that the command writes to its stderr meanwhile.
func (p *progress) Write(b []byte) (n int, err error) {
	p.aside(func() { n, err = p.out.Write(b) })
	return n, err
}

// end takes the line away for good.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wipe()
	p.text = ""
	p.cmd.SetErr(p.out)
	close(p.ended)
}

// draw and wipe need p.mu.
func (p *progress) draw() {
	if !p.terminal || p.text == "" {
		return
	}
	line := plan.Clean(p.text)
	if waited := time.Since(p.began); waited >= time.Second {
		line += " " + waited.Truncate(time.Second).String()
	}
	if width, _ := screen(p.out); width > 1 {
		line = clipped(line, width-1) // a line that breaks could not be wiped
	}
	fmt.Fprintf(p.out, "\r\x1b[K%s", line)
}

func (p *progress) wipe() {
	if p.terminal && p.text != "" {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

// clipped cuts text to a width, in characters.
func clipped(text string, width int) string {
	runes := []rune(text)
	if len(runes) <= width {
		return text
	}
	return string(runes[:max(0, width-1)]) + "…"
}
