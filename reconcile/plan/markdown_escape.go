package plan

import (
	"crypto/sha256"
	"fmt"
	"html"
	"regexp"
	"strings"
	"unicode/utf8"
)

// maxTicks is the longest run of backticks that is written as it is: renderers stop counting them somewhere.
const maxTicks = 9

// code is a code span: nothing in it is Markdown, HTML, a link, a mention or a reference. It holds s up to a bounded length.
func code(s string) string {
	if s == "" {
		return ""
	}
	s = brief(s, 400)
	s, fence := fenced(s, 1)
	if ends := s[:1] + s[len(s)-1:]; strings.Contains(ends, "`") || ends == "  " && strings.TrimSpace(s) != "" {
		s = " " + s + " " // both are taken away again
	}
	return fence + s + fence
}

var ticks = regexp.MustCompile("`+")

// fenced returns s and a run of backticks, at least so many, that is longer than any in s.
func fenced(s string, least int) (content, fence string) {
	longest := 0
	for _, run := range ticks.FindAllString(s, -1) {
		longest = max(longest, len(run))
	}
	if longest > maxTicks {
		return strings.ReplaceAll(s, "`", "'"), strings.Repeat("`", least)
	}
	return s, strings.Repeat("`", max(least, longest+1))
}

// block is a fenced block of text that may have several lines.
func block(kind, text string) string {
	text, fence := fenced(text, 3)
	return fence + kind + "\n" + strings.TrimRight(text, "\n") + "\n" + fence + "\n"
}

// fault is an error in a block of its own. No line of it begins with what others wrote: GitLab takes a line "/close" for a
// command of whoever comments, and has mistaken where a block ends.
func fault(text string) string {
	if len(text) > maxError {
		text = strings.ToValidUTF8(text[:maxError], "") + "\n…"
	}
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimRight("  "+line, " \n") + "\n")
	}
	return block("text", b.String())
}

var (
	// word is a word with the punctuation around it that may stand in running text.
	word = regexp.MustCompile(`^(\(?)(.*?)([).,;:]*)$`)
	// harmless is a word that is nothing but itself in Markdown: no markup, mention, reference, hash or link.
	harmless = regexp.MustCompile(`^([A-Za-z]*|[0-9]{1,4}[smh]?|[0-9]{2}:[0-9]{2}|[0-9]{4}-[0-9]{2}-[0-9]{2}|…|→)$`)
)

// prose is a sentence with all words in code spans that are not harmless. It never stands at the beginning of a line.
func prose(s string) string {
	var b strings.Builder
	var open []string // words of a code span
	end := func() {
		b.WriteString(code(strings.Join(open, " ")))
		open = nil
	}
	for i, w := range strings.Split(brief(s, 2000), " ") {
		part := word.FindStringSubmatch(w)
		before, core, after := part[1], part[2], part[3]
		plain := harmless.MatchString(core)
		if plain || before != "" {
			end()
		}
		if i > 0 && len(open) == 0 {
			b.WriteByte(' ')
		}
		if plain {
			b.WriteString(w)
			continue
		}
		b.WriteString(before)
		open = append(open, core)
		if after != "" {
			end()
			b.WriteString(after)
		}
	}
	end()
	return b.String()
}

// brief cuts s to n characters.
func brief(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// cells is a row of a table. A pipe is escaped, in code spans too; after a backslash renderers disagree on what that
// means, and it is shown as a broken bar.
func cells(columns ...string) string {
	for i, c := range columns {
		columns[i] = strings.ReplaceAll(strings.ReplaceAll(c, `\|`, `\¦`), "|", `\|`)
	}
	return "| " + strings.Join(columns, " | ") + " |\n"
}

// table is empty when it has no rows.
func table(columns []string, rows [][]string) string {
	if len(rows) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString(cells(columns...) + "|" + strings.Repeat("---|", len(columns)) + "\n")
	for _, row := range rows {
		b.WriteString(cells(row...))
	}
	return b.String() + "\n"
}

// inHTML is code inside of HTML, in which Markdown is not looked for.
func inHTML(s string) string { return "<code>" + html.EscapeString(brief(s, 400)) + "</code>" }

// folded is content that is shown when its summary, which is HTML, is clicked.
func folded(summary, content string) string {
	return "<details><summary>" + summary + "</summary>\n\n" + strings.TrimRight(content, "\n") + "\n\n</details>\n"
}

// Marker is the hidden first line of the comment on a ref, by which its successor finds it. It is one HTML comment whatever
// the ref, and other refs have other markers.
func Marker(ref string) string {
	if len(ref) > 200 {
		ref = fmt.Sprintf("%s.%x", ref[:100], sha256.Sum256([]byte(ref)))
	}
	var b strings.Builder
	for i, c := range []byte(ref) {
		dashes := c == '-' && i > 0 && ref[i-1] == '-'
		if strings.IndexByte(inMarker, c) >= 0 && !dashes {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return "<!-- greenroom-plan: " + b.String() + " -->"
}

const inMarker = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._/"
