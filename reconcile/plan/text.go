package plan

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// How a plan is shown in a terminal:
//
//   - It begins with what is compared, by whom and how long that is good for, and ends with the one line that counts.
//   - What changes comes cache by cache, then pool by pool: settings, then guests, then what it costs. What stays is one line.
//   - Alike guests are one line, unless Full. A guest that is leased is told with its lease, since that is what it waits for.
//   - The marks are + create, ± replace, - retire, ~ differs, ! beware. Colour only repeats what the marks say.
//   - What went wrong is loud: ERROR, with the lines of the diagnostics as they were written.
//   - Every string is clean (see Clean), lines are wrapped at Width, and what others wrote begins no line of its own.

// TextOptions say how a plan is written for a terminal.
type TextOptions struct {
	Color bool // VT100 escape sequences
	Width int  // columns, at least 40; 0: no limit
	Full  bool // every guest, and Terraform's changes by attribute
}

// minWidth is what a line gets however narrow the terminal is.
const minWidth = 40

// maxListed is how many names a line lists when there may be hundreds.
const maxListed = 12

// style is a VT100 sequence.
type style string

const (
	plain  style = ""
	bold   style = "\x1b[1m"
	faint  style = "\x1b[2m"
	red    style = "\x1b[31m"
	green  style = "\x1b[32m"
	yellow style = "\x1b[33m"
	alarm  style = "\x1b[1;31m"
	reset  style = "\x1b[0m"
)

var styles = map[string]style{"+": green, "±": yellow, "-": red, "~": yellow, "-/+": yellow, "!": alarm, "ERROR": alarm, "HELD": alarm}

// WriteText writes a plan for a terminal.
func WriteText(w io.Writer, p Plan, o TextOptions) error {
	t := &text{TextOptions: o, Layout: LayOut(p)}
	if o.Width > 0 {
		t.Width = max(o.Width, minWidth)
	}
	t.head()
	if t.Plan.Told() {
		t.body()
	}
	t.out.WriteString(t.styled(bold, t.Plan.Verdict()) + "\n") // one line, whatever the width: scripts look for it
	_, err := w.Write(t.out.Bytes())
	return err
}

// text is a plan on its way to the terminal.
type text struct {
	TextOptions
	Layout
	out bytes.Buffer
}

// line writes words behind a mark, wrapped so that every further line stands under the words. The style is the mark's; of a
// line without one it is the whole line's.
func (t *text) line(indent int, s style, mark, words string) {
	lead, hang := strings.Repeat(" ", indent), indent+2
	if mark != "" {
		hang = indent + utf8.RuneCountInString(mark) + 1
	}
	for i, part := range wrap(words, t.Width-hang) {
		part = strings.TrimRight(part, " ")
		switch {
		case i > 0:
			lead = strings.Repeat(" ", hang)
			fallthrough
		case mark == "":
			t.out.WriteString(lead + t.styled(s, part) + "\n")
		default:
			t.out.WriteString(lead + t.styled(s, mark) + " " + part + "\n")
		}
		if mark != "" {
			s = plain
		}
	}
}

func (t *text) marked(indent int, mark, format string, args ...any) {
	t.line(indent, styles[mark], mark, fmt.Sprintf(format, args...))
}

func (t *text) styled(s style, words string) string {
	if !t.Color || s == plain || words == "" {
		return words
	}
	return string(s) + words + string(reset)
}

// block writes the lines of a diagnostic as they are: wrapping would tear its underlines from what they underline.
func (t *text) block(indent int, lines string) {
	for line := range strings.Lines(lines) {
		t.out.WriteString(strings.TrimRight(strings.Repeat(" ", indent)+line, " \n") + "\n")
	}
}

func (t *text) gap() { t.out.WriteByte('\n') }

// wrap breaks words at spaces into lines of at most width columns; a longer word is broken where it must be.
func wrap(words string, width int) (lines []string) {
	if width <= 0 {
		return []string{words}
	}
	var line []rune
	for i, word := range strings.Split(words, " ") {
		runes := []rune(word)
		if i > 0 && len(line)+1+len(runes) <= width {
			line = append(append(line, ' '), runes...)
			continue
		}
		if i > 0 {
			lines = append(lines, string(line))
		}
		for ; len(runes) > width; runes = runes[width:] {
			lines = append(lines, string(runes[:width]))
		}
		line = runes
	}
	return append(lines, string(line))
}

