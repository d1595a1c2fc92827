package ssh

import (
	"context"
	"fmt"
	"io"

	cryptossh "golang.org/x/crypto/ssh"
)

// Size is a terminal's size in characters.
type Size struct{ Columns, Rows int }

// Shell opens a login shell on a terminal of its own and returns its exit code. The caller has
// put its own terminal in raw mode; term is its type ("xterm-256color"). Sizes sent to resize
// are passed on until the shell ends; the channel may be nil.
func (c *Client) Shell(ctx context.Context, in io.Reader, out, errw io.Writer, term string, size Size, resize <-chan Size) (int, error) {
	session, err := c.conn.NewSession()
	if err != nil {
		return -1, fmt.Errorf("open a session: %w", err)
	}
	defer session.Close()
	modes := cryptossh.TerminalModes{cryptossh.ECHO: 1, cryptossh.TTY_OP_ISPEED: 14400, cryptossh.TTY_OP_OSPEED: 14400}
	if err := session.RequestPty(term, size.Rows, size.Columns, modes); err != nil {
		return -1, fmt.Errorf("the guest gives no terminal: %w", err)
	}
	session.Stdin, session.Stdout, session.Stderr = in, out, errw
	stop := make(chan struct{})
	defer close(stop)
	go forwardSizes(session, resize, stop)
	return c.finish(ctx, session, session.Shell)
}

func forwardSizes(session *cryptossh.Session, resize <-chan Size, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case size, open := <-resize:
			if !open || session.WindowChange(size.Rows, size.Columns) != nil {
				return
			}
		}
	}
}
