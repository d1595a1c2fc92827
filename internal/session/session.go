// Package session is one holder's stay in a guest: a lease with a key of its own, kept alive until it is given back.
//
// It exists so that the commands which lend a guest to a program or a person (with, run, ssh, cp) share one way of acquiring,
// renewing, logging in and releasing, and none of them can forget a step.
package session

import (
	"context"
	"fmt"
	"sync"
	"time"

	"greenroom/internal/ssh"
	"greenroom/lease/client"
)

// releaseTime is what giving a lease back may take.
const releaseTime = 30 * time.Second

// Options of a session.
type Options struct {
	Request client.Request     // what guest; its PublicKey is filled in
	Key     ssh.Signer         // nil: one that is never written down
	Queued  func(client.Lease) // told of each new place in line; may be nil
	Loud    func(string)       // told what the holder must know at once: a heartbeat that fails, a guest that looks ill
	Renewed func(client.Lease) // told of each renewal with its fresh certificate; may be nil
}

// Session is an active lease. It is renewed in the background until Close.
type Session struct {
	client *client.Client
	key    ssh.Signer
	loud   func(string)
	stop   context.CancelFunc
	lost   chan struct{}
	beat   chan struct{} // closed when the heartbeat has ended
	keep   bool          // the lease was there before and outlives the session

	mu    sync.Mutex
	lease client.Lease
}

// Open acquires a lease, waiting in line until ctx ends.
func Open(ctx context.Context, c *client.Client, o Options) (*Session, error) {
	key, line, err := keyOf(o.Key)
	if err != nil {
		return nil, err
	}
	o.Request.PublicKey = line
	l, err := c.Acquire(ctx, o.Request, o.Queued)
	if err != nil {
		return nil, err
	}
	return start(ctx, c, key, l, o), nil
}

// Attach enters a lease that somebody else keeps: it is renewed once, for a certificate, and not released.
func Attach(ctx context.Context, c *client.Client, id string, o Options) (*Session, error) {
	key, line, err := keyOf(o.Key)
	if err != nil {
		return nil, err
	}
	l, err := c.Renew(ctx, id, client.Renewal{PublicKey: line})
	if err != nil {
		return nil, err
	}
	s := start(ctx, c, key, l, o)
	s.keep = true
	return s, nil
}

func keyOf(key ssh.Signer) (ssh.Signer, string, error) {
	if key == nil {
		return ssh.NewEphemeral()
	}
	return key, ssh.Line(key.PublicKey()), nil
}

// start begins the heartbeat, which does not end with ctx: what runs in the guest may need time to end after a signal.
func start(ctx context.Context, c *client.Client, key ssh.Signer, l client.Lease, o Options) *Session {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &Session{client: c, key: key, loud: o.Loud, stop: stop, lost: make(chan struct{}), beat: make(chan struct{}), lease: l}
	if s.loud == nil {
		s.loud = func(string) {}
	}
	failing := false // told already; the next may come every second
	failed := c.KeepAlive(ctx, l, client.Heartbeat{
		PublicKey: ssh.Line(key.PublicKey()),
		Renewed: func(l client.Lease) {
			if failing {
				s.loud(fmt.Sprintf("the heartbeat of lease %s is back", l.ID))
			}
			failing = false
			s.renewed(l)
			if o.Renewed != nil {
				o.Renewed(l)
			}
		},
		Failed: func(err error) {
			if !failing {
				s.loud(fmt.Sprintf("the heartbeat of lease %s failed: %v; it is tried again; while nobody answers, the lease ends at %s", l.ID, err, clock(s.Lease().Deadline)))
			}
			failing = true
		},
		Capped: func(l client.Lease) {
			s.loud(fmt.Sprintf("lease %s ends at %s and cannot be renewed any more: cache %s lends a guest for so long at most", l.ID, clock(time.Now().Add(time.Duration(l.Left))), l.Cache))
		},
	})
	go func() {
		defer close(s.beat)
		if err := <-failed; err != nil {
			s.loud(fmt.Sprintf("lease %s: %v; the guest may be somebody else's now", l.ID, err))
			close(s.lost)
		}
	}()
	return s
}

func (s *Session) renewed(l client.Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.Guest != nil && l.Guest.Health != "" && (s.lease.Guest == nil || s.lease.Guest.Health != l.Guest.Health) {
		s.loud(fmt.Sprintf("guest %s looks ill: %s", l.Guest.Name, l.Guest.Health))
	}
	s.lease = l
}

// Lease is the lease as it was last renewed.
func (s *Session) Lease() client.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lease
}

// Attached tells that the lease was there before the session, and goes on after it.
func (s *Session) Attached() bool { return s.keep }

// Lost is closed when the lease is over before Close.
func (s *Session) Lost() <-chan struct{} { return s.lost }

// Dial logs in to the guest, with its host key pinned. An end of the lease cuts nothing that is connected: see Lost.
func (s *Session) Dial(ctx context.Context) (*ssh.Client, error) {
	l := s.Lease()
	if l.Certificate == "" {
		return nil, fmt.Errorf("the server gave no certificate for lease %s, so there is no way into guest %s", l.ID, l.Guest.Name)
	}
	signer, err := ssh.CertSigner(l.Certificate, s.key)
	if err != nil {
		return nil, err
	}
	return ssh.Dial(ctx, ssh.Target{Host: l.Guest.Host, Port: l.Guest.Port, User: l.Guest.User, HostKey: l.Guest.HostKey}, signer)
}

// Close ends the heartbeat and gives the lease back, unless the session was attached to it or has lost it.
func (s *Session) Close(ctx context.Context, how client.Release) error {
	s.stop()
	<-s.beat
	select {
	case <-s.lost:
		return nil // said already
	default:
	}
	if s.keep {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	l := s.Lease()
	if _, err := s.client.GiveBack(ctx, l, how); err != nil {
		return fmt.Errorf("lease %s could not be released and ends by itself at %s: %w", l.ID, clock(l.Deadline), err)
	}
	return nil
}

func clock(t time.Time) string { return t.Local().Format(time.TimeOnly) }