func (t *text) head() {
	p := t.Plan
	base, head := t.Compared()
	t.line(0, bold, "", "Plan"+prefixed(" ", p.ID)+" of "+cmp.Or(p.Ref, "no ref")+prefixed(", asked for by ", p.By))
	t.line(2, plain, "", base+" → "+head+prefixed(", ", t.Life()))
	t.gap()
	switch p.Phase {
	case Making:
		t.line(0, plain, "", "It is being made. Ask again in a moment.")
		t.gap()
	case Failed:
		t.marked(0, "ERROR", "there is no plan of this revision:")
		t.block(2, p.Error)
		t.gap()
	case Replaced:
		t.marked(0, "!", "a newer request for the same ref has taken its place%s", prefixed(": greenroom plan show ", p.ReplacedBy))
		t.gap()
	}
}

// prefixed is words behind a prefix, or nothing when there are none.
func prefixed(prefix, words string) string {
	if words == "" {
		return ""
	}
	return prefix + words
}

func (t *text) body() {
	for _, s := range t.Changed() {
		t.section(s)
	}
	for _, p := range t.Pools() {
		t.pool(p)
	}
	t.rest()
	t.terraform()
	t.notes()
	t.guards()
}

func (t *text) notes() {
	var lines []string
	for _, note := range t.Plan.Notes {
		lines = append(lines, "note: "+note)
	}
	if says := t.Waits(); says != "" {
		lines = append(lines, says)
	}
	if n := t.Plan.Summary.Anyway; n > 0 {
		lines = append(lines, fmt.Sprintf("due anyway, without this revision too: %s to guests", plural(n, "change")))
	}
	for _, line := range lines {
		t.line(0, plain, "", line)
	}
	if len(lines) > 0 {
		t.gap()
	}
}

// title is the mark of a pool or a cache that differs.
func (c Change) title() string {
	return map[Change]string{Added: "+", Removed: "-", Changed: "~"}[c]
}

func (t *text) section(s Section) {
	mark := cmp.Or(s.Cache.Change.title(), "~")
	t.line(0, styles[mark], "", mark+" cache "+s.Title()+": "+s.Cache.Summary.String())
	t.settings(s.Cache.Settings)
	rows := s.Rows
	if t.Full {
		rows = nil
		for _, r := range s.Rows {
			rows = append(rows, s.each(r.Guests)...)
		}
	}
	width := 0
	for _, r := range rows {
		width = min(max(width, utf8.RuneCountInString(r.Names())), 36)
	}
	for _, r := range rows {
		t.marked(4, r.Mark(), "%-*s  %s", width, r.Names(), r.What())
	}
	if s.Cache.Dip != nil {
		t.marked(4, "!", "%s", s.Cache.Dip.Says(s.Cache.Cache))
	}
	t.gap()
}

func (t *text) settings(settings []Setting) {
	for _, s := range settings {
		t.marked(4, "~", "%s", s.Says())
	}
}

func (t *text) pool(p Pool) {
	mark := cmp.Or(p.Change.title(), "~")
	t.line(0, styles[mark], "", mark+" pool "+p.Pool+": "+p.Summary.String())
	t.settings(p.Settings)
	if says := p.Says(); says != "" {
		t.marked(4, "±", "%s", says)
	}
	if p.ReadySeconds > 0 {
		t.line(4, faint, "", "a guest of it takes "+about(p.ReadySeconds)+" to become ready")
	}
	t.gap()
}

// rest tells what stays as it is.
func (t *text) rest() {
	var parts []string
	if n := t.kept(); n > 0 {
		parts = append(parts, "kept: "+plural(n, "guest"))
	}
	caches, pools := t.Unchanged()
	same := slices.DeleteFunc([]string{t.listed("cache", caches), t.listed("pool", pools)}, func(s string) bool { return s == "" })
	if len(same) > 0 {
		parts = append(parts, "unchanged: "+strings.Join(same, "; "))
	}
	if len(parts) > 0 {
		t.line(0, plain, "", strings.Join(parts, "; "))
	}
	for _, s := range t.Sections {
		if t.Full && len(s.Kept) > 0 {
			t.line(2, faint, "", "kept in "+s.Cache.Cache+": "+strings.Join(guestNames(s.Kept), ", "))
		}
	}
	if len(parts) > 0 {
		t.gap()
	}
}

func guestNames(guests []Guest) []string {
	names := make([]string, len(guests))
	for i, g := range guests {
		names[i] = g.Name()
	}
	return names
}

