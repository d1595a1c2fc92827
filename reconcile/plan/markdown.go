package plan

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// How a plan is shown in a comment on GitHub or GitLab:
//
//   - The first line is hidden and names the ref (see Marker), so that a newer plan can take the comment's place.
//   - The headline is the summary. What holds the revision comes before what it changes, and lists of guests and Terraform's
//     plans are folded. What Terraform could not plan is not.
//   - What others wrote stands in code spans, in <code> or in fenced blocks, where neither Markdown nor HTML, links, mentions
//     and references are looked for; only harmless words of sentences stand outside (see prose).
//   - It has at most 60 000 bytes, since GitHub refuses more than 65 536 characters. What does not fit is left out by whole
//     sections, and named.

// MarkdownOptions say how a plan is written for a comment.
type MarkdownOptions struct {
	URL string // of the server, for a link to the whole plan; may be empty
}

const (
	maxMarkdown = 60_000
	maxLeftOut  = 8      // sections that are named when they are left out
	maxError    = 30_000 // of the fault of a revision
)

// WriteMarkdown writes a plan for the comment of a pull or merge request.
func WriteMarkdown(w io.Writer, p Plan, o MarkdownOptions) error {
	m := &markdown{Layout: LayOut(p)}
	m.whole = m.link(o.URL)
	m.head(Marker(p.Ref))
	if m.Plan.Told() {
		m.body()
	}
	_, err := io.WriteString(w, m.fit())
	return err
}

// markdown is a plan on its way into a comment.
type markdown struct {
	Layout
	whole string // where the whole plan is; empty: nowhere
	parts []part
}

// part is a section that is written as a whole or not at all.
type part struct{ name, text string }

func (m *markdown) add(name, format string, args ...any) {
	m.parts = append(m.parts, part{name, strings.TrimRight(fmt.Sprintf(format, args...), "\n") + "\n"})
}

// link says where the whole plan is: a page if the server's URL is a plain one, else the command that shows it.
func (m *markdown) link(base string) string {
	url := strings.TrimRight(base, "/") + "/plans/" + m.Plan.ID
	if len(url) <= 1000 && linkable.MatchString(url) {
		return "[the whole plan](" + url + ")"
	}
	if m.Plan.ID == "" {
		return ""
	}
	return code("greenroom plan show " + m.Plan.ID)
}

var linkable = regexp.MustCompile(`^https?://[A-Za-z0-9._~/:\[\]-]+/plans/[A-Za-z0-9_-]+$`)

// fit puts the sections together, as many as there is room for.
func (m *markdown) fit() string {
	const room = maxMarkdown - 5000 // for the names of what is left out
	var b strings.Builder
	var left []string
	for _, p := range m.parts {
		if b.Len()+len(p.text)+1 > room {
			left = append(left, p.name)
			continue
		}
		b.WriteString(p.text + "\n")
	}
	if len(left) == 0 {
		return b.String()
	}
	more := ""
	if n := len(left) - maxLeftOut; n > 0 {
		left, more = left[:maxLeftOut], fmt.Sprintf(" and %d more", n)
	}
	return b.String() + "**Left out**, because a comment has a limit: " + strings.Join(left, ", ") + more + prefixed("; see ", m.whole) + ".\n"
}

func (m *markdown) head(marker string) {
	p := m.Plan
	base, head := m.Compared()
	verdict := strings.TrimSuffix(strings.TrimPrefix(p.Verdict(), "Plan: "), ".")
	text := marker + "\n### Greenroom plan: " + strings.Replace(verdict, "No changes", "no changes", 1) + "\n\n"
	text += "From " + revision(base) + " to " + revision(head) + " of " + cmp.Or(code(brief(p.Ref, 200)), "no ref")
	if p.By != "" {
		text += ", asked for by " + code(brief(p.By, 100))
	}
	m.add("", "%s.\n", text+prefixed(", ", m.Life())+prefixed("; see ", m.whole))
	switch p.Phase {
	case Making:
		m.add("", "It is being made.\n")
	case Failed:
		m.add("the fault of the revision", "**There is no plan of this revision:**\n\n%s", fault(p.Error))
	case Replaced:
		m.add("", "**A newer request for the same ref has taken its place**%s.\n", prefixed(": ", code(brief(p.ReplacedBy, 100))))
	}
}

