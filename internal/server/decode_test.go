package server

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"greenroom/lease/client"
)

func TestAFaultInABodyIsNamedByItsPathWithWhatWasFoundAndWhatIsAllowed(t *testing.T) {
	for name, test := range map[string]struct {
		body string
		into any
		want string
	}{
		"a value of an object":     {`{"at_least": {"cpus": "2"}}`, new(client.Request), `at_least.cpus is the string "2", want a number`},
		"the object itself":        {`{"at_least": "x"}`, new(client.Request), `at_least is the string "x", want an object`},
		"a number for text":        {`{"labels": {"arch": "arm64", "os": 12}}`, new(client.Request), "labels.os is the number 12, want a string"},
		"a number beyond all":      {`{"at_least": {"cpus": 1e999}}`, new(client.Request), "at_least.cpus is too large a number, 1e999, want a number"},
		"a duration as a number":   {`{"ttl": 30}`, new(client.Request), `ttl is the number 30, want a duration such as "30m"`},
		"a duration in words":      {`{"cache": "ci", "wait": "soon"}`, new(client.Request), `wait is the string "soon", want a duration such as "30m"`},
		"a truth for a duration":   {`{"wait": true}`, new(client.Request), `wait is true, want a duration such as "30m"`},
		"a time in words":          {`{"until": "noon"}`, new(client.Toggle), `until is the string "noon", want a time such as "2026-01-31T12:00:00Z"`},
		"text for a truth":         {`{"shelve": "no"}`, new(client.Release), `shelve is the string "no", want true or false`},
		"an element of a list":     {`{"pools": ["local", {}]}`, new(client.Reconcile), "pools[1] is an object, want a string"},
		"text for a list":          {`{"pools": "local"}`, new(client.Reconcile), `pools is the string "local", want a list`},
		"a list for text":          {`{"cache": []}`, new(client.Request), "cache is a list, want a string"},
		"in capitals":              {`{"CACHE": 1}`, new(client.Request), "CACHE is the number 1, want a string"},
		"an unknown field":         {`{"gone": 1}`, new(client.Toggle), `the field "gone" is unknown here; there are for, until, reason`},
		"a field where none is":    {`{"gone": 1}`, new(none), `the field "gone" is unknown here; this call takes none`},
		"a field of a plan's body": {`{"reef": "main"}`, new(newPlan), `the field "reef" is unknown here; there are ref`},
	} {
		t.Run(name, func(t *testing.T) {
			if err := decode([]byte(test.body), test.into); err == nil || err.Error() != test.want {
				t.Errorf("%s is refused with\n%v, want\n%s", test.body, err, test.want)
			}
		})
	}
}

// Whatever is read the short way is read alike the long way: the bodies of every day, and those with a byte less, more or other.
func TestAPlainBodyIsReadAsEncodingJSONDoes(t *testing.T) {
	for _, body := range []string{
		`{"cache":"ci"}`, `{"cache":"ci","ttl":"30m","wait":"0s"}`, `{"public_key":"ssh-ed25519 A= me"}`, `{"cache":"a","cache":"<b>"}`,
		`{"outcome":"pass"}`, `{"outcome":"fail","hold":"4h"}`,
	} {
		if !decodePlain([]byte(body), new(client.Request)) && !decodePlain([]byte(body), new(client.Release)) {
			t.Errorf("%s is not taken for plain", body)
		}
		for at := range len(body) + 1 {
			readAlike(t, body[:at])
			for b := range 256 {
				other := string([]byte{byte(b)})
				readAlike(t, body[:at]+other+body[at:])
				readAlike(t, body[:at]+other+body[min(at+1, len(body)):])
				readAlike(t, body[:at]+`\`+other+body[at:])
			}
		}
	}
	for _, value := range []string{`""`, `"-1s"`, `"1e3s"`, `" 5s"`, `"\u0031s"`, `"µ"`, `null`, `1`, `true`, `{}`, `[]`, ``} {
		for _, name := range []string{"cache", "Cache", "ttl", "wait", "public_key", "labels", "key", "outcome", "hold", "shelve", ""} {
			readAlike(t, `{"`+name+`":`+value+`}`)
			readAlike(t, `{"wait":"1s","`+name+`":`+value+`}`)
			readAlike(t, `{"`+name+`":`+value+`,"hold":"1s"}`)
		}
	}
}

func readAlike(t *testing.T, body string) {
	t.Helper()
	for _, into := range [][2]any{{new(client.Request), new(client.Request)}, {new(client.Release), new(client.Release)}} {
		plain, untouched := decodePlain([]byte(body), into[0]), cmp.Diff(into[1], into[0]) == ""
		if !plain && untouched {
			continue
		}
		err := decodeAny([]byte(body), into[1])
		if diff := cmp.Diff(into[1], into[0]); !plain || err != nil || diff != "" {
			t.Errorf("%q is read the short way (%v), and encoding/json says %v (-encoding/json +plain):\n%s", body, plain, err, diff)
		}
	}
}
