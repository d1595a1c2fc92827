package ssh_test

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"greenroom/internal/guestd"
	"greenroom/internal/ssh"
)

// TestMain lets the test binary be a guest too, so that the client meets a real server.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if guestd.Serve(ctx, os.Args[2]) != nil {
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// newGuest starts a guest and returns where it answers, a key to it and its home directory.
func newGuest(t *testing.T) (ssh.Target, ssh.Signer, string) {
	t.Helper()
	key, line, err := ssh.NewEphemeral()
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	dir := filepath.Join(t.TempDir(), "guest")
	t.Cleanup(func() { must(t, guestd.Stop(context.Background(), dir)) })
	info, err := guestd.Start(limit(t), guestd.Options{
		Dir:   dir,
		Birth: guestd.Birth{Name: "local-1", Incarnation: 1, Isolation: guestd.IsolationProcess, AuthorizedKeys: []string{line}},
		Serve: []string{self, "serve"},
	})
	must(t, err)
	return info.Target(), key, filepath.Join(info.Attributes["dir"], "home")
}

func dial(t *testing.T) (*ssh.Client, string) {
	t.Helper()
	target, key, home := newGuest(t)
	client, err := ssh.Dial(limit(t), target, key)
	must(t, err)
	t.Cleanup(func() { must(t, client.Close()) })
	return client, home
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func limit(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}
