package ssh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"greenroom/internal/ssh"
)

func TestEachWayOfNotReachingAGuestHasItsError(t *testing.T) {
	target, key, _ := newGuest(t)
	stranger, strangersLine, err := ssh.NewEphemeral()
	must(t, err)
	closed := listen(t, nil)
	host, port := address(t, closed)
	must(t, closed.Close())
	silentHost, silentPort := address(t, listen(t, func(conn net.Conn) { io.Copy(io.Discard, conn) }))
	with := func(change func(*ssh.Target)) ssh.Target {
		changed := target
		change(&changed)
		return changed
	}
	tests := map[string]struct {
		target ssh.Target
		signer ssh.Signer
		want   error
	}{
		"nothing listens":         {with(func(t *ssh.Target) { t.Host, t.Port = host, port }), key, ssh.ErrRefused},
		"no answer":               {with(func(t *ssh.Target) { t.Host, t.Port = silentHost, silentPort }), key, ssh.ErrTimeout},
		"another host key":        {with(func(t *ssh.Target) { t.HostKey = strangersLine }), key, ssh.ErrHostKey},
		"another kind of key":     {with(func(t *ssh.Target) { t.HostKey = ecdsaLine }), key, ssh.ErrHostKey},
		"no host key known":       {with(func(t *ssh.Target) { t.HostKey = "" }), key, ssh.ErrHostKey},
		"an unreadable host key":  {with(func(t *ssh.Target) { t.HostKey = "ssh-ed25519 ?" }), key, ssh.ErrHostKey},
		"a key that is not known": {target, stranger, ssh.ErrAuth},
		"all well":                {target, key, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			wait := 30 * time.Second
			if test.want == ssh.ErrTimeout {
				wait = 300 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			client, err := ssh.Dial(ctx, test.target, test.signer)
			if !errors.Is(err, test.want) {
				t.Errorf("Dial: %v, want %v", err, test.want)
			}
			if err == nil {
				must(t, client.Close())
			}
			if test.want == ssh.ErrAuth {
				test.want = nil
			}
			if test.want == ssh.ErrTimeout {
				ctx, cancel = context.WithTimeout(t.Context(), wait)
				defer cancel()
			}
			if err := ssh.Handshake(ctx, test.target); !errors.Is(err, test.want) {
				t.Errorf("Handshake: %v, want %v", err, test.want)
			}
		})
	}
}

const ecdsaLine = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg="

func TestADialThatIsCancelledSaysSo(t *testing.T) {
	target, key, _ := newGuest(t)
	ctx, cancel := context.WithCancel(t.Context())
	target.Host, target.Port = address(t, listen(t, func(net.Conn) { cancel() }))
	if _, err := ssh.Dial(ctx, target, key); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestABannerIsFoundBehindOtherLinesWithinBounds(t *testing.T) {
	tests := map[string]struct {
		says, want string
		err        error
	}{
		"at once":             {says: "SSH-2.0-OpenSSH_9.2p1\r\n", want: "SSH-2.0-OpenSSH_9.2p1"},
		"behind a greeting":   {says: "welcome\r\nto the lab\r\nSSH-2.0-x\r\n", want: "SSH-2.0-x"},
		"never":               {says: "HTTP/1.1 400 Bad Request\r\n\r\n", err: io.EOF},
		"behind an avalanche": {says: strings.Repeat("snow\n", 10000) + "SSH-2.0-x\n", err: io.EOF},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			host, port := address(t, listen(t, func(conn net.Conn) { io.WriteString(conn, test.says) }))
			got, err := ssh.Banner(limit(t), host, port)
			if got != test.want || !errors.Is(err, test.err) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	silentHost, silentPort := address(t, listen(t, func(conn net.Conn) { io.Copy(io.Discard, conn) }))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := ssh.Banner(ctx, silentHost, silentPort); !errors.Is(err, ssh.ErrTimeout) {
		t.Errorf("silence: %v", err)
	}
	target, _, _ := newGuest(t)
	if got, err := ssh.Banner(limit(t), target.Host, target.Port); err != nil || got != "SSH-2.0-greenroom-guestd" {
		t.Errorf("a guest's: %q, %v", got, err)
	}
}

// listen answers every connection by answer and then closes it.
func listen(t *testing.T, answer func(net.Conn)) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				answer(conn)
			}()
		}
	}()
	return listener
}

func address(t *testing.T, listener net.Listener) (string, int) {
	t.Helper()
	addr := listener.Addr().(*net.TCPAddr)
	return addr.IP.String(), addr.Port
}

