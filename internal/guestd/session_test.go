package guestd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	cryptossh "golang.org/x/crypto/ssh"

	"greenroom/internal/ssh"
)

func TestOnlyTheRightKeysAreLetIn(t *testing.T) {
	g := newGuest(t, nil)
	stranger, _, err := ssh.NewEphemeral()
	must(t, err)
	tests := map[string]struct {
		signer ssh.Signer
		want   error
	}{
		"a plain authorized key":                   {g.key, nil},
		"another key":                              {stranger, ssh.ErrAuth},
		"the authority's own key":                  {g.authority.Key, ssh.ErrAuth},
		"a certificate of this guest":              {g.certificate(t, "local-3.2", time.Hour), nil},
		"a certificate of another guest":           {g.certificate(t, "local-4.2", time.Hour), ssh.ErrAuth},
		"a certificate of an earlier incarnation":  {g.certificate(t, "local-3.1", time.Hour), ssh.ErrAuth},
		"an expired certificate":                   {g.certificate(t, "local-3.2", -time.Minute), ssh.ErrAuth},
		"a certificate of another authority":       {certificate(t, ssh.Authority{Key: stranger}, "local-3.2", time.Hour), ssh.ErrAuth},
		"a certificate without principals":         {oddCertificate(t, g, func(c *ssh.Certificate) { c.ValidPrincipals = nil }), ssh.ErrAuth},
		"a host certificate":                       {oddCertificate(t, g, func(c *ssh.Certificate) { c.CertType = cryptossh.HostCert }), ssh.ErrAuth},
		"a certificate that is not valid yet":      {oddCertificate(t, g, func(c *ssh.Certificate) { c.ValidAfter = uint64(time.Now().Add(time.Hour).Unix()) }), ssh.ErrAuth},
		"a certificate with an unknown constraint": {oddCertificate(t, g, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"force-command": "true"} }), ssh.ErrAuth},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			client, err := ssh.Dial(limit(t), g.Target(), test.signer)
			if !errors.Is(err, test.want) {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			if err == nil {
				client.Close()
			}
		})
	}
	other := g.Target()
	other.User = "nobody-else"
	if _, err := ssh.Dial(limit(t), other, g.key); !errors.Is(err, ssh.ErrAuth) {
		t.Errorf("another user was let in: %v", err)
	}
}

// oddCertificate is one that the authority signs but that ssh.Authority would never make.
func oddCertificate(t *testing.T, g testGuest, change func(*ssh.Certificate)) ssh.Signer {
	t.Helper()
	key, _, err := ssh.NewEphemeral()
	must(t, err)
	now := time.Now()
	cert, err := g.authority.Sign(key.PublicKey(), "odd", "local-3.2", now.Add(-time.Hour), now.Add(2*time.Hour))
	must(t, err)
	change(cert)
	must(t, cert.SignCert(bytes.NewReader(make([]byte, 64)), g.authority.Key))
	signer, err := cryptossh.NewCertSigner(cert, key)
	must(t, err)
	return signer
}

func TestCommandsRunInTheGuestsHomeWithItsEnvironment(t *testing.T) {
	t.Setenv("TF_VAR_secret", "of the host")
	g := newGuest(t, nil)
	client := g.dial(t, g.certificate(t, "local-3.2", time.Hour))
	var out, errs strings.Builder
	exit, err := client.Run(limit(t), `cat; pwd; echo "$HOME $GREENROOM_GUEST $COLOUR $TF_VAR_secret"; echo bad >&2; exit 7`,
		strings.NewReader("from stdin\n"), &out, &errs, map[string]string{"COLOUR": "deep 'red'"})
	must(t, err)
	home := filepath.Join(g.Attributes["dir"], homeDir)
	want := "from stdin\n" + home + "\n" + home + " local-3 deep 'red' \n"
	if exit != 7 || out.String() != want || errs.String() != "bad\n" {
		t.Errorf("exit %d, errors %q, output %q, want %q", exit, errs.String(), out.String(), want)
	}
	if _, exit := run(t, client, "kill -TERM $$"); exit != 128+15 {
		t.Errorf("a command ended by SIGTERM has exit code %d", exit)
	}
}

