package embedded

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// notJournalled starts the error reply of a write that was not executed; Redis answers the same
// code when it can't write its append-only file.
const notJournalled = "MISCONF "

var errClosed = errors.New("the embedded store is closed")

// newClient returns a client whose connections are pipes in memory: nothing listens, so nobody
// else on the host can connect. It never retries: a command may have been executed.
func (s *Store) newClient() *redis.Client {
	c := redis.NewClient(&redis.Options{
		Addr:                     "embedded",
		Dialer:                   s.dial,
		MaxRetries:               -1,
		ReadTimeout:              30 * time.Second, // a compaction holds up every command
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	c.AddHook(errorHook{})
	return c
}

func (s *Store) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	s.conns[far] = struct{}{}
	s.wg.Go(func() { s.serve(far) })
	return near, nil
}

// serve answers one connection until it ends.
func (s *Store) serve(c net.Conn) {
	out := newReplies(c)
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		_ = c.Close()
		out.close()
	}()
	r := bufio.NewReader(c)
	ses := &session{store: s, peer: server.NewPeer(bufio.NewWriter(out))}
	for !ses.peer.Closed() {
		args, err := readCommand(r)
		if err != nil {
			return
		}
		ses.handle(args)
		ses.peer.Flush()
	}
	out.close() // the reply to QUIT
}

// readCommand reads an array of bulk strings (https://redis.io/docs/latest/develop/reference/protocol-spec/).
func readCommand(r *bufio.Reader) ([]string, error) {
	v, err := server.ParseReply(r)
	if err != nil {
		return nil, err
	}
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		return nil, server.ErrProtocol
	}
	args := make([]string, len(list))
	for i, arg := range list {
		if args[i], ok = arg.(string); !ok {
			return nil, server.ErrProtocol
		}
	}
	return args, nil
}

// replies is what a connection has still to send. It has no bound, as in Redis: a client that
// writes a long pipeline reads no reply before it is done.
type replies struct {
	mu     sync.Mutex
	change *sync.Cond
	buf    []byte
	closed bool
	done   chan struct{}
}

func newReplies(w io.Writer) *replies {
	r := &replies{done: make(chan struct{})}
	r.change = sync.NewCond(&r.mu)
	go r.pump(w)
	return r
}

func (r *replies) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.buf = append(r.buf, p...)
	r.change.Signal()
	return len(p), nil
}

func (r *replies) pump(w io.Writer) {
	defer close(r.done)
	for {
		r.mu.Lock()
		for len(r.buf) == 0 && !r.closed {
			r.change.Wait()
		}
		b := r.buf
		r.buf = nil
		r.mu.Unlock()
		if len(b) == 0 {
			return
		}
		if _, err := w.Write(b); err != nil {
			return
		}
	}
}

// close waits until what was written is sent or the connection is gone.
func (r *replies) close() {
	r.mu.Lock()
	r.closed = true
	r.change.Signal()
	r.mu.Unlock()
	<-r.done
}

// session is one connection's state: the transaction that it is putting together.
type session struct {
	store *Store
	peer  *server.Peer
	multi bool
	dirty bool // a command was refused, so EXEC must be too
	queue [][]string
}

func (c *session) handle(args []string) {
	name := strings.ToUpper(args[0])
	switch {
	case name == "MULTI" && !c.multi:
		c.multi = true
		c.peer.WriteOK()
	case name == "DISCARD" && c.multi:
		c.end()
		c.peer.WriteOK()
	case name == "EXEC" && c.multi && c.dirty:
		c.end()
		c.peer.WriteError("EXECABORT Transaction discarded because of previous errors.")
	case name == "EXEC" && c.multi:
		c.store.execute(c.peer, c.queue, true)
		c.end()
	case refuse(name, args[1:]) != "":
		c.dirty = c.multi
		c.peer.WriteError(refuse(name, args[1:]))
	case c.multi:
		c.queue = append(c.queue, args)
		c.peer.WriteInline("QUEUED")
	default:
		c.store.execute(c.peer, [][]string{args}, false)
	}
}

func (c *session) end() { c.multi, c.dirty, c.queue = false, false, nil }

// execute journals the commands as one record where one of them writes, and then runs them.
func (s *Store) execute(p *server.Peer, commands [][]string, multi bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		p.WriteError("ERR " + errClosed.Error())
		return
	}
	s.mem.advance(s.opts.Now())
	commands, err := s.knownScripts(commands)
	if err == nil {
		err = s.write(commands)
	}
	if err != nil {
		p.WriteError(notJournalled + err.Error())
		return
	}
	if multi {
		p.WriteLen(len(commands))
	}
	for _, args := range commands {
		s.mem.dispatch(p, args)
	}
	s.compactIfLarge()
}

// knownScripts turns EVAL into EVALSHA, so that each script's body is journalled once.
func (s *Store) knownScripts(commands [][]string) ([][]string, error) {
	commands = append([][]string(nil), commands...)
	for i, args := range commands {
		name := strings.ToUpper(args[0])
		if name != "EVAL" && name != "EVAL_RO" || len(args) < 2 {
			continue
		}
		load := []string{"SCRIPT", "LOAD", args[1]}
		if err := s.write([][]string{load}); err != nil {
			return nil, err
		}
		s.mem.dispatch(server.NewPeer(bufio.NewWriter(io.Discard)), load)
		if sha := scriptSHA(args[1]); s.mem.scripts[sha] != "" { // else EVAL says what is wrong with it
			commands[i] = append([]string{strings.Replace(name, "EVAL", "EVALSHA", 1), sha}, args[2:]...)
		}
	}
	return commands, nil
}

// write journals the commands where one of them may change something.
func (s *Store) write(commands [][]string) error {
	changes := false
	for _, args := range commands {
		changes = changes || s.mem.changes(args)
	}
	if !changes {
		return nil
	}
	err := s.unsafe
	if err != nil {
		err = s.compact()
	}
	if err == nil {
		err = s.journal.append(record{Millis: s.mem.millis, Swept: s.mem.swept, Commands: commands})
	}
	if err == nil || errors.Is(err, errTooLarge) {
		return err
	}
	return fmt.Errorf("%w; the command was not executed: see to the disk of %s and try again", err, s.opts.Dir)
}

// errorHook turns the server's replies into this package's errors.
type errorHook struct{}

func (errorHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (errorHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if typed := typedError(err); typed != nil {
			cmd.SetErr(typed)
			return typed
		}
		return err
	}
}

func (errorHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		for _, cmd := range cmds {
			if typed := typedError(cmd.Err()); typed != nil {
				cmd.SetErr(typed)
			}
		}
		if typed := typedError(err); typed != nil {
			return typed
		}
		return err
	}
}

func typedError(err error) error {
	if err == nil {
		return nil
	}
	if why, ok := strings.CutPrefix(err.Error(), notJournalled); ok {
		return fmt.Errorf("%w: %s", ErrJournal, why)
	}
	return nil
}