func TestAScriptReturnsTheEndOfItsOutput(t *testing.T) {
	client, home := dial(t)
	out, exit, err := client.Script(limit(t), []byte("echo \"$WHO\"\npwd >&2\nexit 4\n"), map[string]string{"WHO": "it's me"})
	if want := "it's me\n" + home + "\n"; err != nil || exit != 4 || out != want {
		t.Errorf("output %q, want %q; exit %d, %v", out, want, exit, err)
	}
	out, exit, err = client.Script(limit(t), []byte("head -c 1000000 /dev/zero | tr '\\0' x; echo the end"), nil)
	if err != nil || exit != 0 || len(out) > 65<<10 || !strings.HasPrefix(out, "[earlier output cut]\n") || !strings.HasSuffix(out, "xthe end\n") {
		t.Errorf("%d bytes, exit %d, %v", len(out), exit, err)
	}
	if _, _, err := client.Script(limit(t), nil, map[string]string{"A B": "x"}); err == nil {
		t.Error("a malformed variable name was taken")
	}
}

func TestRunEndsWithItsContextAndWithItsConnection(t *testing.T) {
	client, _ := dial(t)
	ctx, cancel := context.WithCancelCause(limit(t))
	lost := errors.New("the lease is lost")
	output := writer(func() { cancel(lost) })
	if _, err := client.Run(ctx, "echo started; exec sleep 1000", nil, output, nil, nil); !errors.Is(err, lost) {
		t.Errorf("cancelled: %v", err)
	}
	if exit, err := client.Run(limit(t), "exit 3", nil, nil, nil, nil); err != nil || exit != 3 {
		t.Errorf("the connection is of no more use: exit %d, %v", exit, err)
	}
	output = writer(func() { client.Close() })
	if _, err := client.Run(limit(t), "echo started; exec sleep 1000", nil, output, nil, nil); err == nil {
		t.Error("a lost connection passes for success")
	}
}

func TestACommandNeedNotReadItsInput(t *testing.T) {
	client, _ := dial(t)
	endless := reader(func(p []byte) int { return len(p) })
	for _, code := range []int{0, 3} {
		exit, err := client.Run(limit(t), fmt.Sprintf("head -c 1 >/dev/null; exit %d", code), endless, io.Discard, io.Discard, nil)
		if err != nil || exit != code {
			t.Errorf("exit %d, %v, want %d", exit, err, code)
		}
	}
}

// reader fills a buffer by a function.
type reader func(p []byte) int

func (r reader) Read(p []byte) (int, error) { return r(p), nil }

// writer calls a function at each write.
type writer func()

func (w writer) Write(p []byte) (int, error) { w(); return len(p), nil }

func TestAKeyThatOthersMayReadIsRefused(t *testing.T) {
	path := t.TempDir() + "/key"
	keys := make(chan string)
	for range 8 {
		go func() {
			signer, err := ssh.LoadOrCreateKey(path)
			if err != nil {
				keys <- err.Error()
				return
			}
			keys <- ssh.Line(signer.PublicKey())
		}()
	}
	first := <-keys
	for range 7 {
		if key := <-keys; key != first {
			t.Errorf("two keys were made: %s and %s", first, key)
		}
	}
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	must(t, os.Chmod(path, 0o640))
	if _, err := ssh.LoadOrCreateKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("error %v", err)
	}
	must(t, os.WriteFile(path, []byte("nonsense"), 0o600))
	must(t, os.Chmod(path, 0o600))
	if _, err := ssh.LoadOrCreateKey(path); err == nil || !strings.Contains(err.Error(), "no OpenSSH private key") {
		t.Errorf("error %v", err)
	}
}

func TestAnAuthoritySignsOnlyWhatMakesSense(t *testing.T) {
	ca, caLine, err := ssh.NewEphemeral()
	must(t, err)
	key, _, err := ssh.NewEphemeral()
	must(t, err)
	now := time.Unix(1_800_000_000, 5)
	authority := ssh.Authority{Key: ca, Now: func() time.Time { return now }}
	cert, err := authority.Sign(key.PublicKey(), "lease-1", "local-1.1", now, now.Add(time.Hour))
	must(t, err)
	if cert.Serial != uint64(now.UnixNano()) || cert.KeyId != "lease-1" || len(cert.Permissions.Extensions) != 1 {
		t.Errorf("unexpected certificate %+v", cert)
	}
	if got := ssh.AuthorityLine(ca); got != "cert-authority "+caLine {
		t.Errorf("authority line %q", got)
	}
	if _, err := ssh.CertSigner(ssh.Line(key.PublicKey()), key); err == nil {
		t.Error("a plain key passes for a certificate")
	}
	bad := map[string]func() error{
		"a certificate of a certificate": func() error {
			_, err := authority.Sign(cert, "x", "local-1.1", now, now.Add(time.Hour))
			return err
		},
		"no principal": func() error { _, err := authority.Sign(key.PublicKey(), "x", "", now, now.Add(time.Hour)); return err },
		"no time":      func() error { _, err := authority.Sign(key.PublicKey(), "x", "a.1", now, now); return err },
	}
	for name, sign := range bad {
		if sign() == nil {
			t.Errorf("%s was signed", name)
		}
	}
}
