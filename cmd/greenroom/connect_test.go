package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"greenroom/lease/client"
)

func TestTheAdminsTokenIsSentToTheTCPServerOfThisMachineOnly(t *testing.T) {
	t.Setenv("GREENROOM_TOKEN", "")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "admin.token"), []byte("gr_ADMIN\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for server, want := range map[string]string{
		"": "", "/run/greenroom.sock": "", "unix:/run/greenroom.sock": "", "http://127.0.0.1:7070": "gr_ADMIN",
		"http://[::1]:7070": "gr_ADMIN", "http://localhost:7070": "gr_ADMIN",
		"https://greenroom.example.org": "", "http://10.0.0.1:7070": "", "http://localhost.example.org": "",
	} {
		if got, err := (&link{server: server, stateDir: dir}).token(); got != want || err != nil {
			t.Errorf("to %q goes %q (%v), want %q", server, got, err, want)
		}
	}
}

func TestATokenThatIsNamedWins(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "mine")
	if err := os.WriteFile(file, []byte("gr_FILE\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GREENROOM_TOKEN", "gr_ENV")
	for want, l := range map[string]link{"gr_FILE": {tokenFile: file}, "gr_ENV": {server: "https://greenroom.example.org", stateDir: dir}} {
		if got, err := l.token(); got != want || err != nil {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	if _, err := (&link{tokenFile: file + ".missing"}).token(); err == nil {
		t.Error("a token file that is missing is passed over")
	}
}

func TestVariablesArePrintedForAShell(t *testing.T) {
	for in, want := range map[string]string{"a-b_1.2:3": "a-b_1.2:3", "two words": "'two words'", "it's": `'it'\''s'`, "$(x)": "'$(x)'"} {
		if got := commandLine([]string{in, "x"}); got != shellQuote(in)+" 'x'" {
			t.Errorf("command line %s", got)
		}
		if got := variable("K", in); got != "K="+want+"\n" {
			t.Errorf("%q is printed as %q, want %q", in, got, want)
		}
	}
}

func TestWhoMayNotUseASocketIsToldHowElseToCall(t *testing.T) {
	err := hinted(fmt.Errorf("cannot reach the server at /s/greenroom.sock: %w", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EACCES)}))
	if !strings.Contains(err.Error(), "permission denied (only the server's own user and root may use its socket; ") || strings.Contains(err.Error(), "running?") {
		t.Errorf("told: %v", err)
	}
}

func TestAHintStandsInBracketsUnlessTheErrorEndsWithSome(t *testing.T) {
	for detail, want := range map[string]string{
		"the lease is over":            "the lease is over (acquire another)",
		"the lease is over (released)": "the lease is over (released); acquire another",
	} {
		if got := hinted(&client.Error{Problem: client.Problem{Code: "lease_over", Detail: detail}}).Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestATokenIsOneWord(t *testing.T) {
	for token, want := range map[string]string{" gr_A\n": "cannot reach the server", "gr_A\ngr_B": "the token has a blank or a character", "gr_\u00e4": "the token has a blank or a character"} {
		t.Setenv("GREENROOM_TOKEN", token)
		if got := execute(t.Context(), "status", "--server", filepath.Join(t.TempDir(), "nobody.sock")); got.code == 0 || !strings.Contains(got.stderr, want) {
			t.Errorf("%q: %+v, want %q", token, got, want)
		}
	}
}
