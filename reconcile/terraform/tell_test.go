package terraform

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	tfjson "github.com/hashicorp/terraform-json"
	"pgregory.net/rapid"

	"greenroom/reconcile/plan"
)

// parsed reads JSON as terraform show is read; no text is null.
func parsed(t *testing.T, text string) any {
	t.Helper()
	if text == "" {
		return nil
	}
	v := decoded([]byte(text))
	if v == nil {
		t.Fatal("no JSON:", text)
	}
	return v
}

func TestOnlyWhatDiffersIsToldAndNothingSensitive(t *testing.T) {
	type attrs = []plan.Attribute
	for _, test := range []struct {
		name                       string
		before, after              string
		beforeMask, afterMask      string
		unknown, replaces, secrets string
		want                       attrs
	}{
		{name: "nothing", before: `{"a":1,"b":[1,{"c":null}]}`, after: `{"a":1,"b":[1,{"c":null}]}`},
		{name: "all that a new one has", after: `{"a":"x","b":null,"c":[],"d":{"e":true}}`, unknown: `{"id":true}`, want: attrs{
			{Path: "a", After: `"x"`}, {Path: "c", After: `[]`}, {Path: "d.e", After: `true`}, {Path: "id", Unknown: true},
		}},
		{name: "all that an old one had", before: `{"a":"x","b":null,"c":[2]}`, want: attrs{
			{Path: "a", Before: `"x"`}, {Path: "c[0]", Before: `2`},
		}},
		{
			name: "deep in objects and lists", before: `{"tags":{"name":"a","os":"x"},"disks":[{"size":1},{"size":2}]}`,
			after: `{"tags":{"name":"b","os":"x"},"disks":[{"size":9}]}`, want: attrs{
				{Path: "disks[0].size", Before: `1`, After: `9`}, {Path: "disks[1].size", Before: `2`}, {Path: "tags.name", Before: `"a"`, After: `"b"`},
			},
		},
		{name: "keys that are no identifiers", after: `{"tags":{"a b":1,"":2,"a-b":3,"9":4,"\"":5}}`, want: attrs{
			{Path: `tags[""]`, After: `2`}, {Path: `tags["\""]`, After: `5`}, {Path: `tags["9"]`, After: `4`}, {Path: `tags["a b"]`, After: `1`}, {Path: `tags.a-b`, After: `3`},
		}},
		{name: "numbers are kept as they are", after: `{"n":12345678901234567890123,"f":1.50}`, want: attrs{
			{Path: "f", After: `1.50`}, {Path: "n", After: `12345678901234567890123`},
		}},
		{name: "text is not made fit for HTML", after: `{"a":"<&>"}`, want: attrs{{Path: "a", After: `"<&>"`}}},
		{name: "known later", before: `{"a":{"x":1},"b":[1]}`, after: `{"b":[null]}`, unknown: `{"a":true,"b":[true]}`, want: attrs{
			{Path: "a", Before: `{"x":1}`, Unknown: true}, {Path: "b[0]", Before: `1`, Unknown: true},
		}},
		{name: "another kind of value", before: `{"a":"x","b":{"c":1},"d":[1]}`, after: `{"a":["x"],"b":[1],"d":true}`, want: attrs{
			{Path: "a", Before: `"x"`, After: `["x"]`}, {Path: "b", Before: `{"c":1}`, After: `[1]`}, {Path: "d", Before: `[1]`, After: `true`},
		}},
		{name: "a sensitive leaf", before: `{"a":{"p":"x","q":1}}`, after: `{"a":{"p":"y","q":2}}`, beforeMask: `{"a":{"p":true}}`, afterMask: `{"a":{"p":true}}`, want: attrs{
			{Path: "a.p", Sensitive: true}, {Path: "a.q", Before: `1`, After: `2`},
		}},
		{name: "a sensitive whole", before: `{"a":{"p":"x"}}`, after: `{"a":{"p":"y","z":1}}`, afterMask: `{"a":true}`, want: attrs{{Path: "a", Sensitive: true}}},
		{name: "a sensitive resource", before: `{"a":{"p":"x"},"b":1}`, after: `{"a":{"p":"y"},"b":1}`, afterMask: `true`, want: attrs{{Path: "a", Sensitive: true}}},
		{name: "sensitive, and only before", before: `{"a":"x","b":[1,2]}`, after: `{"a":"y","b":[1,3]}`, beforeMask: `{"a":true,"b":[false,true]}`, want: attrs{
			{Path: "a", Sensitive: true}, {Path: "b[1]", Sensitive: true},
		}},
		{name: "sensitive and the same", before: `{"a":"x"}`, after: `{"a":"x"}`, beforeMask: `{"a":true}`, afterMask: `{}`},
		{name: "sensitive and known later", before: `{"a":"x"}`, after: `{}`, beforeMask: `{"a":true}`, unknown: `{"a":true}`, want: attrs{{Path: "a", Sensitive: true}}},
		{name: "a mask of another shape", after: `{"a":"x","b":{"c":1}}`, afterMask: `{"a":[true],"b":[true]}`, want: attrs{
			{Path: "a", Sensitive: true}, {Path: "b.c", After: `1`},
		}},
		{name: "named like a secret", after: `{"db":{"Password":"a","n":1},"api_key":"b","user_data":"c","tokens":["d"],"passive":"e"}`, want: attrs{
			{Path: "api_key", Sensitive: true},
			{Path: "db.Password", Sensitive: true},
			{Path: "db.n", After: `1`},
			{Path: "passive", After: `"e"`},
			{Path: "tokens", Sensitive: true},
			{Path: "user_data", Sensitive: true},
		}},
		{name: "named like a secret within another kind of value", before: `{"a":1}`, after: `{"a":{"password":"x","b":"y"}}`, want: attrs{
			{Path: "a", Before: `1`, After: `{"b":"y","password":"(sensitive)"}`},
		}},
		{
			name: "a secret known beforehand", secrets: "hunter2", before: `{"a":"hunter2","b":"it is hunter2","d":"d"}`,
			after: `{"a":"x","b":"it was hunter2","c":{"hunter2":1},"d":"hunter2"}`, want: attrs{
				{Path: "a", Sensitive: true}, {Path: "b", Before: `"it is (sensitive)"`, After: `"it was (sensitive)"`}, {Path: "c.(sensitive)", After: `1`}, {Path: "d", Sensitive: true},
			},
		},
		{name: "two secrets that look the same when told", secrets: "hunter2 hunter3", before: `{"a":"is hunter2"}`, after: `{"a":"is hunter3"}`, want: attrs{{Path: "a", Sensitive: true}}},
		{name: "a password in a URL", before: `{"a":"postgres://u:hunter2@h/x","b":"hunter2"}`, after: `{"a":"postgres://u:xyzzy@i/x","b":"b"}`, want: attrs{
			{Path: "a", Before: `"postgres://u:(sensitive)@h/x"`, After: `"postgres://u:(sensitive)@i/x"`}, {Path: "b", Sensitive: true},
		}},
		{name: "a number that is a secret", secrets: "12345678", after: `{"a":12345678}`, want: attrs{{Path: "a", Sensitive: true}}},
		{name: "a secret without its mark elsewhere", before: `{"input":{"p":"hunter2"},"output":{"p":"hunter2"}}`, beforeMask: `{"input":{"p":true}}`, want: attrs{
			{Path: "input.p", Sensitive: true}, {Path: "output.p", Sensitive: true},
		}},
		{name: "what replaces", replaces: `[["a"],["b",1,"c"],["d"]]`, before: `{"a":1,"b":[{"c":1},{"c":1}],"d":{"e":1}}`, after: `{"a":2,"b":[{"c":2},{"c":2}],"d":{"e":2}}`, want: attrs{
			{Path: "a", Before: `1`, After: `2`, Replaces: true},
			{Path: "b[0].c", Before: `1`, After: `2`},
			{Path: "b[1].c", Before: `1`, After: `2`, Replaces: true},
			{Path: "d.e", Before: `1`, After: `2`, Replaces: true},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			replaces, _ := parsed(t, test.replaces).([]any)
			change := &tfjson.Change{
				Actions: tfjson.Actions{tfjson.ActionUpdate}, Before: parsed(t, test.before), After: parsed(t, test.after),
				BeforeSensitive: parsed(t, test.beforeMask), AfterSensitive: parsed(t, test.afterMask), AfterUnknown: parsed(t, test.unknown), ReplacePaths: replaces,
			}
			from := &tfjson.Plan{ResourceChanges: []*tfjson.ResourceChange{{Address: "x.y", Mode: tfjson.ManagedResourceMode, Change: change}}}
			got := tell(from, strings.Fields(test.secrets), nil, nil)
			if diff := cmp.Diff(test.want, got.Resources[0].Attributes); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestResourcesAreToldByAddressWithTheirGuests(t *testing.T) {
	resource := func(address string, actions ...tfjson.Action) *tfjson.ResourceChange {
		return &tfjson.ResourceChange{Address: address, Mode: tfjson.ManagedResourceMode, Change: &tfjson.Change{Actions: actions}}
	}
	deposed := resource(`x.g["p-1"]`, "delete")
	deposed.DeposedKey = "cafe"
	data := resource("data.x.y", "create")
	data.Mode = tfjson.DataResourceMode
	got := tell(&tfjson.Plan{ResourceChanges: []*tfjson.ResourceChange{
		resource("x.same", "no-op"), data, resource("x.read", "read"), resource(`x.g["p-2"]`, "create", "delete"), deposed,
		resource(`x.g["p-1"]`, "delete", "create"), resource("x.shared", "update"), resource("x.left", "forget"), resource(`x.k["hunter2"]`, "create"),
	}}, []string{"hunter2", "p-2"}, []string{"p-1", "p-2"}, map[string]string{`x.g["p-2"]`: "requested"})
	want := plan.Shard{Kept: 1, Resources: []plan.Resource{
		{Address: `x.g["p-1"]`, Guest: "p-1", Action: "replace"},
		{Address: `x.g["p-1"] (deposed cafe)`, Guest: "p-1", Action: "delete"},
		{Address: `x.g["p-2"]`, Guest: "p-2", Action: "replace", Reason: "requested"},
		{Address: `x.k["(sensitive)"]`, Action: "create"},
		{Address: "x.left", Action: "forget"},
		{Address: "x.shared", Action: "update"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsTooMuchIsCountedAndSaid(t *testing.T) {
	many := map[string]any{"long": strings.Repeat("hunter2-", 10_000)}
	for i := range maxAttributes + 10 {
		many[fmt.Sprintf("a%05d", i)] = strings.Repeat("é", i*10)
	}
	from := &tfjson.Plan{}
	for i := range maxResources + 5 {
		from.ResourceChanges = append(from.ResourceChanges, &tfjson.ResourceChange{
			Address: fmt.Sprintf("x.y[%05d]", i), Mode: tfjson.ManagedResourceMode, Change: &tfjson.Change{Actions: tfjson.Actions{"create"}},
		})
	}
	from.ResourceChanges[0].Change.After = many
	got := tell(from, nil, nil, nil)
	if len(got.Resources) != maxResources || got.Error != "2005 resources change; only the first 2000 are told" {
		t.Error(len(got.Resources), got.Error)
	}
	attributes := got.Resources[0].Attributes
	if len(attributes) != maxAttributes+1 || attributes[maxAttributes].Path != "(11 more)" {
		t.Error(len(attributes), attributes[len(attributes)-1])
	}
	for _, a := range attributes {
		if len(a.After) > maxValue+len("…") {
			t.Error(a.Path, len(a.After))
		}
	}
}

// A secret must not escape by being cut in two.
func TestASecretAtTheCutIsNotTold(t *testing.T) {
	secret := strings.Repeat("hunter2-", 200)
	for before := maxValue - 20; before < maxValue+5; before++ {
		change := &tfjson.Change{Actions: tfjson.Actions{"create"}, After: map[string]any{"a": strings.Repeat("x", before) + secret}}
		got := tell(&tfjson.Plan{ResourceChanges: []*tfjson.ResourceChange{{Address: "x.y", Mode: tfjson.ManagedResourceMode, Change: change}}}, []string{secret}, nil, nil)
		if strings.Contains(got.Resources[0].Attributes[0].After, "hunter") {
			t.Fatal(got.Resources[0].Attributes[0].After)
		}
	}
}

// maskedValue draws a value with a mask, and adds its leaves to one of two lists.
type maskedValue struct {
	n            int
	hidden, seen []string
}

func (m *maskedValue) draw(t *rapid.T, depth int, secret bool) (v, mask any) {
	if !secret && rapid.IntRange(0, 5).Draw(t, "mark") == 0 {
		secret, mask = true, true
	}
	kind := rapid.IntRange(0, 6).Draw(t, "kind")
	switch {
	case depth > 0 && kind < 2:
		values, masks := map[string]any{}, map[string]any{}
		for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "a b", "", "password"}), 0, 4, rapid.ID[string]).Draw(t, "keys") {
			values[key], masks[key] = m.draw(t, depth-1, secret || secretName(key))
		}
		v = values
		if mask == nil && !secret {
			mask = masks
		}
	case depth > 0 && kind == 2:
		values, masks := []any{}, []any{}
		for range rapid.IntRange(0, 3).Draw(t, "size") {
			value, mask := m.draw(t, depth-1, secret)
			values, masks = append(values, value), append(masks, mask)
		}
		v = values
		if mask == nil && !secret {
			mask = masks
		}
	case kind == 3:
		v = nil
	case kind == 4:
		v = true
	default:
		m.n++
		leaf := fmt.Sprintf("leaf-%06d-%d", m.n, rapid.IntRange(0, 9).Draw(t, "salt"))
		if v = leaf; secret {
			m.hidden = append(m.hidden, leaf)
		} else {
			m.seen = append(m.seen, leaf)
		}
	}
	return v, mask
}

func TestNoLeafUnderAMaskIsTold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m maskedValue
		before, beforeMask := m.draw(t, 4, false)
		after, afterMask := m.draw(t, 4, false)
		if rapid.Bool().Draw(t, "the same, with another mask") {
			after = before
			_, afterMask = m.draw(t, 4, false)
		}
		_, unknown := m.draw(t, 4, false)
		p := place{
			map[string]any{"x": before},
			map[string]any{"x": after},
			map[string]any{"x": beforeMask},
			map[string]any{"x": afterMask},
			map[string]any{"x": unknown},
		}
		walker := &teller{clean: func(text string) string { return text }}
		walker.walk(nil, p)
		text := toldText(t, walker.told)
		for _, leaf := range m.hidden {
			if strings.Contains(text, leaf) {
				t.Fatalf("%s is told in %s", leaf, text)
			}
		}
	})
}

func TestAllThatIsNewAndNotSensitiveIsTold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m maskedValue
		after, mask := m.draw(t, 3, false)
		walker := &teller{clean: func(text string) string { return text }}
		walker.walk(nil, place{after: map[string]any{"x": after}, afterMask: map[string]any{"x": mask}})
		text := toldText(t, walker.told)
		for _, leaf := range m.seen {
			if walker.more == 0 && !strings.Contains(text, leaf) {
				t.Fatalf("%s is not told in %s", leaf, text)
			}
		}
	})
}

