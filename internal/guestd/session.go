package guestd

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/creack/pty"
	"github.com/pkg/sftp"
	cryptossh "golang.org/x/crypto/ssh"
)

const (
	searchPath  = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	maxEnvVars  = 256
	maxEnvBytes = 64 << 10
)

// ResetCommand is a command that, run by a plain key, parts the guest from its last holder; see the package's comment.
const ResetCommand = "greenroom-guest-reset"

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// The payloads of session requests, RFC 4254 section 6.
type (
	ptyRequest struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}
	windowRequest struct{ Columns, Rows, Width, Height uint32 }
	envRequest    struct{ Name, Value string }
	textRequest   struct{ Text string } // exec, subsystem and signal
	exitStatus    struct{ Status uint32 }
	exitSignal    struct {
		Name       string
		CoreDumped bool
		Message    string
		Language   string
	}
)

// session is one channel: settings first, then exactly one program, shell or subsystem.
type session struct {
	server  *server
	conn    *cryptossh.ServerConn
	channel cryptossh.Channel
	env     map[string]string
	envSize int
	pty     *ptyRequest
	program *program
	started bool
	// work is what begins once the request for it has been answered: its end closes the channel,
	// and no answer must come after that.
	work    func()
	running sync.WaitGroup
}

func newSession(s *server, conn *cryptossh.ServerConn, channel cryptossh.Channel) *session {
	return &session{server: s, conn: conn, channel: channel, env: map[string]string{}}
}

// serve answers requests until the channel closes, and then ends the session's processes.
func (s *session) serve(requests <-chan *cryptossh.Request) {
	for request := range requests {
		err := s.handle(request)
		if err != nil {
			s.server.log.Warn("refused the request "+request.Type, "err", err)
		}
		request.Reply(err == nil, nil)
		if s.work != nil {
			s.running.Go(s.work)
			s.work = nil
		}
	}
	if s.program != nil {
		s.program.hangUp()
	}
	s.channel.Close()
	s.running.Wait()
}

func (s *session) handle(request *cryptossh.Request) error {
	switch request.Type {
	case "env":
		return s.setEnv(request.Payload)
	case "pty-req":
		return s.setPty(request.Payload)
	case "window-change":
		return s.resize(request.Payload)
	case "signal":
		return s.signal(request.Payload)
	case "shell":
		return s.begin(func() error { return s.run(s.loginShell()) })
	case "exec":
		return s.begin(func() error { return s.exec(request.Payload) })
	case "subsystem":
		return s.begin(func() error { return s.subsystem(request.Payload) })
	}
	return errors.New("not offered")
}

// begin holds a session to one program.
func (s *session) begin(start func() error) error {
	if s.started {
		return errors.New("the session has begun already")
	}
	s.started = true
	return start()
}

func (s *session) setEnv(payload []byte) error {
	var request envRequest
	if err := cryptossh.Unmarshal(payload, &request); err != nil {
		return err
	}
	s.envSize += len(request.Name) + len(request.Value)
	switch {
	case !envName.MatchString(request.Name) || strings.ContainsRune(request.Value, 0):
		return fmt.Errorf("environment variable %q is malformed", request.Name)
	case request.Name == dirVar || request.Name == "GREENROOM_GUEST":
		return fmt.Errorf("environment variable %s is the guest's own", request.Name)
	case len(s.env) >= maxEnvVars || s.envSize > maxEnvBytes:
		return fmt.Errorf("more than %d environment variables or %d bytes", maxEnvVars, maxEnvBytes)
	}
	s.env[request.Name] = request.Value
	return nil
}

func (s *session) setPty(payload []byte) error {
	if _, may := s.conn.Permissions.Extensions[ptyExtension]; !may {
		return errors.New("the certificate permits no terminal")
	}
	var request ptyRequest
	if err := cryptossh.Unmarshal(payload, &request); err != nil {
		return err
	}
	s.pty = &request
	return nil
}

