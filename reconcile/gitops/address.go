package gitops

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"
)

// address is a source, taken apart.
type address struct {
	Dir    string // absolute, of a directory; all else is empty then
	Scheme string // https, http, ssh or file
	Repo   string // the repository, as the transport dials it
	Path   string // of the specs in the repository; "." is its top
	Ref    string // that is followed; empty: the branch that the repository calls HEAD
}

// scpForm is how ssh names a repository in short: git@host:org/fleet.git.
var scpForm = regexp.MustCompile(`^[A-Za-z0-9._-]+@([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\]):/?[^:/]`)

var errNoRepository = errors.New("the source of specs names no repository; " + addressForms)

const addressForms = "write a directory, or a repository as https://host/org/fleet.git//path?ref=main, ssh://git@host/org/fleet.git//path, " +
	"git@host:org/fleet.git//path or file:///srv/fleet.git//path"

// parseAddress never repeats what it was given in an error: there may be a password in it.
func parseAddress(source string) (address, error) {
	if source == "" || !utf8.ValidString(source) || strings.ContainsFunc(source, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return address{}, errors.New("the source of specs is empty, or is no text; " + addressForms)
	}
	scp := scpForm.MatchString(source) && !strings.Contains(source, "://")
	if !scp && !strings.Contains(source, "://") {
		dir, err := filepath.Abs(source)
		return address{Dir: dir}, err
	}
	if strings.Contains(source, "#") {
		return address{}, errors.New(`the source of specs has a "#"; name a branch, tag or commit with ?ref=`)
	}
	rest, query, _ := strings.Cut(source, "?")
	var a address
	var err error
	if scp {
		a.Scheme = "ssh"
		a.Repo, a.Path = splitPath(rest)
	} else if a, err = parseURL(rest); err != nil {
		return address{}, err
	}
	if a.Path, err = checkPath(a.Path); err != nil {
		return address{}, err
	}
	a.Ref, err = parseQuery(query)
	return a, err
}

func parseURL(text string) (address, error) {
	u, err := url.Parse(text)
	if err != nil {
		return address{}, errors.New("the source of specs is no URL; " + addressForms)
	}
	a := address{Scheme: u.Scheme}
	_, password := u.User.Password()
	switch {
	case password, u.User != nil && u.Scheme != "ssh":
		return address{}, errors.New("the source of specs has credentials in its URL, where they would be shown and logged; " +
			"take them out, and give a token with --specs-token-file or GREENROOM_SPECS_TOKEN, or a key with --specs-key-file")
	case u.Scheme != "https" && u.Scheme != "http" && u.Scheme != "ssh" && u.Scheme != "file":
		return address{}, fmt.Errorf("the source of specs begins with %q; %s", u.Scheme+"://", addressForms)
	case u.Scheme == "file" && u.Host != "" && u.Host != "localhost":
		return address{}, errors.New("a file:// source is on this machine: write file:///absolute/path")
	case u.Scheme != "file" && u.Hostname() == "":
		return address{}, errors.New("the source of specs has no host; " + addressForms)
	}
	if u.Scheme == "file" {
		u.Host = ""
	}
	u.Path, a.Path = splitPath(u.Path)
	u.RawPath = ""
	if strings.Trim(u.Path, "/") == "" {
		return address{}, errNoRepository
	}
	a.Repo = u.String()
	return a, nil
}

// splitPath tells the repository from the path in it, which begins at the first double slash.
func splitPath(p string) (repo, sub string) {
	repo, sub, found := strings.Cut(p, "//")
	if !found {
		sub = "."
	}
	return repo, sub
}

func checkPath(p string) (string, error) {
	clean := path.Clean(p)
	if !fs.ValidPath(clean) || slices.Contains(strings.Split(p, "/"), "..") || strings.ContainsAny(p, `\?#%`) || strings.ContainsFunc(p, unicode.IsControl) {
		return "", errors.New(`the path of the specs within the repository must be relative, without "..", backslashes and the signs ?, # and %`)
	}
	return clean, nil
}

func parseQuery(query string) (ref string, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", errors.New("what follows the ? in the source of specs can't be read; write ?ref=BRANCH")
	}
	for name, given := range values {
		if name != "ref" || len(given) != 1 {
			return "", errors.New("the only parameter in a source of specs is ref, once; credentials never stand in it")
		}
	}
	if ref = values.Get("ref"); ref == "" {
		return "", nil
	}
	return ref, checkRef(ref)
}

// checkRef refuses what can't be the name of a branch, a tag or a commit.
func checkRef(ref string) error {
	full := ref
	if !strings.HasPrefix(ref, "refs/") {
		full = "refs/heads/" + ref
	}
	if len(ref) > maxRef || !utf8.ValidString(ref) || strings.HasPrefix(ref, "-") || plumbing.ReferenceName(full).Validate() != nil {
		return fmt.Errorf("%.60q is no name of a branch, a tag or a commit", ref)
	}
	return nil
}

func (a address) isDir() bool { return a.Dir != "" }

// String is the source for people. There is nothing secret in it, because parseAddress lets nothing secret in.
func (a address) String() string {
	if a.isDir() {
		return a.Dir
	}
	text := a.Repo
	if a.Path != "." {
		text += "//" + a.Path
	}
	if a.Ref != "" {
		text += "?ref=" + url.QueryEscape(a.Ref)
	}
	return text
}

// isLoopback tells a host on this machine, to which a token may go in the clear.
func (a address) isLoopback() bool {
	u, err := url.Parse(a.Repo)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}
