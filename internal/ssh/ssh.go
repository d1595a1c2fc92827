// Package ssh is the client side of SSH as Greenroom needs it: the server prepares and resets
// guests with it, the watchdog probes them, and the CLI gives their holders a shell. It exists so
// that three rules are kept in one place: a guest's host key is always pinned, every call ends
// (by its context, by a handshake limit or by keepalives), and what a guest sends is bounded.
//
// It also holds the authority whose short-lived user certificates are a lease's way into a guest.
package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	cryptossh "golang.org/x/crypto/ssh"
)

var (
	// ErrRefused says that nothing listens on the guest's port.
	ErrRefused = errors.New("connection refused")
	// ErrTimeout says that the guest did not answer in time.
	ErrTimeout = errors.New("no answer in time")
	// ErrHostKey says that whoever answered does not hold the pinned host key.
	ErrHostKey = errors.New("host key differs from the pinned one")
	// ErrAuth says that the guest is the right one but accepted none of the keys offered.
	ErrAuth = errors.New("none of the offered keys was accepted")
)

const (
	// handshakeLimit ends a dial whose context has no earlier deadline.
	handshakeLimit = 30 * time.Second
	keepaliveEvery = 15 * time.Second
	keepaliveLimit = 30 * time.Second
	// cancelGrace is how long a cancelled session may take to end before its connection is cut.
	cancelGrace = 5 * time.Second
)

// Signer proves possession of a private key; see NewEphemeral, CertSigner and LoadOrCreateKey.
type Signer = cryptossh.Signer

// PublicKey is the public half of a key.
type PublicKey = cryptossh.PublicKey

// Target is where a guest answers and who it must prove to be.
type Target struct {
	Host string
	Port int
	User string
	// HostKey is one line as in authorized_keys: type, base64, and perhaps a comment.
	HostKey string
}

// String names the target in errors.
func (t Target) String() string { return net.JoinHostPort(t.Host, strconv.Itoa(t.Port)) }

// Client is one connection to a guest. It may be used by many goroutines.
type Client struct {
	conn *cryptossh.Client
	done chan struct{}
	once sync.Once
}

// Dial connects to a guest, checks its host key against the pinned one and logs in with one of
// signers. The context bounds the dial alone, not the life of the connection. Errors wrap
// ErrRefused, ErrTimeout, ErrHostKey or ErrAuth where they apply.
func Dial(ctx context.Context, target Target, signers ...Signer) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeLimit)
	defer cancel()
	pin, err := parsePin(target.HostKey)
	if err != nil {
		return nil, err
	}
	config := pin.config(target.User)
	config.Auth = []cryptossh.AuthMethod{cryptossh.PublicKeys(signers...)}
	conn, err := handshake(ctx, target, config)
	if err != nil {
		return nil, pin.explain(ctx, target, err)
	}
	c := &Client{conn: conn, done: make(chan struct{})}
	go c.keepalive()
	return c, nil
}

// Close ends the connection and every session on it.
func (c *Client) Close() error {
	c.once.Do(func() { close(c.done) })
	err := c.conn.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// keepalive cuts a connection whose guest has frozen, so that nothing waits on it for ever.
func (c *Client) keepalive() {
	tick := time.NewTicker(keepaliveEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-tick.C:
		}
		cut := time.AfterFunc(keepaliveLimit, func() { c.conn.Close() })
		_, _, err := c.conn.SendRequest("keepalive@openssh.com", true, nil)
		cut.Stop()
		if err != nil {
			return
		}
	}
}

// handshake dials and runs the SSH handshake; the end of ctx cuts either short.
func handshake(ctx context.Context, target Target, config *cryptossh.ClientConfig) (*cryptossh.Client, error) {
	conn, err := dialTCP(ctx, target)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	sshConn, channels, requests, err := cryptossh.NewClientConn(conn, target.String(), config)
	if !stop() && err == nil {
		err = ctx.Err()
		sshConn.Close()
	}
	if err != nil {
		return nil, err
	}
	return cryptossh.NewClient(sshConn, channels, requests), nil
}

func dialTCP(ctx context.Context, target Target) (net.Conn, error) {
	var dialer net.Dialer
	return dialer.DialContext(ctx, "tcp", target.String())
}

// pin checks one handshake's host key and remembers whether it was the right one.
type pin struct {
	key     PublicKey
	matched bool
}

func parsePin(line string) (*pin, error) {
	if strings.TrimSpace(line) == "" {
		return nil, fmt.Errorf("%w: no host key is known for the guest; its module must output host_key", ErrHostKey)
	}
	key, _, _, _, err := cryptossh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return nil, fmt.Errorf("%w: the known host key is no line of authorized_keys format: %w", ErrHostKey, err)
	}
	return &pin{key: key}, nil
}

// config asks for the pinned key's algorithm alone, because a server with several host keys
// would otherwise show the one that it likes best.
func (p *pin) config(user string) *cryptossh.ClientConfig {
	algorithms := []string{p.key.Type()}
	if p.key.Type() == cryptossh.KeyAlgoRSA {
		algorithms = []string{cryptossh.KeyAlgoRSASHA512, cryptossh.KeyAlgoRSASHA256}
	}
	return &cryptossh.ClientConfig{User: user, HostKeyCallback: p.check, HostKeyAlgorithms: algorithms}
}

func (p *pin) check(_ string, _ net.Addr, key PublicKey) error {
	if !bytes.Equal(key.Marshal(), p.key.Marshal()) {
		return fmt.Errorf("%w: expected %s, got %s", ErrHostKey,
			cryptossh.FingerprintSHA256(p.key), cryptossh.FingerprintSHA256(key))
	}
	p.matched = true
	return nil
}

// explain gives a failed handshake the sentinel that its reader can act on.
func (p *pin) explain(ctx context.Context, target Target, err error) error {
	var negotiation *cryptossh.AlgorithmNegotiationError
	switch {
	case errors.Is(err, ErrHostKey):
	case errors.As(err, &negotiation) && !p.matched:
		err = fmt.Errorf("%w: the guest has no %s host key: %w", ErrHostKey, p.key.Type(), err)
	case p.matched && strings.Contains(err.Error(), "unable to authenticate"):
		err = fmt.Errorf("%w: %w", ErrAuth, err)
	default:
		err = explainNet(ctx, err)
	}
	return fmt.Errorf("ssh to %s: %w", target, err)
}

// explainNet classifies what can go wrong below SSH.
func explainNet(ctx context.Context, err error) error {
	var netErr net.Error
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("%w: %w", context.Canceled, err)
	case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}
