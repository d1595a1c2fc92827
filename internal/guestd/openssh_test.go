package guestd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"greenroom/internal/ssh"
)

// TestOpenSSHWorksWithALeasesCertificate uses the programs that people use.
func TestOpenSSHWorksWithALeasesCertificate(t *testing.T) {
	g := newGuest(t, nil)
	dir := t.TempDir()
	args := g.openSSH(t, dir)
	host := g.User + "@" + g.Host
	open := func(stdin, program string, rest ...string) string {
		cmd := exec.CommandContext(limit(t), tool(t, program), append(args, rest...)...)
		cmd.Stdin, cmd.Dir = strings.NewReader(stdin), dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", program, rest, err, out)
		}
		return string(out)
	}
	must(t, os.WriteFile(filepath.Join(dir, "up"), []byte("precious"), 0o640))
	port := strconv.Itoa(g.Port)

	if got := open("piped\n", "ssh", "-p", port, host, "cat; echo $GREENROOM_GUEST"); got != "piped\nlocal-3\n" {
		t.Errorf("ssh: %q", got)
	}
	if got := open("", "ssh", "-p", port, "-tt", host, "tty"); !strings.Contains(got, "/dev/pts/") {
		t.Errorf("ssh -tt: %q", got)
	}
	open("", "scp", "-P", port, "-p", "up", host+":by-scp")
	open("", "scp", "-P", port, host+":by-scp", "down")
	open("put up by-sftp\nget by-sftp down-sftp\n", "sftp", "-P", port, "-b", "-", host)
	for _, name := range []string{"down", "down-sftp"} {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(text) != "precious" {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	if info, err := os.Stat(filepath.Join(g.dir, homeDir, "by-scp")); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("scp -p did not keep the mode: %v, %v", info, err)
	}
}

// openSSH writes a key made by ssh-keygen, a certificate for it and the pinned host key, and
// returns the options that make OpenSSH use these alone.
func (g testGuest) openSSH(t *testing.T, dir string) []string {
	t.Helper()
	key := filepath.Join(dir, "id")
	if out, err := exec.CommandContext(limit(t), tool(t, "ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	signer, err := ssh.LoadOrCreateKey(key)
	must(t, err)
	now := time.Now()
	cert, err := g.authority.Sign(signer.PublicKey(), "lease-1", "local-3.2", now.Add(-time.Minute), now.Add(time.Hour))
	must(t, err)
	must(t, os.WriteFile(key+"-cert.pub", []byte(ssh.Line(cert)+"\n"), 0o600))
	known := filepath.Join(dir, "known_hosts")
	must(t, os.WriteFile(known, []byte("["+g.Host+"]:"+strconv.Itoa(g.Port)+" "+g.HostKey+"\n"), 0o600))
	return []string{
		"-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-i", key,
		"-o", "UserKnownHostsFile=" + known, "-o", "StrictHostKeyChecking=yes", "-o", "LogLevel=ERROR",
	}
}