// revision is a short hash in code, or our own words for none.
func revision(name string) string {
	if strings.Contains(name, " ") {
		return prose(name)
	}
	return code(brief(name, 100))
}

func (m *markdown) body() {
	m.guards()
	for _, s := range m.Changed() {
		m.section(s)
	}
	for _, p := range m.Pools() {
		m.pool(p)
	}
	m.rest()
	m.failedShards()
	for _, s := range m.Changed() {
		m.guests(s)
	}
	if m.Plan.Terraform != nil {
		for _, s := range m.Plan.Terraform.Shards {
			m.shard(s)
		}
	}
}

func (m *markdown) guards() {
	p := m.Plan
	var lines []string
	for _, b := range p.Breaches {
		if b.Guard == History {
			lines = append(lines, b.String())
			continue
		}
		lines = append(lines, fmt.Sprintf("%s: %d of %s would be retired, and the guard allows %s", code(b.Guard), b.Retire, plural(b.Of, "guest"), percent(b.Allowed)))
	}
	word := "Past a guard"
	if p.Held() {
		word = "Held"
		lines = append(lines, "an admin lets it pass with "+code(p.ApproveCommand()))
	}
	if len(p.Breaches) > 0 {
		m.add("what it is held for", "> **%s**: %s.\n", word, strings.Join(lines, "; "))
	}
	if says := m.Approval(); says != "" {
		m.add("the approval", "> **Approval**: %s.\n", prose(says))
	}
}

func (m *markdown) section(s Section) {
	rows := make([][]string, len(s.Rows))
	for i, r := range s.Rows {
		rows[i] = []string{r.Mark(), prose(r.Names()), prose(r.What())}
	}
	text := "#### Cache " + titled(s.Cache) + ": " + s.Cache.Summary.String() + "\n\n" + settings(s.Cache.Settings)
	text += table([]string{"", "guests", "what happens"}, rows)
	if d := s.Cache.Dip; d != nil {
		text += "**Beware**: " + prose(d.Says(s.Cache.Cache)) + ".\n"
	}
	m.add("cache "+code(brief(s.Cache.Cache, 60)), "%s", text)
}

func titled(c Cache) string {
	switch {
	case c.Invisible:
		return code(c.Cache) + " (the pool's invisible cache)"
	case c.Owner != "":
		return code(c.Cache) + " (owner " + code(c.Owner) + ")"
	}
	return code(c.Cache)
}

func settings(all []Setting) string {
	rows := make([][]string, len(all))
	for i, s := range all {
		rows[i] = []string{code(s.Name), cmp.Or(code(s.From), "none"), cmp.Or(code(s.To), "none")}
		if untold := s.Untold(); untold != "" {
			rows[i] = []string{code(s.Name), untold, ""}
		}
	}
	return table([]string{"setting", "from", "to"}, rows)
}

func (m *markdown) pool(p Pool) {
	text := "#### Pool " + code(p.Pool) + ": " + p.Summary.String() + "\n\n" + settings(p.Settings)
	if says := p.Says(); says != "" {
		text += "**Outdated**: " + prose(says) + ".\n"
	}
	if p.ReadySeconds > 0 {
		text += "A guest takes " + about(p.ReadySeconds) + " to become ready.\n"
	}
	m.add("pool "+code(brief(p.Pool, 60)), "%s", text)
}

