package guestd

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"greenroom/internal/ssh"
)

// TestMain lets the test binary be the guest's process, as the greenroom binary is in earnest.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := Serve(ctx, os.Args[2]); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

const patience = 30 * time.Second

// testGuest is a living guest, the server's key to it and the authority that it trusts.
type testGuest struct {
	Info
	dir       string
	key       ssh.Signer
	authority ssh.Authority
}

func options(t *testing.T) (Options, ssh.Signer, ssh.Authority) {
	t.Helper()
	key, line, err := ssh.NewEphemeral()
	must(t, err)
	ca, _, err := ssh.NewEphemeral()
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	return Options{
		Dir: filepath.Join(t.TempDir(), "guest"),
		Birth: Birth{
			Name: "local-3", Incarnation: 2, Isolation: IsolationProcess,
			AuthorizedKeys: []string{line, ssh.AuthorityLine(ca)},
		},
		Serve: []string{self, "serve"},
	}, key, ssh.Authority{Key: ca}
}

func newGuest(t *testing.T, change func(*Options)) testGuest {
	t.Helper()
	o, key, authority := options(t)
	if change != nil {
		change(&o)
	}
	t.Cleanup(func() { must(t, Stop(context.Background(), o.Dir)) })
	info, err := Start(limit(t), o)
	must(t, err)
	return testGuest{Info: info, dir: o.Dir, key: key, authority: authority}
}

// certificate signs in a fresh key for principal, valid from now and for the given time.
func (g testGuest) certificate(t *testing.T, principal string, valid time.Duration) ssh.Signer {
	t.Helper()
	return certificate(t, g.authority, principal, valid)
}

func certificate(t *testing.T, authority ssh.Authority, principal string, valid time.Duration) ssh.Signer {
	t.Helper()
	key, _, err := ssh.NewEphemeral()
	must(t, err)
	from := time.Now().Add(-time.Hour)
	cert, err := authority.Sign(key.PublicKey(), "lease-1", principal, from, from.Add(time.Hour+valid))
	must(t, err)
	signer, err := ssh.CertSigner(ssh.Line(cert), key)
	must(t, err)
	return signer
}

func (g testGuest) dial(t *testing.T, signer ssh.Signer) *ssh.Client {
	t.Helper()
	client, err := ssh.Dial(limit(t), g.Target(), signer)
	must(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

// run returns what a command wrote to standard output, and its exit code.
func run(t *testing.T, client *ssh.Client, cmd string) (string, int) {
	t.Helper()
	var out strings.Builder
	exit, err := client.Run(limit(t), cmd, strings.NewReader(""), &out, nil, nil)
	must(t, err)
	return strings.TrimSpace(out.String()), exit
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func limit(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls until ok; it never asserts how fast.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx := limit(t)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// kill refuses the pids that stand for init, one's own group and everybody.
func kill(t *testing.T, pid int) {
	t.Helper()
	if pid < 2 {
		t.Fatalf("pid %d is not a guest's", pid)
	}
	must(t, syscall.Kill(pid, syscall.SIGKILL))
}

func lives(pid int) bool {
	_, alive := inspect(pid)
	return alive
}

// pids are the guest's living processes as the host counts them.
func (g testGuest) pids(t *testing.T) []int {
	t.Helper()
	found, err := members(g.Attributes["dir"])
	must(t, err)
	var pids []int
	for _, p := range found {
		pids = append(pids, p.pid)
	}
	slices.Sort(pids)
	return pids
}

// tool finds a program that a test cannot do without.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v: install the package openssh-client (make test does)", err)
	}
	return path
}
