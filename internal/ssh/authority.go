package ssh

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	cryptossh "golang.org/x/crypto/ssh"
)

// Certificate is an OpenSSH user certificate.
type Certificate = cryptossh.Certificate

// Authority signs the short-lived user certificates that leases hand out. Guests are born with
// its AuthorityLine among their authorized keys, so that no guest needs to hear of a lease.
type Authority struct {
	Key Signer
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Sign certifies that pub may log in as principal, "<guest>.<incarnation>", in [from, until).
// keyID names the holder in the guest's log. The serial is the moment of signing in Unix
// nanoseconds, so that a guest that is reset can refuse every certificate signed before.
//
// Format: OpenSSH PROTOCOL.certkeys.
func (a Authority) Sign(pub PublicKey, keyID, principal string, from, until time.Time) (*Certificate, error) {
	switch _, isCert := pub.(*Certificate); {
	case isCert:
		return nil, errors.New("the public key is a certificate itself; send the plain key")
	case principal == "":
		return nil, errors.New("a certificate needs a principal: <guest>.<incarnation>")
	case !until.After(from):
		return nil, fmt.Errorf("the certificate would end (%s) before it begins (%s)", until, from)
	}
	cert := &Certificate{
		Key:             pub,
		Serial:          uint64(a.now().UnixNano()),
		CertType:        cryptossh.UserCert,
		KeyId:           keyID,
		ValidPrincipals: []string{principal},
		ValidAfter:      uint64(from.Unix()),
		ValidBefore:     uint64(until.Unix()),
		Permissions:     cryptossh.Permissions{Extensions: map[string]string{"permit-pty": ""}},
	}
	if err := cert.SignCert(rand.Reader, a.Key); err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	return cert, nil
}

func (a Authority) now() time.Time {
	if a.Now != nil {
		return a.Now()
	}
	return time.Now()
}

// AuthorityLine is the line that makes a guest trust the authority's certificates; see
// cert-authority in sshd(8).
func AuthorityLine(authority Signer) string {
	return "cert-authority " + Line(authority.PublicKey())
}

// Line renders a public key or certificate as one line of authorized_keys format.
func Line(key PublicKey) string {
	return strings.TrimSpace(string(cryptossh.MarshalAuthorizedKey(key)))
}

// NewEphemeral makes an ed25519 key that is never written down, and its authorized_keys line.
func NewEphemeral() (Signer, string, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, "", fmt.Errorf("make a key: %w", err)
	}
	signer, err := cryptossh.NewSignerFromKey(private)
	if err != nil {
		return nil, "", fmt.Errorf("make a key: %w", err)
	}
	return signer, Line(signer.PublicKey()), nil
}

// CertSigner logs in with key and the certificate made for it, given as one line.
func CertSigner(cert string, key Signer) (Signer, error) {
	pub, _, _, _, err := cryptossh.ParseAuthorizedKey([]byte(cert))
	if err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	certificate, ok := pub.(*Certificate)
	if !ok {
		return nil, fmt.Errorf("expected a certificate, found a plain %s key", pub.Type())
	}
	return cryptossh.NewCertSigner(certificate, key)
}

// LoadOrCreateKey reads the private key at path, and makes an ed25519 one (mode 0600) when there
// is none. Of several callers at once all get the same key. A file that others may read is refused.
func LoadOrCreateKey(path string) (Signer, error) {
	signer, err := loadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return signer, err
	}
	if err := createKey(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create key %s: %w", path, err)
	}
	return loadKey(path)
}

func loadKey(path string) (Signer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("key %s has mode %04o and others may read it: chmod 600 it, or replace it if they did", path, mode)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	signer, err := cryptossh.ParsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("key %s is no OpenSSH private key: %w", path, err)
	}
	return signer, nil
}

// createKey writes the key under another name and links it, which fails where a key already is.
func createKey(path string) error {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := cryptossh.MarshalPrivateKey(private, "greenroom")
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".key-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := pem.Encode(file, block); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return os.Link(file.Name(), path)
}