// listed is "caches a, b", or nothing.
func (t *text) listed(noun string, names []string) string {
	more := ""
	if n := len(names) - maxListed; n > 0 && !t.Full {
		names, more = names[:maxListed], fmt.Sprintf(" and %d more", n)
	}
	switch len(names) {
	case 0:
		return ""
	case 1:
		return noun + " " + names[0]
	}
	return noun + "s " + strings.Join(names, ", ") + more
}

func (t *text) guards() {
	p := t.Plan
	for _, b := range p.Breaches {
		if p.Held() {
			t.marked(0, "HELD", "%s", b.String())
		} else {
			t.marked(0, "!", "past a guard: %s", b.String())
		}
	}
	if p.Held() {
		t.line(2, plain, "", "an admin lets it pass with: "+p.ApproveCommand())
	}
	if says := t.Approval(); says != "" {
		t.line(0, plain, "", says)
	}
	if len(p.Breaches) > 0 || p.Approved != nil {
		t.gap()
	}
}

// actions are Terraform's own symbols.
var actions = map[string]string{"create": "+", "update": "~", "replace": "-/+", "delete": "-", "read": "<="}

// Symbol is Terraform's own sign for what it does to a resource.
func (r Resource) Symbol() string { return cmp.Or(actions[r.Action], "?") }

// Says is what Terraform does to a resource, and why where it says so.
func (r Resource) Says() string {
	text := r.Address + " " + r.Action
	if r.Reason != "" {
		text += " (" + r.Reason + ")"
	}
	return text
}

// Symbol is Terraform's own sign for what becomes of an attribute.
func (a Attribute) Symbol() string {
	switch {
	case a.Sensitive || a.Before != "" && (a.After != "" || a.Unknown):
		return "~"
	case a.Before != "":
		return "-"
	}
	return "+"
}

// Says is an attribute as Terraform writes it: path = before -> after.
func (a Attribute) Says() string {
	after := a.After
	if a.Unknown {
		after = "(known after apply)"
	}
	text := a.Path + " = "
	switch {
	case a.Sensitive:
		text += "(sensitive value)"
	case a.Before == "":
		text += cmp.Or(after, "null")
	default:
		text += a.Before + " -> " + cmp.Or(after, "null")
	}
	if a.Replaces {
		text += " # forces replacement"
	}
	return text
}

// Says is what a shard comes to in Terraform's plan.
func (s Shard) Says() string {
	text := fmt.Sprintf("%s (pool %s): ", s.Shard, s.Pool)
	switch {
	case s.Error != "" && len(s.Resources) > 0:
		text += "its run would be refused; "
	case s.Error != "":
		return text + "Terraform made no plan of it"
	}
	return text + fmt.Sprintf("%s to change, %d kept, planned in %s", plural(len(s.Resources), "resource"), s.Kept, about(s.Seconds))
}

func (t *text) terraform() {
	tf := t.Plan.Terraform
	if tf == nil {
		return
	}
	t.line(0, bold, "", "Terraform")
	for _, s := range tf.Shards {
		t.shard(s)
	}
	switch {
	case tf.Error != "":
		t.marked(2, "ERROR", "Terraform's own plans could not be made:")
		t.block(4, tf.Error)
	case tf.Phase == Making:
		t.line(2, plain, "", fmt.Sprintf("still planning: %s so far", plural(len(tf.Shards), "shard")))
	case len(tf.Shards) == 0:
		t.line(2, plain, "", "no shard is affected")
	}
	if failed := tf.Failed(); len(failed) > 0 {
		t.marked(2, "ERROR", "%d of %s could not be planned or run: %s", len(failed), plural(len(tf.Shards), "shard"), strings.Join(failed, ", "))
	}
	t.gap()
}

// Failed names the shards that Terraform made no plan of, or none that would be carried out.
func (t Terraform) Failed() (shards []string) {
	for _, s := range t.Shards {
		if s.Error != "" {
			shards = append(shards, s.Shard)
		}
	}
	return shards
}

func (t *text) shard(s Shard) {
	if s.Error != "" {
		t.marked(2, "ERROR", "%s", s.Says())
		t.block(4, s.Error)
	} else {
		t.line(2, plain, "", s.Says())
	}
	for _, r := range s.Resources {
		t.marked(4, r.Symbol(), "%s", r.Says())
		for _, a := range r.Attributes {
			if t.Full {
				t.marked(8, a.Symbol(), "%s", a.Says())
			}
		}
	}
}
