package server

import (
	"testing"

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
