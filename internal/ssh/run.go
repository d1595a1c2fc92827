package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	cryptossh "golang.org/x/crypto/ssh"
)

// maxScriptOutput is how much of a script's output is kept: its end, where the errors are.
const maxScriptOutput = 64 << 10

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Run runs one command line by the guest's shell and returns its exit code, which is 128 plus the
// signal's number when a signal ended it. err is nil whenever the command ran to an end, and then
// alone the code means something. When ctx ends, the command is sent SIGTERM, its session is
// closed, and the context's cause is returned.
func (c *Client) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer, env map[string]string) (int, error) {
	session, err := c.conn.NewSession()
	if err != nil {
		return -1, fmt.Errorf("open a session: %w", err)
	}
	defer session.Close()
	exports, err := setEnv(session, env)
	if err != nil {
		return -1, err
	}
	session.Stdin, session.Stdout, session.Stderr = stdin, stdout, stderr
	return c.finish(ctx, session, func() error { return session.Start(exports + cmd) })
}

// Script runs body by the guest's POSIX shell, which reads it from standard input, and returns
// the last 64 KiB of its output and errors, in the order in which they came, with its exit code.
func (c *Client) Script(ctx context.Context, body []byte, env map[string]string) (output string, exit int, err error) {
	exports, err := exportLines(env)
	if err != nil {
		return "", -1, err
	}
	tail := &tail{limit: maxScriptOutput}
	stdin := io.MultiReader(strings.NewReader(exports), bytes.NewReader(body))
	// One stream for both: two of them arrive in any order.
	exit, err = c.Run(ctx, "exec sh -s 2>&1", stdin, tail, tail, nil)
	return tail.String(), exit, err
}

// finish starts what the session is to do and waits for its end or for the context's.
func (c *Client) finish(ctx context.Context, session *cryptossh.Session, start func() error) (int, error) {
	done := make(chan struct{})
	defer close(done)
	defer context.AfterFunc(ctx, func() { c.abandon(session, done) })()
	err := start()
	if err == nil {
		err = session.Wait()
	}
	if ctx.Err() != nil {
		return -1, context.Cause(ctx)
	}
	var exit *cryptossh.ExitError
	switch {
	case err == nil, errors.Is(err, io.EOF): // the command has ended well, and did not read all of its input
		return 0, nil
	case errors.As(err, &exit):
		return exit.ExitStatus(), nil
	}
	return -1, fmt.Errorf("the session broke off: %w", err)
}

// abandon ends a session, and the whole connection with it when the guest does not go along: a
// session whose writers are still in use must never be returned from.
func (c *Client) abandon(session *cryptossh.Session, done <-chan struct{}) {
	cut := time.AfterFunc(cancelGrace, func() { c.conn.Close() })
	defer cut.Stop()
	session.Signal(cryptossh.SIGTERM)
	session.Close()
	<-done
}

// setEnv sets env by the protocol. Servers may refuse names (OpenSSH's AcceptEnv), and then the
// returned exports do it in front of the command.
func setEnv(session *cryptossh.Session, env map[string]string) (exports string, err error) {
	if exports, err = exportLines(env); err != nil {
		return "", err
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if session.Setenv(name, env[name]) != nil {
			return exports, nil //nolint:nilerr // a refused name is what exports are for
		}
	}
	return "", nil
}

func exportLines(env map[string]string) (string, error) {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if !envName.MatchString(name) {
			return "", fmt.Errorf("environment variable name %q: only letters, digits and _ are allowed", name)
		}
		if strings.ContainsRune(env[name], 0) {
			return "", fmt.Errorf("environment variable %s holds a NUL byte", name)
		}
		fmt.Fprintf(&b, "export %s=%s\n", name, quote(env[name]))
	}
	return b.String(), nil
}

// quote makes one word of s for a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
