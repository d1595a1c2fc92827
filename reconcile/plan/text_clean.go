package plan

import (
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Clean makes s one line that does nothing where it is shown: control characters, line ends, invisible characters and those
// that turn the direction of writing are replaced by their escapes, bytes that are no UTF-8 by U+FFFD. Names, errors and
// values of a plan are written by others, and a terminal or a page must not act on them.
func Clean(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
	}
	return b.String()
}

// cleanLines is Clean for what has several lines, such as diagnostics with their source.
func cleanLines(s string) string {
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\t", "    ")
	lines := strings.Split(strings.Trim(s, "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(Clean(line), " ")
	}
	return strings.Join(lines, "\n")
}

// clean is a copy of a plan in which every string is clean. It walks over the fields whatever they are, so that none that
// is added later can be forgotten; errors keep their lines.
func clean(p Plan) Plan {
	v := reflect.New(reflect.TypeFor[Plan]()).Elem()
	cleanInto(v, reflect.ValueOf(p), Clean)
	return v.Interface().(Plan)
}

func cleanInto(to, from reflect.Value, text func(string) string) {
	switch from.Kind() {
	case reflect.String:
		to.SetString(text(from.String()))
	case reflect.Pointer:
		if !from.IsNil() {
			to.Set(reflect.New(from.Type().Elem()))
			cleanInto(to.Elem(), from.Elem(), text)
		}
	case reflect.Slice:
		to.Set(reflect.MakeSlice(from.Type(), from.Len(), from.Len()))
		for i := range from.Len() {
			cleanInto(to.Index(i), from.Index(i), text)
		}
	case reflect.Struct:
		if from.Type() == reflect.TypeFor[time.Time]() {
			to.Set(from)
			return
		}
		for i := range from.NumField() {
			lines := Clean
			if from.Type().Field(i).Name == "Error" {
				lines = cleanLines
			}
			cleanInto(to.Field(i), from.Field(i), lines)
		}
	default:
		to.Set(from)
	}
}
