package guestd

import (
	"encoding/json"
	"strings"
	"testing"

	"greenroom/internal/ssh"
)

func TestOptionsThatRestrictAKeyAreRefusedRatherThanIgnored(t *testing.T) {
	_, line, err := ssh.NewEphemeral()
	must(t, err)
	tests := map[string]struct{ line, want string }{
		"a plain key":         {line, ""},
		"a key with comment":  {line + " ci@example.org", ""},
		"a comment":           {"# nothing", ""},
		"an empty line":       {"  ", ""},
		"an authority":        {"cert-authority " + line, ""},
		"a forced command":    {`command="true" ` + line, "the one option allowed"},
		"a bound authority":   {`cert-authority,principals="x" ` + line, "the one option allowed"},
		"two lines":           {line + "\n" + line, "more than one line"},
		"something else":      {"hello", "authorized_keys format"},
		"a truncated key":     {line[:40], "authorized_keys format"},
		"a restricted key":    {"restrict " + line, "the one option allowed"},
		"an unlisted options": {"no-pty,from=\"10.0.0.0/8\" " + line, "the one option allowed"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := parseKeys([]string{test.line})
			if got := errorText(err); (test.want == "") != (got == "") || !strings.Contains(got, test.want) {
				t.Errorf("error %q, want %q", got, test.want)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func FuzzParseKeys(f *testing.F) {
	f.Add("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNX3ujLwpZlZeb56193EjKlvYwqMIkl6lhduvEPhxOq me")
	f.Add("cert-authority ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNX3ujLwpZlZeb56193EjKlvYwqMIkl6lhduvEPhxOq")
	f.Add(`command="a \" b",no-pty ssh-ed25519 AAAA`)
	f.Fuzz(func(t *testing.T, line string) {
		ring, err := parseKeys([]string{line})
		if err != nil {
			return
		}
		if n := len(ring.plain) + len(ring.authorities); n > 1 {
			t.Fatalf("%q made %d keys", line, n)
		}
		for _, key := range ring.plain {
			if again, err := parseKeys([]string{ssh.Line(key)}); err != nil || !contains(again.plain, key) {
				t.Fatalf("%q does not survive being written: %v", line, err)
			}
		}
	})
}

func FuzzParseInfo(f *testing.F) {
	f.Add([]byte(`{"name":"local-1","host":"127.0.0.1","port":22,"pid":77}`))
	f.Add([]byte(`{"name":"local-1","host":"127.0.0.1","port":22,"pid":-1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		info, err := parseInfo(text)
		if err != nil {
			return
		}
		if info.PID < 2 || info.Port < 1 || info.Port > 65535 {
			t.Fatalf("%q was taken for a guest: %+v", text, info)
		}
		if _, err := json.Marshal(info); err != nil {
			t.Fatal(err)
		}
	})
}
