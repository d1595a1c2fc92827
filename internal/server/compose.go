package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"greenroom/internal/ssh"
	"greenroom/lease"
	"greenroom/reconcile/gitops"
	"greenroom/reconcile/terraform"
)

// Options of a server. Only StateDir is needed.
type Options struct {
	StateDir string         // made with mode 0700 where it is missing
	Specs    string         // source of the specs: a directory, or a repository's URL
	Listen   string         // TCP address; default 127.0.0.1:7070, ":0" picks a port
	RedisURL string         // empty: the embedded store in StateDir
	Self     string         // the greenroom binary that runners are started from; empty: this one
	Log      *slog.Logger   // default: slog.Default()
	LogLevel *slog.LevelVar // of Log, to be changed at run time; nil: it is fixed
	// TakeStore names the server that the store is taken from, which is gone for good: see lease.Store.Belong.
	TakeStore string

	// Terraform is how Terraform is driven; its StateDir, Self, Log and OnStep are set from here.
	Terraform terraform.Options
	// Source is how a repository of specs is followed; its Source, StateDir, Self, InForce and Log are set from here.
	Source gitops.Options
	// HookSecret is what webhooks are signed with; empty: they are off.
	HookSecret []byte
}

// member is one thing that runs as long as the server does. It returns when ctx ends, or when it can't go on.
type member func(ctx context.Context) error

// Server is one running Greenroom.
type Server struct {
	id        string // survives restarts
	parts     Parts
	plans     *gitops.Plans // nil where no specs are followed
	pulse     *pulse
	members   []member
	listeners []net.Listener
	closing   chan struct{}
	closers   []io.Closer // in the order of opening
}

// New does everything that can fail before anything is served: it locks the state directory, opens the store and the
// keys, and listens. A Redis that is away is no failure: the API answers 503 until it is back.
func New(o Options) (*Server, error) {
	o.Listen = cmp.Or(o.Listen, "127.0.0.1:7070")
	if o.Log == nil {
		o.Log = slog.Default()
	}
	s := &Server{closing: make(chan struct{})}
	if err := s.open(o); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *Server) open(o Options) error {
	if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	lock, err := lockState(o.StateDir)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, lock)
	changes := &Changes{}
	rdb, closer, err := openRedis(o)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, closer)
	if o.StateDir, err = filepath.Abs(o.StateDir); err != nil {
		return err
	}
	if s.id, err = serverID(filepath.Join(o.StateDir, "server.id")); err != nil {
		return err
	}
	s.parts = Parts{Store: lease.New(rdb, lease.Options{Server: s.id, Place: place(o.StateDir), Notify: changes.tell}), Changes: changes, Log: o.Log, Level: o.LogLevel, Now: time.Now, Closing: s.closing}
	s.parts.Feed = newFeed(s.parts.Store, o.Log, time.Now, s.closing)
	changes.Subscribe(s.parts.Feed.Notify)
	if err := s.keys(o.StateDir); err != nil {
		return err
	}
	s.pulse = newPulse(s.parts.Store, o.TakeStore, o.Log)
	s.parts.Outage = s.pulse.outage
	s.members = []member{s.pulse.run, s.serve}
	if err := s.house(o); err != nil {
		return err
	}
	s.listeners, err = listen(o.Listen, filepath.Join(o.StateDir, "greenroom.sock"))
	return err
}

// keys makes on the first start what later starts find: tokens, the key of lease tokens, the certificate authority.
func (s *Server) keys(dir string) (err error) {
	if s.parts.Tokens, err = OpenTokens(dir, s.parts.Now); err != nil {
		return err
	}
	key, err := leaseKey(filepath.Join(dir, "lease.key"))
	if err != nil {
		return err
	}
	s.parts.Signer = lease.NewSigner(key)
	s.parts.Authority.Key, err = ssh.LoadOrCreateKey(filepath.Join(dir, "authority"))
	return err
}

// Addr is the TCP address that the server listens on.
func (s *Server) Addr() net.Addr { return s.listeners[0].Addr() }

// Run serves until ctx ends or a member fails.
//
// The end is bounded. All members see it at once: HTTP takes no new call, answers the long polls as they stand and gives the
// others ten seconds; the workers finish the step they are at. Only when all are back is the store closed, because each
// of them may still write, and last the state directory is given free.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, m := range s.members {
		group.Go(func() error { return m(ctx) })
	}
	err := group.Wait()
	return errors.Join(err, s.close())
}

func (s *Server) close() error {
	var errs []error
	for _, c := range slices.Backward(s.closers) {
		errs = append(errs, c.Close())
	}
	s.closers = nil
	return errors.Join(errs...)
}
