package gitops

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"golang.org/x/crypto/ssh"
)

// tokenUser is the name that goes with a token where its file gives none. Forges take any; GitHub documents this one.
const tokenUser = "x-access-token"

const maxSecret = 64 << 10

// credentials are read anew with each look, so that they can be changed while the server runs. Secrets is what must not be shown.
func (t gitTask) credentials() (auth transport.AuthMethod, secrets []string, err error) {
	switch t.Address.Scheme {
	case "https", "http":
		return t.token()
	case "ssh":
		auth, err = t.key()
	}
	return auth, nil, err
}

func (t gitTask) token() (transport.AuthMethod, []string, error) {
	text := os.Getenv(tokenVariable)
	_ = os.Unsetenv(tokenVariable) // no program that is started from here needs it
	if t.TokenFile != "" {
		body, err := readSecret(t.TokenFile)
		if err != nil {
			return nil, nil, fmt.Errorf("the token for the specs: %w", err)
		}
		text = string(body)
	}
	if text = strings.TrimSpace(text); text == "" {
		return nil, nil, nil
	}
	auth := &githttp.BasicAuth{Username: tokenUser, Password: text}
	if user, password, ok := strings.Cut(text, ":"); ok {
		auth.Username, auth.Password = user, password
	}
	return auth, []string{auth.Password, url.QueryEscape(auth.Password), url.PathEscape(auth.Password)}, nil
}

func readSecret(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	body, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch {
	case err != nil:
		return nil, err
	case len(body) > maxSecret:
		return nil, fmt.Errorf("%s is too large for a secret", file)
	case len(bytes.TrimSpace(body)) == 0:
		return nil, fmt.Errorf("%s is empty", file)
	}
	return body, nil
}

// sshKey logs in with one key, at hosts whose keys are known.
type sshKey struct {
	gitssh.PublicKeys
	algorithms func(hostport string) []string
	host       string
}

func (k *sshKey) ClientConfig() (*ssh.ClientConfig, error) {
	config, err := k.PublicKeys.ClientConfig()
	if err != nil {
		return nil, err
	}
	config.HostKeyAlgorithms = k.algorithms(k.host) // else the host may choose a key of a kind that is not on record
	return config, nil
}

func (t gitTask) key() (transport.AuthMethod, error) {
	gitssh.DefaultSSHConfig = nil // what leads to which host is said by the source alone
	body, err := readSecret(t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("the key for the specs: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(body)
	if missing := new(ssh.PassphraseMissingError); errors.As(err, &missing) {
		return nil, fmt.Errorf("the key in %s has a passphrase; make one without, for this server alone", t.KeyFile)
	}
	if err != nil {
		return nil, fmt.Errorf("the key in %s cannot be read: %w", t.KeyFile, err)
	}
	known, err := gitssh.NewKnownHostsDb(t.KnownHosts)
	if err != nil {
		return nil, fmt.Errorf("the known hosts in %s cannot be read: %w", t.KnownHosts, err)
	}
	at, err := transport.NewEndpoint(t.Address.Repo)
	if err != nil {
		return nil, err
	}
	port := at.Port
	if port == 0 {
		port = gitssh.DefaultPort
	}
	user := at.User
	if user == "" {
		user = gitssh.DefaultUsername
	}
	key := &sshKey{host: fmt.Sprintf("%s:%d", at.Host, port), algorithms: known.HostKeyAlgorithms}
	key.User, key.Signer, key.HostKeyCallback = user, signer, known.HostKeyCallback()
	return key, nil
}
