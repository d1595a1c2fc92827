package terraform

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// sensitive stands where a secret was.
const sensitive = "(sensitive)"

// secretNames are the words by which people name secrets, whatever a module declares.
var secretNames = regexp.MustCompile(`(?i)passw|passphrase|secret|token|credential|kubeconfig|` +
	`(api|access|private|encryption|signing)[-_. ]?key|(user|custom)[-_. ]?data|(^|[^a-z])(pass|pwd)([^a-z]|$)`)

func secretName(name string) bool { return secretNames.MatchString(name) }

// secretsOf collects what must never be kept of a pool's variables: the strings in those that the
// module declares sensitive, and in those that are named like a secret, at any depth.
func secretsOf(mod declared, variables map[string]json.RawMessage) []string {
	var found []string
	for name, raw := range variables {
		found = append(found, secretsIn(decoded(raw), nil, mod.variables[name].sensitive || secretName(name))...)
	}
	return found
}

// decoded is a JSON value with its numbers as they are written; nil when it is none.
func decoded(raw []byte) (v any) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	_ = d.Decode(&v)
	return v
}

// secretsIn collects the strings in a value that its mask marks, or the name of a key above them, and
// the passwords of URLs. Long numbers count as well; short ones would shred every text.
func secretsIn(v, mask any, secret bool) []string {
	var found []string
	secret = secret || mask == true
	switch v := v.(type) {
	case string:
		if secret {
			found = append(found, v)
		}
		for _, match := range urlPassword.FindAllStringSubmatch(v, -1) {
			found = append(found, match[2])
		}
	case json.Number:
		if secret && len(v) >= 6 {
			found = append(found, v.String())
		}
	case []any:
		for i, e := range v {
			found = append(found, secretsIn(e, at(mask, i), secret)...)
		}
	case map[string]any:
		for key, e := range v {
			found = append(found, secretsIn(e, at(mask, key), secret || secretName(key))...)
		}
	}
	return found
}

// redaction takes secrets out of texts. The nil one takes nothing.
type redaction struct{ known *strings.Replacer }

// privateKey is a key in PEM, also one whose end is cut off and one that stands in a JSON string.
var privateKey = regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|$)`)

// urlPassword is the password in a URL, such as that of a database.
var urlPassword = regexp.MustCompile(`(://[^/\s:@"]*:)([^/\s@"]+)@`)

func (r *redaction) Replace(text string) string {
	if r == nil {
		return text
	}
	// First the keys: the first line of one may be known as that of another.
	text = r.known.Replace(privateKey.ReplaceAllLiteralString(text, sensitive))
	return urlPassword.ReplaceAllString(text, "${1}"+sensitive+"@")
}

const (
	minSecret = 4 // bytes; shorter ones would shred every text
	minLine   = 8 // bytes of a line of a secret that has several
	maxByLine = 64 << 10
)

// redactor replaces secrets by "(sensitive)": whole, trimmed, line by line (for a module may indent
// a script) and in the forms that modules bring them into.
func redactor(secrets []string) *redaction {
	forms := map[string]bool{}
	for _, s := range secrets {
		addForms(forms, s, minSecret)
		addForms(forms, strings.TrimSpace(s), minSecret)
		if len(s) > maxByLine {
			continue
		}
		for line := range strings.Lines(s) {
			addForms(forms, strings.TrimSpace(line), minLine)
		}
	}
	var pairs []string
	for _, form := range slices.SortedFunc(maps.Keys(forms), longestFirst) {
		pairs = append(pairs, form, sensitive)
	}
	return &redaction{known: strings.NewReplacer(pairs...)}
}

func longestFirst(a, b string) int {
	return cmp.Or(cmp.Compare(len(b), len(a)), strings.Compare(a, b))
}

func unquoted(text string) string { return text[1 : len(text)-1] }

// addForms adds a secret as it is, in base64, in a URL, quoted, and as a JSON string in up to one other.
func addForms(forms map[string]bool, secret string, least int) {
	if len(secret) < least {
		return
	}
	forms[secret] = true
	forms[base64.StdEncoding.EncodeToString([]byte(secret))] = true
	forms[url.QueryEscape(secret)] = true
	forms[unquoted(strconv.Quote(secret))] = true
	for range 2 {
		raw, err := json.Marshal(secret)
		if err != nil {
			return
		}
		secret = unquoted(string(raw))
		forms[secret] = true
	}
}