func toldText(t rapid.TB, told []plan.Attribute) string {
	t.Helper()
	raw, err := json.Marshal(told)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func FuzzTell(f *testing.F) {
	f.Add(`{"a":{"p":"hunter2"}}`, `{"a":["hunter2"]}`, `{"a":{"p":true}}`, `{"a":[true]}`, `{"b":true}`)
	f.Add(`[1]`, `"x"`, `true`, `[[true]]`, `[false]`)
	f.Add(`{"password":12345678,"z":12345678}`, `null`, `{}`, `false`, `true`)
	plain := regexp.MustCompile(`^[a-z0-9]{4,}$`)
	f.Fuzz(func(t *testing.T, before, after, beforeMask, afterMask, unknown string) {
		var v [5]any
		for i, text := range []string{before, after, beforeMask, afterMask, unknown} {
			v[i] = decoded([]byte(text))
		}
		change := &tfjson.Change{Actions: tfjson.Actions{"update"}, Before: v[0], After: v[1], BeforeSensitive: v[2], AfterSensitive: v[3], AfterUnknown: v[4]}
		got := tell(&tfjson.Plan{ResourceChanges: []*tfjson.ResourceChange{{Address: "x.y", Mode: tfjson.ManagedResourceMode, Change: change}}}, nil, nil, nil)
		hidden := slices.Concat(secretsIn(v[0], v[2], false), secretsIn(v[1], v[3], false))
		for _, a := range got.Resources[0].Attributes {
			text := strings.ReplaceAll(a.Path+"\n"+a.Before+"\n"+a.After, sensitive, "\n")
			for _, s := range hidden {
				if plain.MatchString(s) && !slices.Contains([]string{"true", "false", "null", "more"}, s) && strings.Contains(text, s) {
					t.Errorf("%s is told in %+v", s, a)
				}
			}
		}
	})
}
