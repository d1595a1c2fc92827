package gitops

import (
	"crypto/ed25519"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"

	"greenroom/reconcile/condition"
	"greenroom/reconcile/gitops/gitopstest"
)

func TestARepositoryIsFollowedOverSSH(t *testing.T) {
	repo := gitopstest.New(t)
	commit := repo.CommitAndPush(fleetFiles("fleet", "1"))
	server := repo.ServeSSH()
	f := follow(t, Options{Source: server.URL + "//fleet?ref=main", KeyFile: server.KeyFile, KnownHosts: server.KnownHosts})
	f.good(commit)
	f.good(repo.CommitAndPush(fleetFiles("fleet", "2")))
}

func TestSSHTrustsNobodyItDoesNotKnow(t *testing.T) {
	repo := gitopstest.New(t)
	repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("1")})
	server := repo.ServeSSH()
	other, otherFile := gitopstest.Key(t)
	nobody := filepath.Join(t.TempDir(), "known_hosts")
	write(t, nobody, "# none\n")
	read := func(key, known string) *condition.Fault {
		r := open(t, Options{Source: server.URL, KeyFile: key, KnownHosts: known}).Read(t.Context(), "")
		if r.Fault == nil {
			t.Fatal("it was read")
		}
		return r.Fault
	}
	check := func(name string, f *condition.Fault, texts ...string) {
		t.Run(name, func(t *testing.T) { mustFault(t, revisionOf(f), condition.Unauthorized, texts...) })
	}
	check("an unknown host", read(server.KeyFile, nobody), "ssh-keyscan", nobody)
	check("an unknown key", read(otherFile, server.KnownHosts), "add the public key of "+otherFile)
	check("no key", read(nobody, server.KnownHosts), nobody, "cannot be read")
	check("a key with a passphrase", read(locked(t), server.KnownHosts), "passphrase")
	server.Know(t, other.PublicKey())
	check("a host with another key", read(server.KeyFile, server.KnownHosts), "the host has another key")
}

func locked(t *testing.T) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	noError(t, err)
	block, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("secret"))
	noError(t, err)
	file := filepath.Join(t.TempDir(), "locked")
	noError(t, os.WriteFile(file, pem.EncodeToMemory(block), 0o600))
	return file
}

func TestAFileSourceNeedsGit(t *testing.T) {
	repo := gitopstest.New(t)
	repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("1")})
	f := open(t, Options{Source: repo.FileURL()})
	t.Setenv("PATH", t.TempDir())
	mustFault(t, f.Read(t.Context(), ""), condition.Unreachable, "needs the git command")
}

func TestAHostThatIsNotThereIsUnreachable(t *testing.T) {
	for source, want := range map[string]string{
		"https://127.0.0.1:1/fleet.git":             "refused",
		"https://nowhere.invalid/fleet.git":         "nowhere.invalid",
		"file:///nowhere/fleet.git":                 "not found",
		"http://127.0.0.1:1/fleet.git//specs?ref=x": "refused",
	} {
		mustFault(t, open(t, Options{Source: source}).Read(t.Context(), ""), condition.Unreachable, want)
	}
}