func (s *session) resize(payload []byte) error {
	var request windowRequest
	if err := cryptossh.Unmarshal(payload, &request); err != nil {
		return err
	}
	if s.program == nil || s.program.terminal == nil {
		return errors.New("the session has no terminal")
	}
	return pty.Setsize(s.program.terminal, winsize(request.Columns, request.Rows))
}

func winsize(columns, rows uint32) *pty.Winsize {
	return &pty.Winsize{Cols: uint16(min(columns, 0xffff)), Rows: uint16(min(rows, 0xffff))}
}

func (s *session) signal(payload []byte) error {
	var request textRequest
	if err := cryptossh.Unmarshal(payload, &request); err != nil {
		return err
	}
	sig, known := signals[request.Text]
	if !known || s.program == nil {
		return fmt.Errorf("signal %q cannot be sent", request.Text)
	}
	return s.program.kill(sig)
}

func (s *session) exec(payload []byte) error {
	var request textRequest
	if err := cryptossh.Unmarshal(payload, &request); err != nil {
		return err
	}
	if request.Text == ResetCommand && isPlain(s.conn) {
		s.work = s.reset
		return nil
	}
	return s.run(s.command(shellPath(), "-c", request.Text))
}

func (s *session) subsystem(payload []byte) error {
	var request textRequest
	if err := cryptossh.Unmarshal(payload, &request); err != nil {
		return err
	}
	if request.Text != "sftp" {
		return fmt.Errorf("subsystem %q is not offered; sftp is", request.Text)
	}
	// Relative paths start where guestd itself stands: at home. sftp's own option for that would
	// make the targets of symbolic links absolute.
	files, err := sftp.NewServer(s.channel)
	if err != nil {
		return err
	}
	s.work = func() {
		err := files.Serve()
		if errors.Is(err, io.EOF) {
			err = nil
		}
		s.finish(err)
		files.Close()
	}
	return nil
}

func (s *session) reset() {
	err := s.server.reset()
	s.server.log.Info("guest was reset", "err", err)
	s.finish(err)
}

// finish ends a session that had no process of its own.
func (s *session) finish(err error) {
	status := exitStatus{}
	if err != nil {
		status.Status = 1
		fmt.Fprintln(s.channel.Stderr(), "guestd:", err)
	}
	s.channel.SendRequest("exit-status", false, cryptossh.Marshal(status))
	s.channel.Close()
}

// loginShell is run under the name "-sh", by which a shell knows that it is one.
func (s *session) loginShell() *exec.Cmd {
	shell := shellPath()
	cmd := s.command(shell)
	cmd.Args[0] = "-" + shell[strings.LastIndexByte(shell, '/')+1:]
	return cmd
}

func shellPath() string {
	if _, err := os.Stat("/bin/bash"); err == nil {
		return "/bin/bash"
	}
	return "/bin/sh"
}

func (s *session) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = s.server.home
	env := s.server.environment()
	maps.Copy(env, s.env)
	if s.pty != nil {
		env["TERM"] = s.pty.Term
	}
	for _, key := range slices.Sorted(maps.Keys(env)) {
		cmd.Env = append(cmd.Env, key+"="+env[key])
	}
	return cmd
}

// environment is what every process of the guest begins with.
func (s *server) environment() map[string]string {
	return map[string]string{
		"HOME": s.home, "USER": s.user, "LOGNAME": s.user,
		"SHELL": shellPath(), "PATH": searchPath, "LANG": "C.UTF-8",
		"GREENROOM_GUEST": s.birth.Name, dirVar: s.dir,
	}
}

func (s *session) run(cmd *exec.Cmd) error {
	program, err := startProgram(s.server.children, cmd, s.channel, s.pty)
	if err != nil {
		return err
	}
	s.program = program
	s.work = func() {
		program.serve(s.channel)
		s.channel.Close()
	}
	return nil
}
