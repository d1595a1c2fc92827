package guestd

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	cryptossh "golang.org/x/crypto/ssh"
)

const (
	maxKeys = 1000
	// plainExtension marks a login by a plain authorized key; no certificate can carry it, since
	// only permit-pty is taken over from one.
	plainExtension = "greenroom-plain-key"
	ptyExtension   = "permit-pty"
)

// keyring is whom a guest lets in.
type keyring struct {
	plain       []cryptossh.PublicKey
	authorities []cryptossh.PublicKey
}

// parseKeys reads lines of authorized_keys format (sshd(8)); empty lines and comments are skipped.
// Options that restrict a key are refused rather than ignored.
func parseKeys(lines []string) (keyring, error) {
	var ring keyring
	if len(lines) > maxKeys {
		return ring, fmt.Errorf("%d authorized keys: at most %d are allowed", len(lines), maxKeys)
	}
	for i, line := range lines {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := ring.add(line); err != nil {
			return keyring{}, fmt.Errorf("authorized key %d: %w", i+1, err)
		}
	}
	return ring, nil
}

func (r *keyring) add(line string) error {
	if strings.ContainsAny(line, "\r\n") {
		return errors.New("it has more than one line")
	}
	key, _, options, _, err := cryptossh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return fmt.Errorf("it is no line of authorized_keys format: %w", err)
	}
	if _, isCert := key.(*cryptossh.Certificate); isCert {
		return errors.New("it is a certificate; give its plain key, or the authority's with the option cert-authority")
	}
	switch {
	case len(options) == 0:
		r.plain = append(r.plain, key)
	case len(options) == 1 && strings.EqualFold(options[0], "cert-authority"):
		r.authorities = append(r.authorities, key)
	default:
		return fmt.Errorf("options %q: the one option allowed is cert-authority", strings.Join(options, ","))
	}
	return nil
}

func contains(keys []cryptossh.PublicKey, key cryptossh.PublicKey) bool {
	return slices.ContainsFunc(keys, func(k cryptossh.PublicKey) bool {
		return bytes.Equal(k.Marshal(), key.Marshal())
	})
}

// doorkeeper decides about logins.
type doorkeeper struct {
	ring      keyring
	user      string
	principal string
	// barred is the time of the last reset in Unix nanoseconds: certificates with an earlier
	// serial belong to a lease that is over. Serial 0, which says nothing, is let pass.
	barred atomic.Uint64
}

func (d *doorkeeper) resetSince(t time.Time) bool { return uint64(t.UnixNano()) < d.barred.Load() }

// admit is the server's PublicKeyCallback. x/crypto asks for the proof of possession after it.
func (d *doorkeeper) admit(conn cryptossh.ConnMetadata, key cryptossh.PublicKey) (*cryptossh.Permissions, error) {
	if conn.User() != d.user {
		return nil, fmt.Errorf("user %q: the guest's user is %q", conn.User(), d.user)
	}
	cert, isCert := key.(*cryptossh.Certificate)
	if isCert {
		return d.admitCert(cert)
	}
	if !contains(d.ring.plain, key) {
		return nil, fmt.Errorf("key %s is not authorized", cryptossh.FingerprintSHA256(key))
	}
	return &cryptossh.Permissions{Extensions: map[string]string{plainExtension: "", ptyExtension: ""}}, nil
}

func (d *doorkeeper) admitCert(cert *cryptossh.Certificate) (*cryptossh.Permissions, error) {
	switch {
	case cert.CertType != cryptossh.UserCert:
		return nil, errors.New("the certificate is not a user's")
	case !contains(d.ring.authorities, cert.SignatureKey):
		return nil, fmt.Errorf("the certificate's authority %s is not trusted", cryptossh.FingerprintSHA256(cert.SignatureKey))
	case !slices.Contains(cert.ValidPrincipals, d.principal):
		return nil, fmt.Errorf("the certificate is for %q, this guest is %q", cert.ValidPrincipals, d.principal)
	case cert.Serial != 0 && cert.Serial < d.barred.Load():
		return nil, errors.New("the certificate belongs to a lease that is over: it was signed before the guest's last reset")
	}
	checker := &cryptossh.CertChecker{Clock: time.Now}
	if err := checker.CheckCert(d.principal, cert); err != nil {
		return nil, err
	}
	extensions := map[string]string{}
	if _, may := cert.Extensions[ptyExtension]; may {
		extensions[ptyExtension] = ""
	}
	return &cryptossh.Permissions{Extensions: extensions}, nil
}
