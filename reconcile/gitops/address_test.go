package gitops

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestASourceIsADirectoryOrARepository(t *testing.T) {
	here, err := filepath.Abs(".")
	noError(t, err)
	for source, want := range map[string]address{
		"specs":                                {Dir: filepath.Join(here, "specs")},
		"/etc/fleet":                           {Dir: "/etc/fleet"},
		"a:b":                                  {Dir: filepath.Join(here, "a:b")},
		"https://host/org/fleet.git":           {Scheme: "https", Repo: "https://host/org/fleet.git", Path: "."},
		"https://host/org/fleet.git//a/b/":     {Scheme: "https", Repo: "https://host/org/fleet.git", Path: "a/b"},
		"https://host:8443/f.git//?ref=v1.2":   {Scheme: "https", Repo: "https://host:8443/f.git", Path: ".", Ref: "v1.2"},
		"https://h/f.git//p?ref=refs/pull/1/x": {Scheme: "https", Repo: "https://h/f.git", Path: "p", Ref: "refs/pull/1/x"},
		"http://localhost/f.git":               {Scheme: "http", Repo: "http://localhost/f.git", Path: "."},
		"ssh://git@host:2222/org/f.git//p":     {Scheme: "ssh", Repo: "ssh://git@host:2222/org/f.git", Path: "p"},
		"git@host:org/fleet.git//p?ref=x":      {Scheme: "ssh", Repo: "git@host:org/fleet.git", Path: "p", Ref: "x"},
		"git@host:/srv/fleet.git":              {Scheme: "ssh", Repo: "git@host:/srv/fleet.git", Path: "."},
		"file:///srv/fleet.git//p?ref=x":       {Scheme: "file", Repo: "file:///srv/fleet.git", Path: "p", Ref: "x"},
		"file://localhost/srv/fleet.git":       {Scheme: "file", Repo: "file:///srv/fleet.git", Path: "."},
	} {
		got, err := parseAddress(source)
		if err != nil {
			t.Errorf("%s: %v", source, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", source, d)
		}
		if again, err := parseAddress(got.String()); err != nil || again != got {
			t.Errorf("%s is shown as %s, which is %+v, %v", source, got, again, err)
		}
	}
}

func TestASourceThatCannotBeIsRefusedWithoutItsSecrets(t *testing.T) {
	for source, want := range map[string]string{
		"":                                                "is empty",
		"specs\nx":                                        "is no text",
		"https://ann:s3cret@host/f.git":                   "--specs-token-file",
		"https://s3cret@host/f.git":                       "--specs-token-file",
		"ssh://git:s3cret@host/f.git":                     "--specs-token-file",
		"https://host/f.git?access_token=s3cret":          "the only parameter",
		"https://host/f.git?ref=a&ref=b":                  "the only parameter",
		"https://host/f.git?ref=a&token=s3cret":           "the only parameter",
		"https://host/f.git?ref=%zz":                      "can't be read",
		"https://host/f.git#s3cret":                       "?ref=",
		"https://host":                                    "names no repository",
		"https://host//p":                                 "names no repository",
		"https:///f.git":                                  "has no host",
		"https://ho st/s3cret":                            "is no URL",
		"git://host/f.git":                                `"git://"`,
		"ftp://ann:s3cret@host/f.git":                     "credentials",
		"s3://bucket/f.git":                               `"s3://"`,
		"file://host/f.git":                               "on this machine",
		"https://host/f.git//../x":                        `without "..",`,
		"https://host/f.git//a/../../x":                   `without "..",`,
		"https://host/f.git//%2e%2e/x":                    `without "..",`,
		`https://host/f.git//a\b`:                         "",
		"https://host/f.git///etc":                        "must be relative",
		"git@host:f.git//../x":                            `without "..",`,
		"https://host/f.git?ref=a..b":                     "is no name",
		"https://host/f.git?ref=-x":                       "is no name",
		"https://host/f.git?ref=a%20b":                    "is no name",
		"https://host/f.git?ref=refs/heads/x:y":           "is no name",
		"https://h/f.git?ref=" + strings.Repeat("x", 300): "is no name",
	} {
		_, err := Open(Options{Source: source, StateDir: "/state"})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", source, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: the error has the secret: %v", source, err)
		}
	}
}

func TestCredentialsThatDoNotGoWithTheSourceAreRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	write(t, file, "secret\n")
	empty := filepath.Join(t.TempDir(), "empty")
	write(t, empty, "\n")
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"a token for a directory":        {Options{Source: "specs", TokenFile: file}, "https://"},
		"a token for ssh":                {Options{Source: "git@host:f.git", TokenFile: file}, "https://"},
		"a key for https":                {Options{Source: "https://host/f.git", KeyFile: file}, "ssh://"},
		"a token in the clear":           {Options{Source: "http://host/f.git", TokenFile: file}, "in the clear"},
		"ssh without a key":              {Options{Source: "git@host:f.git", KnownHosts: file}, "--specs-key-file"},
		"ssh without known hosts":        {Options{Source: "git@host:f.git", KeyFile: file}, "--specs-known-hosts"},
		"a token file that is not there": {Options{Source: "https://host/f.git", TokenFile: "/nowhere/token"}, "/nowhere/token"},
		"a token file that is empty":     {Options{Source: "https://host/f.git", TokenFile: empty}, "is empty"},
		"a relative state directory":     {Options{Source: "specs", StateDir: "state"}, "absolute"},
	} {
		if c.o.StateDir == "" {
			c.o.StateDir = "/state"
		}
		if _, err := Open(c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for _, o := range []Options{
		{Source: "https://host/f.git", TokenFile: file},
		{Source: "http://127.0.0.1:3000/f.git", TokenFile: file},
		{Source: "git@host:f.git", KeyFile: file, KnownHosts: file},
	} {
		o.StateDir = "/state"
		if _, err := Open(o); err != nil {
			t.Error(err)
		}
	}
}

func FuzzSources(f *testing.F) {
	for _, s := range []string{"specs", "https://h/f.git//p?ref=x", "git@h:o/f.git//p", "file:///f.git", "https://u:p@h/f", "ssh://git@h/f//a/../b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, source string) {
		a, err := parseAddress(source)
		if err != nil || a.isDir() {
			return
		}
		if again, err := parseAddress(a.String()); err != nil || again != a {
			t.Errorf("%q is shown as %q, which is %+v, %v; want %+v", source, a, again, err, a)
		}
		if checked, err := checkPath(a.Path); err != nil || checked != a.Path {
			t.Errorf("%q has the path %q: %v", source, a.Path, err)
		}
	})
}
