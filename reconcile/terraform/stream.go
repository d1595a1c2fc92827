package terraform

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
)

const (
	maxLine        = 1 << 20
	maxChanges     = 100_000
	maxDiagnostics = 200
	maxDetail      = 4 << 10
	maxTail        = 8 << 10
)

// stream reads the machine-readable UI of plan, apply and init
// (https://developer.hashicorp.com/terraform/internals/machine-readable-ui). It is a writer that never
// fails and never waits, so that it can't block the child: lines past 1 MiB are cut and counted, what
// is not JSON is kept as a bounded tail, unknown types pass. It is used by one command.
type stream struct {
	redact *redaction    // takes secrets out of what is kept
	lines  chan struct{} // one token whenever a line came since the last look

	line      []byte
	skipping  bool // within a line that was too long
	tail      []byte
	truncated int // lines cut: something may have been in them
	overflow  bool

	changes []Change // planned, by plan and again by apply
	drift   []Change
	diags   []Diagnostic
	summary *summary            // of the plan
	begun   bool                // an apply has begun to change something
	done    map[string][]string // address -> actions completed
}

type summary struct {
	Add       int    `json:"add"`
	Change    int    `json:"change"`
	Remove    int    `json:"remove"`
	Operation string `json:"operation"`
}

type address struct {
	Addr string `json:"addr"`
}

type message struct {
	Type   string `json:"type"`
	Change struct {
		Resource address `json:"resource"`
		Action   string  `json:"action"`
		Reason   string  `json:"reason"`
	} `json:"change"`
	Hook struct {
		Resource address `json:"resource"`
		Action   string  `json:"action"`
	} `json:"hook"`
	Changes    *summary `json:"changes"`
	Diagnostic *struct {
		Severity string `json:"severity"`
		Summary  string `json:"summary"`
		Detail   string `json:"detail"`
		Address  string `json:"address"`
		Range    struct {
			Filename string `json:"filename"`
			Start    struct {
				Line int `json:"line"`
			} `json:"start"`
		} `json:"range"`
	} `json:"diagnostic"`
}

func newStream(redact *redaction) *stream {
	return &stream{redact: redact, lines: make(chan struct{}, 1), done: map[string][]string{}}
}

// Write takes any piece of the stream and never fails.
func (s *stream) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		head, rest, whole := bytes.Cut(p, []byte{'\n'})
		s.take(head)
		if whole {
			s.endLine()
		}
		p = rest
	}
	return n, nil
}

func (s *stream) take(p []byte) {
	if s.skipping {
		return
	}
	if room := maxLine - len(s.line); len(p) > room {
		s.line = append(s.line, p[:room]...)
		s.skipping = true
		s.truncated++
		return
	}
	s.line = append(s.line, p...)
}

func (s *stream) endLine() {
	line, cut := bytes.TrimSpace(s.line), s.skipping
	s.line, s.skipping = s.line[:0], false
	select {
	case s.lines <- struct{}{}:
	default:
	}
	var m message
	var shape *json.UnmarshalTypeError // JSON of another shape: a type of the future
	if err := json.Unmarshal(line, &m); cut || err != nil && !errors.As(err, &shape) {
		s.keepTail(line)
		return
	}
	s.handle(m)
}

// keepTail keeps the end of what was not JSON: the only trace of a Terraform that crashed.
func (s *stream) keepTail(line []byte) {
	if len(line) == 0 {
		return
	}
	s.tail = append(append(s.tail, cut(s.redact.Replace(string(line)), 512)...), '\n')
	if over := len(s.tail) - maxTail; over > 0 {
		s.tail = slices.Delete(s.tail, 0, over)
	}
}

func (s *stream) handle(m message) {
	change := Change{Address: m.Change.Resource.Addr, Action: m.Change.Action, Reason: m.Change.Reason}
	switch m.Type {
	case "planned_change":
		s.changes = s.appendChange(s.changes, change)
	case "resource_drift":
		s.drift = s.appendChange(s.drift, change)
	case "change_summary":
		if m.Changes != nil && m.Changes.Operation == "plan" {
			s.summary = m.Changes
		}
	case "diagnostic":
		s.keepDiagnostic(m)
	case "apply_start":
		s.begun = true
	case "apply_complete":
		addr := m.Hook.Resource.Addr
		if len(s.done) < maxChanges {
			s.done[addr] = append(s.done[addr], m.Hook.Action)
		}
	}
}

func (s *stream) appendChange(list []Change, c Change) []Change {
	if len(list) >= maxChanges {
		s.overflow = true
		return list
	}
	return append(list, c)
}

func (s *stream) keepDiagnostic(m message) {
	d := m.Diagnostic
	if d == nil || len(s.diags) >= maxDiagnostics {
		return
	}
	s.diags = append(s.diags, Diagnostic{
		Severity: d.Severity,
		Summary:  cut(s.redact.Replace(d.Summary), maxDetail),
		Detail:   cut(s.redact.Replace(d.Detail), maxDetail),
		Address:  d.Address,
		File:     d.Range.Filename,
		Line:     d.Range.Start.Line,
	})
}

// whole says whether the stream of a plan tells everything that the plan would do: its own
// summary must agree with the changes seen. A change lost in a cut line must not pass the guard.
func (s *stream) whole() bool {
	if s.summary == nil || s.overflow {
		return false
	}
	var got summary
	for _, c := range s.changes {
		switch c.Action {
		case "create":
			got.Add++
		case "update":
			got.Change++
		case "delete":
			got.Remove++
		case "replace":
			got.Add++
			got.Remove++
		}
	}
	return got.Add == s.summary.Add && got.Change == s.summary.Change && got.Remove == s.summary.Remove
}

// completed says whether an apply carried the planned change out to its end.
func (s *stream) completed(c Change) bool {
	done := s.done[c.Address]
	switch c.Action {
	case "create", "update", "delete":
		return slices.Contains(done, c.Action)
	case "replace":
		return slices.Contains(done, "create") && slices.Contains(done, "delete")
	}
	return true
}

// errors are the diagnostics of severity error.
func (s *stream) errors() []Diagnostic {
	return slices.DeleteFunc(slices.Clone(s.diags), func(d Diagnostic) bool { return d.Severity != "error" })
}

func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
}
