package session

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"greenroom/internal/ssh"
	"greenroom/lease/client"
)

// Files are what OpenSSH needs to enter the guest, in a directory (0700) that goes with Remove: a key, its certificate, the
// guest's host key, and a configuration that names them, in which the guest is called "guest".
type Files struct{ dir string }

// NewFiles makes the directory with a fresh key.
func NewFiles() (*Files, ssh.Signer, error) {
	dir, err := os.MkdirTemp("", "greenroom-")
	if err != nil {
		return nil, nil, err
	}
	f := &Files{dir}
	key, err := ssh.LoadOrCreateKey(f.path("key"))
	if err != nil {
		return nil, nil, errors.Join(err, f.Remove())
	}
	return f, key, nil
}

func (f *Files) path(name string) string { return filepath.Join(f.dir, name) }

// Config is the file for "ssh -F".
func (f *Files) Config() string { return f.path("config") }

// Remove takes everything away.
func (f *Files) Remove() error { return os.RemoveAll(f.dir) }

// Write fills the directory for a lease.
func (f *Files) Write(l client.Lease) error {
	g := l.Guest
	config := fmt.Sprintf(`Host guest %s
  HostName %s
  Port %d
  User %s
  HostKeyAlias %s
  IdentityFile %s
  CertificateFile %s
  IdentitiesOnly yes
  UserKnownHostsFile %s
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
`, g.Name, g.Host, g.Port, g.User, g.Name, strconv.Quote(f.path("key")), strconv.Quote(f.path("key-cert.pub")), strconv.Quote(f.path("known_hosts")))
	return errors.Join(
		f.Certify(l),
		os.WriteFile(f.path("known_hosts"), []byte(g.Name+" "+g.HostKey+"\n"), 0o600),
		os.WriteFile(f.Config(), []byte(config), 0o600),
	)
}

// Certify swaps the certificate for that of a renewal, so that a login at any moment finds a whole one.
func (f *Files) Certify(l client.Lease) error {
	next := f.path("next-cert.pub")
	if err := os.WriteFile(next, []byte(l.Certificate+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(next, f.path("key-cert.pub"))
}

// Environ is what a program that uses the guest is told.
func (f *Files) Environ(l client.Lease) []string {
	return []string{
		"GREENROOM_LEASE=" + l.ID, "GREENROOM_GUEST=" + l.Guest.Name, "GREENROOM_HOST=" + l.Guest.Host,
		"GREENROOM_PORT=" + strconv.Itoa(l.Guest.Port), "GREENROOM_USER=" + l.Guest.User, "GREENROOM_SSH_CONFIG=" + f.Config(),
	}
}
