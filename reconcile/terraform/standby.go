package terraform

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// approvedFile is what a plan is called that the guard has passed. Nothing else is ever applied.
const approvedFile = "approved.bin"

// standby is an apply that starts while its plan is made: to come up takes Terraform longer than to plan or apply a small
// change. It is held where it reads its CLI configuration, a pipe in which there is nothing yet. It could do nothing if it went on by itself:
// what it is to apply gets its name from approve.
type standby struct {
	cmd       *exec.Cmd
	stream    *stream
	complaint strings.Builder
	pipe      *os.File
	path      string // of the pipe
	began     time.Time
	ended     chan struct{}
	err       error // after ended
}

// standBy starts an apply, or returns nil where it can't.
func (c *session) standBy(s *stream) *standby {
	b := &standby{stream: s, path: filepath.Join(c.work, "cli.pipe"), began: time.Now(), ended: make(chan struct{})}
	if err := removeIfThere(b.path); err != nil || syscall.Mkfifo(b.path, 0o600) != nil {
		return nil
	}
	var err error
	if b.pipe, err = os.OpenFile(b.path, os.O_RDWR, 0); err != nil { // for reading too: so nobody waits to open it
		return nil
	}
	b.cmd = c.command(context.Background(), applyCommand(s, approvedFile), &b.complaint)
	b.cmd.Env = append(b.cmd.Env, "TF_CLI_CONFIG_FILE="+b.path)
	if b.cmd.Start() != nil {
		b.pipe.Close()
		return nil
	}
	go func() {
		b.err = b.cmd.Wait()
		close(b.ended)
	}()
	return b
}

// goOn lets the apply go on with a CLI configuration and waits for its end. Whether it has opened the pipe or not: it finds the
// configuration there, or else the file that takes the pipe's place.
func (b *standby) goOn(ctx context.Context, config string) error {
	defer context.AfterFunc(ctx, func() { _ = b.cmd.Process.Signal(os.Interrupt) })()
	err := os.WriteFile(b.path+".rc", []byte(config), 0o600)
	if err == nil {
		_, err = b.pipe.WriteString(config)
	}
	if err == nil {
		err = os.Rename(b.path+".rc", b.path)
	}
	if err != nil {
		b.end()
		return err
	}
	b.pipe.Close()
	<-b.ended
	return commandError(b.err, &b.complaint)
}

// up tells that it waits still. A Terraform that takes no pipe for a configuration would have ended.
func (b *standby) up() bool {
	select {
	case <-b.ended:
		return false
	default:
		return true
	}
}

// end ends an apply that has not gone on.
func (b *standby) end() {
	if b.up() {
		_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL)
		<-b.ended
	}
	b.pipe.Close()
	_ = os.Remove(b.path) // who reads it would wait
}