func TestTheMarkOfAGuestCannotBeUnset(t *testing.T) {
	g := newGuest(t, nil)
	var out strings.Builder
	_, err := g.dial(t, g.key).Run(limit(t), "tr '\\0' '\\n' < /proc/$$/environ | grep ^GREENROOM_GUEST_DIR=", nil, &out, nil, map[string]string{dirVar: "/elsewhere"})
	must(t, err)
	if want := dirVar + "=" + g.Attributes["dir"] + "\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestBigOutputsOfManySessionsArriveWhole(t *testing.T) {
	g := newGuest(t, nil)
	client := g.dial(t, g.key)
	var sessions sync.WaitGroup
	for range 16 {
		sessions.Go(func() {
			var out bytes.Buffer
			in := bytes.Repeat([]byte("0123456789abcde\n"), 64<<10)
			exit, err := client.Run(limit(t), "cat", bytes.NewReader(in), &out, nil, nil)
			if err != nil || exit != 0 || !bytes.Equal(out.Bytes(), in) {
				t.Errorf("exit %d, %d of %d bytes, %v", exit, out.Len(), len(in), err)
			}
		})
	}
	sessions.Wait()
}

func TestABackgroundProcessDoesNotHoldItsSession(t *testing.T) {
	g := newGuest(t, nil)
	out, exit := run(t, g.dial(t, g.key), "sleep 1000 & echo $!")
	pid, err := strconv.Atoi(out)
	must(t, err)
	if exit != 0 {
		t.Errorf("exit %d", exit)
	}
	eventually(t, "the rest of the process group ends with the session", func() bool { return !lives(pid) })
}

