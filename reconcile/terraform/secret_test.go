package terraform

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVariablesAreSecretByDeclarationAndByName(t *testing.T) {
	mod := declared{variables: map[string]declaredVariable{"license": {sensitive: true}, "image": {}}}
	vars := map[string]json.RawMessage{
		"license": json.RawMessage(`{"a":["s3cret\"x"],"b":"abc"}`), "image": json.RawMessage(`"debian"`),
		"API-Key": json.RawMessage(`"key-of-the-api"`), "db": json.RawMessage(`{"user":"root","admin":[{"db_password":"hunter2"}],"pin_token":12345678,"pass":"xyzzy"}`),
		"token_ttl": json.RawMessage(`3600`), "compass": json.RawMessage(`"north"`),
	}
	got := redactor(secretsOf(mod, vars)).Replace(`debian s3cret"x s3cret\"x abc key-of-the-api root hunter2 12345678 3600 north xyzzy`)
	if diff := cmp.Diff("debian (sensitive) (sensitive) abc (sensitive) root (sensitive) (sensitive) 3600 north (sensitive)", got); diff != "" {
		t.Error(diff)
	}
}

func TestASecretIsFoundInTheFormsThatModulesGiveIt(t *testing.T) {
	script := "#!/bin/sh\necho \"hunter2 <&>\"\nexit 0\n"
	redact := redactor([]string{script, "p@ss/w%rd", "hunter2\n"})
	for name, text := range map[string]string{
		"as it is":               script,
		"trimmed":                strings.TrimSpace(script),
		"indented":               strings.ReplaceAll(script, "\n", "\n      "),
		"in JSON":                `{"script":"#!/bin/sh\necho \"hunter2 \u003c\u0026\u003e\"\nexit 0\n"}`,
		"in JSON in JSON":        `{"doc":"{\"script\":\"#!/bin/sh\\necho \\\"hunter2 \\u003c\\u0026\\u003e\\\"\\nexit 0\\n\"}"}`,
		"quoted":                 `"echo \"hunter2 <&>\""`,
		"in base64":              "IyEvYmluL3NoCmVjaG8gImh1bnRlcjIgPCY+IgpleGl0IDAK",
		"in a URL":               "postgres://root:p%40ss%2Fw%25rd@host",
		"trimmed, and only that": "it is hunter2",
	} {
		got := redact.Replace(text)
		for _, part := range []string{"hunter2", "w%rd", "w%25rd", "aHVudGVy", "ImVjaG8", "IyEv"} {
			if strings.Contains(got, part) {
				t.Errorf("%s: %s", name, got)
			}
		}
	}
}

func TestPrivateKeysAreSecretWhereverTheyStand(t *testing.T) {
	key := "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
	inJSON, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"a " + key + "b":                          "a (sensitive)\nb",
		`{"k":` + string(inJSON) + `}`:            `{"k":"(sensitive)\n"}`,
		"cut off " + key[:50]:                     "cut off (sensitive)",
		strings.ReplaceAll(key, "OPENSSH ", ""):   "(sensitive)\n",
		"-----BEGIN PUBLIC KEY-----\nAAAA\n-----": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----",
	} {
		if got := redactor(nil).Replace(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestAKeyIsSecretBesideAKnownOne(t *testing.T) {
	known := "-----BEGIN PRIVATE KEY-----\nAAAAAAAA\n-----END PRIVATE KEY-----\n"
	got := redactor([]string{known}).Replace("a " + strings.ReplaceAll(known, "AAAAAAAA", "BBBBBBBB") + "b")
	if got != "a (sensitive)\nb" {
		t.Error(got)
	}
}

func TestShortSecretsShredNothing(t *testing.T) {
	if got := redactor([]string{"a", "abc", "", "\n"}).Replace("abc of a"); got != "abc of a" {
		t.Error(got)
	}
}
