package server

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"greenroom/internal/atomicfile"
	"greenroom/lease"
	"greenroom/lease/client"
)

var (
	errUnknownToken = errors.New("unknown token")
	errLastAdmin    = errors.New("this is the last token of an admin")
)

// adminFile has the secret of the first admin token, for the CLI.
const adminFile = "admin.token"

// maxTokens bounds the file, and the time that one look-up takes.
const maxTokens = 10000

// token is one entry of tokens.json. The secret itself is kept nowhere.
type token struct {
	client.Token
	Hash string `json:"hash"` // SHA-256 of the secret, hexadecimal
	sum  []byte // what Hash says
}

// Tokens are the bearer tokens of one server, in <state>/tokens.json (0600). A secret is 130 random bits, so that its
// plain hash can't be searched.
type Tokens struct {
	path string
	now  func() time.Time

	mu   sync.RWMutex
	list []token
}

// OpenTokens reads the tokens in dir. Where there are none yet it makes the first admin token and leaves its secret in
// <dir>/admin.token (0600) for the CLI.
func OpenTokens(dir string, now func() time.Time) (*Tokens, error) {
	t := &Tokens{path: filepath.Join(dir, "tokens.json"), now: now}
	body, err := os.ReadFile(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, t.first(filepath.Join(dir, adminFile))
	}
	var list []token
	if err == nil {
		err = json.Unmarshal(body, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("read the API tokens in %s: %w", t.path, err)
	}
	t.keep(list)
	return t, nil
}

// keep puts a list in force.
func (t *Tokens) keep(list []token) {
	for i := range list {
		if sum, err := hex.DecodeString(list[i].Hash); err == nil { // what is no hash is no secret's
			list[i].sum = sum
		}
	}
	t.list = list
}

// first writes the secret before the hash: a crash in between makes the next start do both again.
func (t *Tokens) first(path string) error {
	made, secret := t.mint(client.NewToken{Name: "admin", Owner: adminOwner, Role: lease.Admin})
	if err := writeSecret(path, []byte(secret+"\n")); err != nil {
		return fmt.Errorf("write the admin token: %w", err)
	}
	return t.save([]token{made})
}

func (t *Tokens) mint(n client.NewToken) (token, string) {
	secret := "gr_" + rand.Text()
	made := token{Hash: hashOf(secret), Token: client.Token{
		ID: rand.Text()[:8], Name: n.Name, Owner: n.Owner, Role: n.Role, Created: t.now().UTC().Truncate(time.Second),
	}}
	if n.For > 0 {
		made.Expires = made.Created.Add(time.Duration(n.For))
	}
	return made, secret
}

func hashOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// Lookup tells whose token secret is. It compares with every entry, each in constant time.
func (t *Tokens) Lookup(secret string) (lease.Caller, bool) {
	sum, now := sha256.Sum256([]byte(secret)), t.now()
	t.mu.RLock()
	defer t.mu.RUnlock()
	var who lease.Caller
	found := false
	for i := range t.list {
		entry := &t.list[i]
		same := subtle.ConstantTimeCompare(sum[:], entry.sum) == 1
		if same && (entry.Expires.IsZero() || now.Before(entry.Expires)) {
			who, found = lease.Caller{Name: entry.Name, Owner: entry.Owner, Role: entry.Role}, true
		}
	}
	return who, found
}

var tokenName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}$`)

// Create makes a token; its secret is in the result and nowhere else. Errors: lease.ErrInvalid.
func (t *Tokens) Create(n client.NewToken) (client.Token, error) {
	if n.Role == lease.Admin {
		n.Owner = cmp.Or(n.Owner, adminOwner)
	}
	switch {
	case n.Role != lease.User && n.Role != lease.Admin:
		return client.Token{}, fmt.Errorf("%w: role %.20q, want user or admin", lease.ErrInvalid, n.Role)
	case !tokenName.MatchString(n.Name):
		return client.Token{}, fmt.Errorf("%w: name %.80q, want 1 to 64 letters, digits and _ . @ -", lease.ErrInvalid, n.Name)
	case !tokenName.MatchString(n.Owner):
		return client.Token{}, fmt.Errorf("%w: owner %.80q, want a team's name: 1 to 64 letters, digits and _ . @ -", lease.ErrInvalid, n.Owner)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.list) >= maxTokens {
		return client.Token{}, fmt.Errorf("%w: there are %d tokens already; revoke some", lease.ErrInvalid, len(t.list))
	}
	made, secret := t.mint(n)
	if err := t.save(append(slices.Clone(t.list), made)); err != nil {
		return client.Token{}, err
	}
	out := made.Token
	out.Secret = secret
	return out, nil
}

// List returns every token without its secret.
func (t *Tokens) List() []client.Token {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]client.Token, len(t.list))
	for i, entry := range t.list {
		out[i] = entry.Token
	}
	return out
}

// Revoke ends a token by its id, and removes admin.token when it holds that token's secret. The last admin token stays.
func (t *Tokens) Revoke(id string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.list, func(e token) bool { return e.ID == id })
	if i < 0 {
		return fmt.Errorf("%w: there is none with the id %.40q; see \"greenroom token list\"", errUnknownToken, id)
	}
	gone, rest := t.list[i], slices.Delete(slices.Clone(t.list), i, i+1)
	if t.admin(gone) && !slices.ContainsFunc(rest, t.admin) {
		return fmt.Errorf("%w: create another first, or nobody could call over the network as one", errLastAdmin)
	}
	if err := t.save(rest); err != nil {
		return err
	}
	return t.forget(gone)
}

// admin tells whether an entry is an admin's and in force.
func (t *Tokens) admin(e token) bool {
	return e.Role == lease.Admin && (e.Expires.IsZero() || t.now().Before(e.Expires))
}

// forget removes the file that first wrote, once its token is gone.
func (t *Tokens) forget(gone token) error {
	path := filepath.Join(filepath.Dir(t.path), adminFile)
	secret, err := os.ReadFile(path)
	if err == nil && hashOf(strings.TrimSpace(string(secret))) == gone.Hash {
		err = os.Remove(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the revoked token from %s: %w", path, err)
	}
	return nil
}

// save changes the file first, so that no token is in force that a restart would not know, and none comes back that was revoked.
func (t *Tokens) save(list []token) error {
	body, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	if err := writeSecret(t.path, append(body, '\n')); err != nil {
		return fmt.Errorf("write the API tokens: %w", err)
	}
	t.keep(list)
	return nil
}

// writeSecret replaces a file that only its owner may read, all of it or nothing, and returns when the disk has it.
func writeSecret(path string, body []byte) error { return atomicfile.Write(path, body) }
