package ssh

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	cryptossh "golang.org/x/crypto/ssh"
)

// maxBannerBytes bounds what is read in search of the identification line. RFC 4253 section 4.2
// allows a server other lines before it, and 255 characters for the line itself.
const maxBannerBytes = 8 << 10

// errProbed ends a handshake on purpose once the host key has been proven.
var errProbed = errors.New("host key checked")

// Banner returns the identification line of an SSH server, such as "SSH-2.0-OpenSSH_9.2".
func Banner(ctx context.Context, host string, port int) (string, error) {
	target := Target{Host: host, Port: port}
	ctx, cancel := context.WithTimeout(ctx, handshakeLimit)
	defer cancel()
	conn, err := dialTCP(ctx, target)
	if err != nil {
		return "", fmt.Errorf("banner of %s: %w", target, explainNet(ctx, err))
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	line, err := identification(conn)
	if err != nil {
		return "", fmt.Errorf("banner of %s: %w", target, explainNet(ctx, err))
	}
	return line, nil
}

func identification(r io.Reader) (string, error) {
	lines := bufio.NewReader(io.LimitReader(r, maxBannerBytes))
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("no SSH identification line: %w", err)
		}
		if strings.HasPrefix(line, "SSH-") {
			return strings.TrimRight(line, "\r\n"), nil
		}
	}
}

// Handshake runs the key exchange and checks the host key, and goes no further: it needs no key
// of its own. nil means that the very guest that was pinned answers.
func Handshake(ctx context.Context, target Target) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeLimit)
	defer cancel()
	pin, err := parsePin(target.HostKey)
	if err != nil {
		return err
	}
	config := pin.config(target.User)
	config.HostKeyCallback = stopOnceChecked(pin)
	conn, err := handshake(ctx, target, config)
	if errors.Is(err, errProbed) {
		return nil
	}
	if err == nil {
		conn.Close()
		return nil
	}
	return pin.explain(ctx, target, err)
}

// stopOnceChecked relies on x/crypto verifying the server's proof of possession before the callback.
func stopOnceChecked(p *pin) cryptossh.HostKeyCallback {
	return func(host string, addr net.Addr, key PublicKey) error {
		if err := p.check(host, addr, key); err != nil {
			return err
		}
		return errProbed
	}
}
