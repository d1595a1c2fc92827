package guestd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	cryptossh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"greenroom/internal/ssh"
)

const (
	handshakeLimit = 10 * time.Second
	maxAuthTries   = 6
	maxConns       = 128
	maxSessions    = 64
)

// Serve is the guest itself: it runs in the process that Start made, until ctx ends, and then
// ends every process of the guest.
func Serve(ctx context.Context, dir string) error {
	if os.Getenv(dirVar) != dir || dir == "" {
		return fmt.Errorf("guestd serve is run by guestd start, which sets %s; run that instead", dirVar)
	}
	unix.CloseOnExec(readyFD)
	reports := os.NewFile(readyFD, "report")
	s, err := newServer(dir)
	if err != nil {
		return errors.Join(err, tell(reports, report{Error: err.Error()}))
	}
	return s.run(ctx, reports)
}

// tell sends the one report and closes the pipe.
func tell(w io.WriteCloser, r report) error {
	return errors.Join(json.NewEncoder(w).Encode(r), w.Close())
}

// server is a living guest.
type server struct {
	dir, home string
	birth     Birth
	user      string
	config    *cryptossh.ServerConfig
	door      *doorkeeper
	children  *children
	log       *slog.Logger
	lock      *os.File
	sessions  chan struct{}

	mu    sync.Mutex
	conns map[*cryptossh.ServerConn]struct{}
}

// newServer does all that can fail before the guest listens.
func newServer(dir string) (*server, error) {
	birth, err := readBirth(dir)
	if err != nil {
		return nil, err
	}
	lock, err := holdLock(dir)
	if err != nil {
		return nil, err
	}
	if err := isolate(birth); err != nil {
		return nil, err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become the subreaper of the guest's processes: %w", err)
	}
	s := &server{
		dir: dir, home: filepath.Join(dir, homeDir), birth: birth, user: os.Getenv("USER"), lock: lock,
		children: newChildren(),
		log:      slog.New(slog.NewJSONHandler(&boundedLog{file: os.Stderr}, nil)).With("guest", birth.Name),
		sessions: make(chan struct{}, maxSessions),
		conns:    map[*cryptossh.ServerConn]struct{}{},
	}
	return s, s.configure()
}

// holdLock takes the lock that shows that the guest lives. It ends with this process.
func holdLock(dir string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("another guestd lives in %s: %w", dir, err)
	}
	return lock, nil
}

func (s *server) configure() error {
	ring, err := parseKeys(s.birth.AuthorizedKeys)
	if err != nil {
		return err
	}
	hostKey, err := ssh.LoadOrCreateKey(filepath.Join(s.dir, hostKeyFile))
	if err != nil {
		return err
	}
	s.door = &doorkeeper{ring: ring, user: s.user, principal: s.birth.principal()}
	s.config = &cryptossh.ServerConfig{
		MaxAuthTries:      maxAuthTries,
		PublicKeyCallback: s.door.admit,
		AuthLogCallback:   s.logAuth,
		ServerVersion:     "SSH-2.0-greenroom-guestd",
	}
	s.config.AddHostKey(hostKey)
	return nil
}

func (s *server) logAuth(conn cryptossh.ConnMetadata, method string, err error) {
	if err != nil && !errors.Is(err, cryptossh.ErrNoAuth) {
		s.log.Warn("refused a login by "+method, "by", conn.User(), "err", err)
	}
}

// run listens, does the birth's user data, reports, and serves until ctx ends.
func (s *server) run(ctx context.Context, reports io.WriteCloser) error {
	stop := make(chan struct{})
	defer close(stop)
	go s.children.watch(stop)
	listener, err := net.Listen("tcp", loopback+":0")
	if err == nil {
		err = s.runUserData(ctx)
	}
	if err != nil {
		return errors.Join(err, tell(reports, report{Error: err.Error()}), s.endOthers())
	}
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	port := listener.Addr().(*net.TCPAddr).Port
	if err := tell(reports, report{Port: port}); err != nil {
		return fmt.Errorf("report to guestd start: %w", err)
	}
	s.log.Info("guest is ready", "incarnation", s.birth.Incarnation, "addr", listener.Addr().String())
	s.accept(ctx, listener)
	s.closeConns(func(*cryptossh.ServerConn) bool { return true })
	err = s.endOthers()
	s.log.Info("guest has ended", "err", err)
	return err
}

// accept serves connections until the listener is closed. Past maxConns new ones are dropped.
func (s *server) accept(ctx context.Context, listener net.Listener) {
	slots := make(chan struct{}, maxConns)
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.log.Error("accept", "err", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(pollEvery):
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		go func() {
			defer func() { <-slots }()
			s.serveConn(conn)
		}()
	}
}

func (s *server) serveConn(conn net.Conn) {
	defer conn.Close()
	begun := time.Now()
	conn.SetDeadline(begun.Add(handshakeLimit))
	sshConn, channels, requests, err := cryptossh.NewServerConn(conn, s.config)
	if err != nil {
		return
	}
	conn.SetDeadline(time.Time{})
	s.remember(sshConn)
	defer s.forget(sshConn)
	if !isPlain(sshConn) && s.door.resetSince(begun) {
		return // let in just before a reset that did not see this connection yet
	}
	go cryptossh.DiscardRequests(requests)
	for channel := range channels {
		if channel.ChannelType() != "session" {
			channel.Reject(cryptossh.UnknownChannelType, "only sessions are offered")
			continue
		}
		s.openSession(sshConn, channel)
	}
}

func (s *server) openSession(conn *cryptossh.ServerConn, channel cryptossh.NewChannel) {
	select {
	case s.sessions <- struct{}{}:
	default:
		channel.Reject(cryptossh.ResourceShortage, fmt.Sprintf("the guest has its %d sessions already", maxSessions))
		return
	}
	ch, requests, err := channel.Accept()
	if err != nil {
		<-s.sessions
		return
	}
	go func() {
		defer func() { <-s.sessions }()
		newSession(s, conn, ch).serve(requests)
	}()
}

func (s *server) remember(conn *cryptossh.ServerConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[conn] = struct{}{}
}

func (s *server) forget(conn *cryptossh.ServerConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
}

func (s *server) closeConns(which func(*cryptossh.ServerConn) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		if which(conn) {
			conn.Close()
		}
	}
}

// isPlain tells whether a plain authorized key logged in, rather than a lease's certificate.
func isPlain(conn *cryptossh.ServerConn) bool {
	_, plain := conn.Permissions.Extensions[plainExtension]
	return plain
}

// endOthers ends every process of the guest but guestd.
func (s *server) endOthers() error {
	ctx, cancel := context.WithTimeout(context.Background(), endLimit)
	defer cancel()
	return end(ctx, s.dir, endGrace)
}

// reset parts the guest from its last holder, between one lease and the next. Files are the cache's reset script's business:
// what its prepare script made must outlive it.
func (s *server) reset() error {
	s.door.barred.Store(uint64(time.Now().UnixNano()))
	s.closeConns(func(conn *cryptossh.ServerConn) bool { return !isPlain(conn) })
	return s.endOthers()
}
