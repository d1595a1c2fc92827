package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"greenroom/internal/http1"
)

// drainTimeout is what calls under way are given when the server ends.
const drainTimeout = 10 * time.Second

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
)

// maxSocketPath is the longest path of a unix socket; see unix(7).
const maxSocketPath = 107

// listen opens the TCP address and the unix socket. Whoever holds the lock of the state directory may take a socket's place.
func listen(address, socket string) ([]net.Listener, error) {
	if len(socket) > maxSocketPath {
		return nil, fmt.Errorf("the path %s is longer than the %d characters of a unix socket; choose a shorter state directory", socket, maxSocketPath)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	tcp, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%w; choose another address with --listen", err)
	}
	local, err := net.Listen("unix", socket)
	if err == nil {
		err = os.Chmod(socket, 0o600)
	}
	if err != nil {
		return nil, errors.Join(err, tcp.Close())
	}
	return []net.Listener{tcp, local}, nil
}

// serve is the member that answers HTTP. Its timeouts stand above the longest long poll.
func (s *Server) serve(ctx context.Context) error {
	handler, faults := Handler(s.parts), slog.NewLogLogger(s.parts.Log.Handler(), slog.LevelDebug)
	server := &http.Server{
		Handler: handler, ConnContext: withPeer, ErrorLog: faults,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: 30 * time.Second, WriteTimeout: callTimeout + 15*time.Second,
		IdleTimeout: idleTimeout, MaxHeaderBytes: 64 << 10,
	}
	front := &http1.Front{
		Handler: handler, Takes: ofLeases, ConnContext: withPeer, ErrorLog: faults, ReadTimeout: headerTimeout, IdleTimeout: idleTimeout,
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range s.listeners {
		group.Go(func() error {
			if err := server.Serve(front.Listen(l)); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("listen on %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
	group.Go(func() error {
		<-ctx.Done()
		return s.drain(context.WithoutCancel(ctx), front, server)
	})
	return group.Wait()
}

// ofLeases picks the calls of which there are thousands a second. None of them waits for anything but the store.
func ofLeases(method, path string) bool {
	return (method == http.MethodPost || method == http.MethodDelete) && (path == leasesPath || strings.HasPrefix(path, leasesPath+"/"))
}

func (s *Server) drain(ctx context.Context, front *http1.Front, server *http.Server) error {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	close(s.closing)
	drained := make(chan error)
	go func() { drained <- front.Shutdown(ctx) }()
	if err := errors.Join(server.Shutdown(ctx), <-drained); err != nil {
		s.parts.Log.Warn("calls were cut off at the end", "err", err)
		return server.Close()
	}
	return nil
}
