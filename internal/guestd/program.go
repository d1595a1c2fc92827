package guestd

import (
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/creack/pty"
	cryptossh "golang.org/x/crypto/ssh"
)

const (
	// drainGrace is how long output may stay silent after its program has ended, before what
	// still holds the other end is taken for a background process.
	drainGrace = 2 * time.Second
	// hangUpGrace is what a program gets between SIGTERM and SIGKILL when its channel closes.
	hangUpGrace = 2 * time.Second
	// leftoverGrace is what the rest of a process group gets after its program's session.
	leftoverGrace = time.Second
	// endOfTransmission is Ctrl-D, the end of file on a terminal.
	endOfTransmission = 4
)

// signals are the names of RFC 4254 section 6.10.
var signals = map[string]syscall.Signal{
	"ABRT": syscall.SIGABRT, "ALRM": syscall.SIGALRM, "FPE": syscall.SIGFPE, "HUP": syscall.SIGHUP,
	"ILL": syscall.SIGILL, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL, "PIPE": syscall.SIGPIPE,
	"QUIT": syscall.SIGQUIT, "SEGV": syscall.SIGSEGV, "TERM": syscall.SIGTERM,
	"USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
}

// program is the process of a session, in a process group of its own that ends with the session.
type program struct {
	cmd      *exec.Cmd
	children *children
	stdin    *os.File
	terminal *os.File // nil without one
	outputs  []output

	// exited is set once the process has ended; its output may still be on its way.
	exited atomic.Bool
	ended  chan struct{}
	mu     sync.Mutex
	reaped bool // guarded by mu; from then on the pid is not ours to signal
}

// output is one stream from the program to its client.
type output struct {
	from *os.File
	to   io.Writer
}

// startProgram starts cmd on a terminal or on three pipes.
func startProgram(children *children, cmd *exec.Cmd, channel cryptossh.Channel, terminal *ptyRequest) (*program, error) {
	p := &program{cmd: cmd, children: children, ended: make(chan struct{})}
	connect := p.onPipes
	if terminal != nil {
		connect = func(channel cryptossh.Channel) ([]*os.File, error) { return p.onTerminal(channel, terminal) }
	}
	theirs, err := connect(channel)
	defer closeAll(theirs)
	if err == nil {
		err = children.start(cmd)
	}
	if err != nil {
		p.closeFiles()
		return nil, err
	}
	return p, nil
}

// onPipes gives the program three pipes and returns its ends of them.
func (p *program) onPipes(channel cryptossh.Channel) (theirs []*os.File, err error) {
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var ours [3]*os.File
	for i := range ours {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(ours[:i])
			return theirs, err
		}
		if i == 0 {
			r, w = w, r
		}
		ours[i], theirs = r, append(theirs, w)
	}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = theirs[0], theirs[1], theirs[2]
	p.stdin = ours[0]
	p.outputs = []output{{ours[1], channel}, {ours[2], channel.Stderr()}}
	return theirs, nil
}

// onTerminal gives the program a terminal and returns its end of it.
func (p *program) onTerminal(channel cryptossh.Channel, request *ptyRequest) (theirs []*os.File, err error) {
	master, slave, err := pty.Open()
	if err != nil {
		return nil, err
	}
	p.terminal, p.stdin = master, master
	p.outputs = []output{{master, channel}}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = slave, slave, slave
	return []*os.File{slave}, pty.Setsize(master, winsize(request.Columns, request.Rows))
}

// serve copies in and out until the program has ended and its output is through, and sends the
// exit status. What is left of the process group ends a little later: a `setsid daemon &` of the
// program's last moment needs time to leave it.
func (p *program) serve(channel cryptossh.Channel) {
	go p.copyIn(channel)
	var copying sync.WaitGroup
	for _, out := range p.outputs {
		copying.Go(func() { p.copyOut(out) })
	}
	end := awaitEnd(p.cmd.Process.Pid)
	p.exited.Store(true)
	close(p.ended)
	for _, out := range p.outputs {
		out.from.SetReadDeadline(time.Now().Add(drainGrace))
	}
	copying.Wait()
	p.closeFiles()
	end.send(channel)
	time.AfterFunc(leftoverGrace, p.reap)
}

// copyIn ends when the client sends its end of file or the channel closes. A terminal stays open
// and is told by its end-of-file character.
func (p *program) copyIn(channel io.Reader) {
	_, _ = io.Copy(p.stdin, channel) // a program may close its input before all has come
	if p.terminal != nil {
		_, _ = p.terminal.Write([]byte{endOfTransmission})
		return
	}
	p.stdin.Close()
}

// copyOut copies to the end of the stream. Once the program has ended, only silence counts
// against drainGrace, never a client that reads slowly.
func (p *program) copyOut(out output) {
	buf := make([]byte, 32<<10)
	for {
		if p.exited.Load() {
			out.from.SetReadDeadline(time.Now().Add(drainGrace))
		}
		n, err := out.from.Read(buf)
		if n > 0 {
			if _, gone := out.to.Write(buf[:n]); gone != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// hangUp ends a program whose channel has closed under it.
func (p *program) hangUp() {
	if p.exited.Load() {
		return
	}
	_ = p.kill(syscall.SIGTERM) // it may have ended by itself meanwhile; so also below
	_ = p.kill(syscall.SIGHUP)
	late := time.NewTimer(hangUpGrace)
	defer late.Stop()
	select {
	case <-p.ended:
	case <-late.C:
	}
	_ = p.kill(syscall.SIGKILL)
}

// kill signals the program's process group.
func (p *program) kill(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return os.ErrProcessDone
	}
	return syscall.Kill(-p.cmd.Process.Pid, sig)
}

// reap kills the leftovers of the process group while its leader's pid is still taken, and then
// gives up the pid.
func (p *program) reap() {
	_ = p.kill(syscall.SIGKILL)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reaped = true
	_ = p.children.wait(p.cmd) // how it ended was told when it did
}

func (p *program) closeFiles() {
	if p.stdin != nil {
		p.stdin.Close()
	}
	for _, out := range p.outputs {
		out.from.Close()
	}
}

func closeAll(files []*os.File) {
	for _, file := range files {
		file.Close()
	}
}

// send tells how the program ended, RFC 4254 section 6.10.
func (e ending) send(channel cryptossh.Channel) {
	if e.signal == 0 {
		channel.SendRequest("exit-status", false, cryptossh.Marshal(exitStatus{uint32(e.code)}))
		return
	}
	name := "KILL"
	for n, sig := range signals {
		if sig == e.signal {
			name = n
		}
	}
	channel.SendRequest("exit-signal", false, cryptossh.Marshal(exitSignal{Name: name, CoreDumped: e.core}))
}