func TestTheProcessGroupEndsWhenItsChannelCloses(t *testing.T) {
	g := newGuest(t, nil)
	client := g.dial(t, g.key)
	ctx, cancel := context.WithCancel(limit(t))
	read, write := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := client.Run(ctx, `trap '' TERM HUP; echo $$; while :; do sleep 1; done`, nil, write, nil, nil)
		ended <- err
	}()
	var pid int
	if _, err := fmt.Fscan(read, &pid); err != nil || !lives(pid) {
		t.Fatal(pid, err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	eventually(t, "the command has ended", func() bool { return !lives(pid) })
}

func TestATerminalHasASizeThatChanges(t *testing.T) {
	g := newGuest(t, nil)
	client := g.dial(t, g.certificate(t, "local-3.2", time.Hour))
	stdin, type_ := io.Pipe()
	seen, write := io.Pipe()
	resize := make(chan ssh.Size, 1)
	exit := make(chan int, 1)
	go func() {
		code, err := client.Shell(limit(t), stdin, write, nil, "xterm", ssh.Size{Columns: 101, Rows: 33}, resize)
		write.CloseWithError(err)
		exit <- code
	}()
	screen := &screen{from: seen}
	io.WriteString(type_, "tty; stty size; echo $TERM\n")
	screen.await(t, "/dev/pts/", "33 101", "xterm")
	resize <- ssh.Size{Columns: 77, Rows: 22}
	io.WriteString(type_, "until [ \"$(stty size)\" = '22 77' ]; do :; done; echo resized to $(stty size)\n")
	screen.await(t, "resized to 22 77")
	io.WriteString(type_, "exit 5\n")
	if _, err := io.Copy(io.Discard, seen); err != nil {
		t.Error(err)
	}
	if code := <-exit; code != 5 {
		t.Errorf("exit code %d", code)
	}
	type_.Close()
}

// screen collects what a terminal shows.
type screen struct {
	from io.Reader
	text string
}

func (s *screen) await(t *testing.T, wants ...string) {
	t.Helper()
	for _, want := range wants {
		for !strings.Contains(s.text, want) {
			buf := make([]byte, 4096)
			n, err := s.from.Read(buf)
			s.text += string(buf[:n])
			if err != nil {
				t.Fatalf("no %q on the screen: %v\n%s", want, err, s.text)
			}
		}
	}
}

func TestACertificateWithoutPermitPtyGetsNoTerminal(t *testing.T) {
	g := newGuest(t, nil)
	client := g.dial(t, oddCertificate(t, g, func(c *ssh.Certificate) { c.Extensions = nil }))
	if _, err := client.Shell(limit(t), strings.NewReader(""), io.Discard, io.Discard, "xterm", ssh.Size{Columns: 80, Rows: 24}, nil); err == nil {
		t.Error("it got one")
	}
	if out, _ := run(t, client, "echo ok"); out != "ok" {
		t.Errorf("but commands must work: %q", out)
	}
}

func TestPortsAreNotForwarded(t *testing.T) {
	g := newGuest(t, nil)
	conn := g.rawDial(t)
	if _, err := conn.Dial("tcp", net.JoinHostPort(g.Host, strconv.Itoa(g.Port))); err == nil {
		t.Error("direct-tcpip was let through")
	}
}

func TestTheNumberOfSessionsIsBounded(t *testing.T) {
	g := newGuest(t, nil)
	conn := g.rawDial(t)
	for i := range maxSessions {
		if _, err := conn.NewSession(); err != nil {
			t.Fatalf("session %d: %v", i, err)
		}
	}
	if _, err := conn.NewSession(); err == nil || !strings.Contains(err.Error(), "64 sessions already") {
		t.Errorf("session %d: %v", maxSessions+1, err)
	}
}

// rawDial is for what the client of package ssh does not offer.
func (g testGuest) rawDial(t *testing.T) *cryptossh.Client {
	t.Helper()
	hostKey, _, _, _, err := cryptossh.ParseAuthorizedKey([]byte(g.HostKey))
	must(t, err)
	conn, err := cryptossh.Dial("tcp", g.Target().String(), &cryptossh.ClientConfig{
		User: g.User, Auth: []cryptossh.AuthMethod{cryptossh.PublicKeys(g.key)}, HostKeyCallback: cryptossh.FixedHostKey(hostKey),
	})
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestAResetPartsTheGuestFromItsLastHolder(t *testing.T) {
	g := newGuest(t, nil)
	lease := g.certificate(t, "local-3.2", time.Hour)
	holder := g.dial(t, lease)
	if _, exit := run(t, holder, "touch made-by-prepare"); exit != 0 {
		t.Fatal(exit)
	}
	pids := g.escapees(t, "setsid sleep 1000")
	if _, exit := run(t, holder, ResetCommand); exit != 127 {
		t.Errorf("a lease's certificate may reset the guest: exit %d", exit)
	}
	server := g.dial(t, g.key)
	if out, exit := run(t, server, ResetCommand); exit != 0 {
		t.Fatalf("reset: exit %d, %s", exit, out)
	}
	if lives(pids[0]) {
		t.Error("a process of the last lease lives on")
	}
	if _, err := holder.Run(limit(t), "true", nil, nil, nil, nil); err == nil {
		t.Error("the last holder's connection still works")
	}
	if _, err := ssh.Dial(limit(t), g.Target(), lease); !errors.Is(err, ssh.ErrAuth) {
		t.Errorf("the last holder's certificate still works: %v", err)
	}
	g.dial(t, g.certificate(t, "local-3.2", time.Hour))
	if out, _ := run(t, server, "ls"); out != "made-by-prepare" {
		t.Errorf("files are the reset script's business, but home has %q", out)
	}
}

func TestTheLogIsBounded(t *testing.T) {
	file, err := os.OpenFile(filepath.Join(t.TempDir(), "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	must(t, err)
	defer file.Close()
	log := &boundedLog{file: file}
	for range 300 {
		_, err := log.Write(make([]byte, 10<<10))
		must(t, err)
	}
	if info, err := file.Stat(); err != nil || info.Size() > maxLogBytes || info.Size() == 0 {
		t.Errorf("the log has %d bytes, %v", info.Size(), err)
	}
}
