package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"greenroom/lease/client"
)

// decodeFault says what is wrong with a body that was to become a t. encoding/json has no type for an unknown field, only a text.
func decodeFault(body []byte, t reflect.Type, err error) error {
	var syntax *json.SyntaxError
	field, unknown := strings.CutPrefix(err.Error(), "json: unknown field ")
	switch {
	case unknown:
		return &fault{http.StatusBadRequest, "unknown_field", fmt.Sprintf("the field %.80s is unknown here; %s", field, knownHere(t.Elem()))}
	case errors.As(err, &syntax):
		return malformed("the body is no JSON: %v at byte %d", err, syntax.Offset)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return malformed("the body ends in the middle of its JSON")
	}
	if path, found, want := misfit(body, t); path != "" {
		return malformed("%.80s is %s, want %s", path, inWords(found), wanted(want))
	}
	return malformed("%v", err)
}

// knownHere lists the fields that a body may have.
func knownHere(t reflect.Type) string {
	if names := fieldNames(t); len(names) > 0 {
		return "there are " + strings.Join(names, ", ")
	}
	return "this call takes none"
}

// fieldNames are the names in JSON of what a struct has, in its order.
func fieldNames(t reflect.Type) []string {
	var names []string
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			names = append(names, name)
		}
	}
	return names
}

// misfit finds what a t cannot take: its path, itself, and what belongs there. The path that encoding/json gives ends before the
// keys of an object, and there is none to what reads itself, such as a duration.
func misfit(raw json.RawMessage, t reflect.Type) (path string, found json.RawMessage, want reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var members map[string]json.RawMessage
	var elements []json.RawMessage
	switch {
	case t.Kind() == reflect.Slice && json.Unmarshal(raw, &elements) == nil:
		for i, element := range elements {
			if json.Unmarshal(element, reflect.New(t.Elem()).Interface()) != nil {
				path, found, want = misfit(element, t.Elem())
				return fmt.Sprintf("[%d]%s", i, path), found, want
			}
		}
	case json.Unmarshal(raw, &members) == nil:
		for _, name := range slices.Sorted(maps.Keys(members)) {
			of := typeOf(t, name)
			if of != nil && json.Unmarshal(members[name], reflect.New(of).Interface()) != nil {
				path, found, want = misfit(members[name], of)
				return strings.TrimSuffix(strings.Replace(name+"."+path, ".[", "[", 1), "."), found, want
			}
		}
	}
	return "", raw, t
}

// typeOf is the type of what a struct or a map has under a name; nil: it has none.
func typeOf(t reflect.Type, name string) reflect.Type {
	switch t.Kind() {
	case reflect.Map:
		return t.Elem()
	case reflect.Struct:
		for _, f := range reflect.VisibleFields(t) {
			if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); tag != "" && strings.EqualFold(tag, name) {
				return f.Type
			}
		}
	}
	return nil
}

// inWords is a value of JSON in words.
func inWords(raw json.RawMessage) string {
	var v any
	if json.Unmarshal(raw, &v) != nil { // no float64 holds it
		return fmt.Sprintf("too large a number, %.40s", raw)
	}
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("the string %.40q", v)
	case bool:
		return fmt.Sprint(v)
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	}
	return fmt.Sprintf("the number %.40s", raw)
}

// wanted names what a field takes, in words of JSON.
func wanted(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[client.Duration]():
		return `a duration such as "30m"`
	case reflect.TypeFor[time.Time]():
		return `a time such as "2026-01-31T12:00:00Z"`
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "an object"
	}
	return "a number"
}
