package terraform

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const planStream = `{"type":"version","terraform":"1.11.4"}
not json at all
{"type":"a_type_of_the_future","change":17}
{"type":"resource_drift","change":{"resource":{"addr":"x.a[\"g\"]"},"action":"delete"}}
{"type":"planned_change","change":{"resource":{"addr":"x.a[\"g\"]"},"action":"replace","reason":"requested"}}
{"type":"planned_change","change":{"resource":{"addr":"x.b"},"action":"read"}}
{"type":"change_summary","changes":{"add":1,"change":0,"remove":1,"operation":"plan"}}
{"type":"apply_start","hook":{"resource":{"addr":"x.a[\"g\"]"},"action":"delete"}}
{"type":"apply_complete","hook":{"resource":{"addr":"x.a[\"g\"]"},"action":"delete"}}
{"type":"apply_complete","hook":{"resource":{"addr":"x.a[\"g\"]"},"action":"create"}}
{"type":"diagnostic","diagnostic":{"severity":"error","summary":"S","detail":"it is hunter2","address":"x.a","range":{"filename":"m.tf","start":{"line":3}},"snippet":{"values":[{"statement":"is \"hunter2\""}]}}}
`

func TestAStreamIsReadInPiecesOfAnySize(t *testing.T) {
	s := newStream(redactor([]string{"hunter2"}))
	for _, b := range []byte(planStream) {
		if n, err := s.Write([]byte{b}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	change := Change{`x.a["g"]`, "replace", "requested"}
	if diff := cmp.Diff([]Change{change, {"x.b", "read", ""}}, s.changes); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Change{{`x.a["g"]`, "delete", ""}}, s.drift); diff != "" {
		t.Error(diff)
	}
	want := []Diagnostic{{Severity: "error", Summary: "S", Detail: "it is (sensitive)", Address: "x.a", File: "m.tf", Line: 3}}
	if diff := cmp.Diff(want, s.diags); diff != "" {
		t.Error(diff)
	}
	if !s.whole() || !s.completed(change) || !s.begun || string(s.tail) != "not json at all\n" {
		t.Errorf("whole %t, completed %t, begun %t, tail %q", s.whole(), s.completed(change), s.begun, s.tail)
	}
}

func TestAPlanWithALineTooLongIsNotWhole(t *testing.T) {
	s := newStream(nil)
	long := `{"type":"planned_change","change":{"resource":{"addr":"x.` + strings.Repeat("a", maxLine) + `"},"action":"delete"}}` + "\n"
	for _, text := range []string{long, `{"type":"change_summary","changes":{"remove":1,"operation":"plan"}}` + "\n"} {
		if _, err := s.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if s.truncated != 1 || len(s.changes) != 0 || s.whole() {
		t.Errorf("truncated %d, changes %d, whole %t", s.truncated, len(s.changes), s.whole())
	}
	if cap(s.line) > 4*maxLine {
		t.Errorf("the reader keeps %d bytes of a line", cap(s.line))
	}
}

func FuzzStream(f *testing.F) {
	f.Add([]byte(planStream))
	f.Add([]byte("{\"type\":\"diagnostic\"}\n\x00\xff\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		whole, pieces := newStream(nil), newStream(nil)
		if n, err := whole.Write(data); n != len(data) || err != nil {
			t.Fatal(n, err)
		}
		for chunk := range bytes.SplitAfterSeq(data, []byte{'"'}) {
			if n, err := pieces.Write(chunk); n != len(chunk) || err != nil {
				t.Fatal(n, err)
			}
		}
		if diff := cmp.Diff(whole.changes, pieces.changes); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(whole.diags, pieces.diags); diff != "" {
			t.Error(diff)
		}
		if len(whole.tail) > maxTail || len(whole.diags) > maxDiagnostics {
			t.Error("the stream keeps too much")
		}
	})
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"version":4,"serial":1,"lineage":"x","outputs":{"guests":{"value":{}}},"resources":[{"mode":"managed","type":"a","name":"b","instances":[{"index_key":"k"},{"index_key":3},{}]}]}`))
	f.Add([]byte(`{"version":4,"outputs":{"guests":{"value":"{\"k\":{}}"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		st, err := parseState(data)
		if err != nil {
			return
		}
		known, _ := st.known([]string{"k"})
		for _, address := range known["k"] {
			if ownerOf(address, []string{"k"}) != "k" {
				t.Errorf("address %s does not name its guest", address)
			}
		}
		_, _ = st.outputs()
	})
}