// rest is what stays, and what is worth knowing besides.
func (m *markdown) rest() {
	var lines []string
	if says := m.Waits(); says != "" {
		lines = append(lines, "Leases: "+prose(says))
	}
	if n := m.Plan.Summary.Anyway; n > 0 {
		lines = append(lines, "Due anyway, without this revision too: "+plural(n, "change")+" to guests")
	}
	if n := m.kept(); n > 0 {
		lines = append(lines, "Kept: "+plural(n, "guest"))
	}
	caches, pools := m.Unchanged()
	if len(caches) > 0 {
		lines = append(lines, "Unchanged caches: "+listed(caches))
	}
	if len(pools) > 0 {
		lines = append(lines, "Unchanged pools: "+listed(pools))
	}
	for _, note := range m.Plan.Notes {
		lines = append(lines, "Note: "+prose(note))
	}
	if len(lines) > 0 {
		m.add("notes", "- %s\n", strings.Join(lines, "\n- "))
	}
}

func listed(names []string) string {
	more := ""
	if n := len(names) - maxListed; n > 0 {
		names, more = names[:maxListed], fmt.Sprintf(" and %d more", n)
	}
	spans := make([]string, len(names))
	for i, name := range names {
		spans[i] = code(name)
	}
	return strings.Join(spans, ", ") + more
}

// guests is the folded list of all guests of a cache.
func (m *markdown) guests(s Section) {
	if len(s.Guests) == 0 {
		return
	}
	rows := make([][]string, len(s.Guests))
	for i, r := range s.All() {
		g := r.First()
		rows[i] = []string{r.Mark(), cmp.Or(code(g.Name()), "new"), code(g.Pool), cmp.Or(prose(g.State), "not there yet"), prose(r.What())}
	}
	text := table([]string{"", "guest", "pool", "state now", "what happens"}, rows)
	m.add("the guests of cache "+code(brief(s.Cache.Cache, 60)), "%s",
		folded("Guests of cache "+inHTML(s.Cache.Cache)+": "+fmt.Sprint(len(s.Guests)), text))
}

// failedShards is what Terraform could not plan.
func (m *markdown) failedShards() {
	tf := m.Plan.Terraform
	if tf == nil {
		return
	}
	if tf.Error != "" {
		m.add("why there are no plans of Terraform", "**Terraform's own plans could not be made:**\n\n%s", fault(tf.Error))
	}
	if tf.Phase == Making {
		m.add("", "Terraform's own plans are still being made: %s so far.\n", plural(len(tf.Shards), "shard"))
	}
	for _, s := range tf.Shards {
		if s.Error != "" {
			m.add("the fault of shard "+code(brief(s.Shard, 60)), "**Terraform's plan of shard** %s (pool %s) **has failed**:\n\n%s", code(s.Shard), code(s.Pool), fault(s.Error))
		}
	}
}

// shard is Terraform's folded plan of one shard.
func (m *markdown) shard(s Shard) {
	if s.Error != "" && len(s.Resources) == 0 {
		return
	}
	var b strings.Builder
	for _, r := range s.Resources {
		b.WriteString(diffLine(r.Symbol(), 0, r.Says()))
		for _, a := range r.Attributes {
			b.WriteString(diffLine(a.Symbol(), 4, a.Says()))
		}
	}
	summary := fmt.Sprintf("Terraform: shard %s (pool %s), %s to change, %d kept", inHTML(s.Shard), inHTML(s.Pool), plural(len(s.Resources), "resource"), s.Kept)
	m.add("Terraform's plan of shard "+code(brief(s.Shard, 60)), "%s", folded(summary, block("diff", b.String())))
}

// diffLine is a line of a diff: renderers colour it by its first character, + and - and ! for what is neither.
func diffLine(symbol string, indent int, text string) string {
	if symbol == "+" || symbol == "-" {
		return symbol + strings.Repeat(" ", indent+1) + text + "\n"
	}
	return "!" + strings.Repeat(" ", indent+1) + symbol + " " + text + "\n"
}
