package plan

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

const server = "https://greenroom.example.org/"

func asMarkdown(t *testing.T, p Plan, o MarkdownOptions) string {
	t.Helper()
	var out bytes.Buffer
	if err := WriteMarkdown(&out, p, o); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestAPlanReadsInACommentAsItsGoldenFile(t *testing.T) {
	for name, p := range examples() {
		t.Run(name, func(t *testing.T) { golden(t, name+".md", asMarkdown(t, p, MarkdownOptions{URL: server})) })
	}
}

var (
	markerLine = regexp.MustCompile(`^<!-- greenroom-plan: [A-Za-z0-9._/%-]* -->$`)
	fenceLine  = regexp.MustCompile("^(`{3,})(diff|text)?$")
	foldLine   = regexp.MustCompile(`^(<details><summary>[A-Za-z0-9 :,()]*(<code>[^<>]*</code>[A-Za-z0-9 :,()]*)+</summary>|</details>)$`)
	pageLink   = regexp.MustCompile(`\[the whole plan\]\(https://greenroom\.example\.org/plans/[A-Za-z0-9._~/:\[\]-]+\)`)
	// ownWords is what may stand outside of code: the marks of our own lines, and words.
	ownWords = regexp.MustCompile(`^(#{3,4} |> |- )?[A-Za-z0-9 .,;:()…→*+±=|'%/-]*$`)
	linkLike = regexp.MustCompile(`[A-Za-z0-9][./:]+[A-Za-z]|[0-9a-f]{7}|//`)
)

// checkMarkdown holds what is true of every comment, whatever the fields of the plan hold. It reads Markdown as its
// specifications do as far as that is needed: fences, code spans, and the columns of tables.
func checkMarkdown(t *testing.T, p Plan) {
	t.Helper()
	out := asMarkdown(t, p, MarkdownOptions{URL: server})
	if len(out) > maxMarkdown || !utf8.ValidString(out) {
		t.Fatalf("it has %d bytes, valid UTF-8: %v", len(out), utf8.ValidString(out))
	}
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if lines[0] != Marker(p.Ref) || !markerLine.MatchString(lines[0]) || strings.Count(lines[0], "--") != 2 {
		t.Errorf("the first line is no single comment: %q", lines[0])
	}
	fence, columns, folds := "", 0, 0
	for i, line := range lines[1:] {
		if bad := strings.IndexFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }); bad >= 0 {
			t.Errorf("line %d has a control character: %q", i+2, line)
		}
		switch mark := fenceLine.FindStringSubmatch(line); {
		case fence != "":
			if line == fence {
				fence = ""
			} else if strings.HasPrefix(strings.TrimSpace(line), fence) {
				t.Errorf("line %d may end the block: %q", i+2, line)
			}
		case mark != nil && mark[2] != "":
			fence = mark[1]
		case foldLine.MatchString(line):
			folds += strings.Count(line, "<details>") - strings.Count(line, "</details>")
		default:
			if fault := outside(line); fault != "" {
				t.Errorf("line %d breaks out: %s: %q", i+2, fault, line)
			}
			n := pipes(line)
			if columns > 0 && n > 0 && n != columns {
				t.Errorf("line %d has %d pipes, its table %d: %q", i+2, n, columns, line)
			}
			columns = n
		}
	}
	if fence != "" || folds != 0 {
		t.Errorf("at the end the fence %q and %d folds are open", fence, folds)
	}
}

// outside says what of a line that is not in code is anything but our own words.
func outside(line string) string {
	rest := pageLink.ReplaceAllString(strings.ReplaceAll(line, `\|`, "C"), "LINK")
	rest, ok := withoutSpans(rest)
	switch {
	case !ok:
		return "a backtick without its match"
	case !ownWords.MatchString(rest):
		return "what is not in code is " + rest
	case linkLike.MatchString(strings.NewReplacer("and", "").Replace(rest)):
		return "it may become a link: " + rest
	}
	return ""
}

// withoutSpans takes the code spans out of a line, as CommonMark finds them.
func withoutSpans(line string) (rest string, ok bool) {
	for {
		open := ticks.FindString(line)
		before, after, found := strings.Cut(line, open)
		if open == "" || !found {
			return rest + line, true
		}
		end := -1
		for _, at := range ticks.FindAllStringIndex(after, -1) {
			if at[1]-at[0] == len(open) {
				end = at[1]
				break
			}
		}
		if end < 0 {
			return rest, false
		}
		rest, line = rest+before+" C ", after[end:]
	}
}

// pipes counts those that end the cells of a row.
func pipes(line string) int {
	if !strings.HasPrefix(line, "|") {
		return 0
	}
	return strings.Count(line, "|") - strings.Count(line, `\|`) + 1000*strings.Count(line, `\\|`)
}

func TestNoFieldOfAPlanBreaksOutOfAComment(t *testing.T) {
	for name, p := range examples() {
		t.Run(name, func(t *testing.T) { checkMarkdown(t, p) })
	}
}

func FuzzMarkdown(f *testing.F) {
	for kind := range byte(16) {
		f.Add(nasty, kind)
	}
	for _, s := range []string{"", "a", "`", " ` ", "|", `\|`, `\`, "\n", "(@a):", "1. a", "-- -->", strings.Repeat("`", 100)} {
		f.Add(s, byte(10)) // ready, and held
	}
	f.Fuzz(func(t *testing.T, s string, kind byte) { checkMarkdown(t, phased(s, kind)) })
}

func TestALargePlanIsCutByWholeSectionsThatAreNamed(t *testing.T) {
	p := rollout()
	for n := range 3000 {
		p.Guests = append(p.Guests, Guest{Guest: fmt.Sprintf("local-%d", 100+n), Incarnation: 1, Pool: "local", Cache: "ci", State: "shelved", Verb: Keep})
	}
	p.Terraform = &Terraform{Phase: Ready}
	for n := range 30 {
		shard := Shard{Shard: fmt.Sprintf("local-0123abcd-%d", n), Pool: "local"}
		for range 40 {
			shard.Resources = append(shard.Resources, Resource{Address: strings.Repeat("a", 80), Action: "create"})
		}
		p.Terraform.Shards = append(p.Terraform.Shards, shard)
	}
	checkMarkdown(t, p)
	got := asMarkdown(t, p, MarkdownOptions{URL: server})
	last := got[strings.LastIndex(strings.TrimSuffix(got, "\n"), "\n")+1:]
	for _, want := range []string{
		"**Left out**", "the guests of cache `ci`", "Terraform's plan of shard `local-0123abcd-", " more; see [the whole plan](https://greenroom.example.org/plans/p7k2m)",
	} {
		if !strings.Contains(last, want) {
			t.Errorf("the last line lacks %q: %s", want, last)
		}
	}
	if strings.Contains(got, "Guests of cache <code>ci</code>") || !strings.Contains(got, "Guests of cache <code>bench</code>") {
		t.Error("the list of 3000 guests was to be left out, and the short one to stay")
	}
	if len(got) < maxMarkdown/2 {
		t.Errorf("only %d bytes were used", len(got))
	}
}

func TestTheLinkIsLeftOutUnlessItIsAPlainOne(t *testing.T) {
	for url, want := range map[string]string{
		"":                                "see `greenroom plan show p7k2m`",
		"https://g.example":               "see [the whole plan](https://g.example/plans/p7k2m)",
		"http://[::1]:7070/x/":            "see [the whole plan](http://[::1]:7070/x/plans/p7k2m)",
		"javascript:alert(1)":             "see `greenroom plan show p7k2m`",
		"https://g.example/) <b> [x](y":   "see `greenroom plan show p7k2m`",
		"https://user:secret@g.example":   "see `greenroom plan show p7k2m`",
		"https://g.example/?token=secret": "see `greenroom plan show p7k2m`",
	} {
		if got := asMarkdown(t, empty(), MarkdownOptions{URL: url}); !strings.Contains(got, want+".\n") || strings.Contains(got, "secret") {
			t.Errorf("with the URL %q it lacks %q:\n%s", url, want, got)
		}
	}
}

func TestEachRefHasAMarkerOfItsOwn(t *testing.T) {
	seen := map[string]string{}
	for ref, want := range map[string]string{
		"refs/pull/12/head": "<!-- greenroom-plan: refs/pull/12/head -->",
		"a--b":              "<!-- greenroom-plan: a-%2Db -->",
		"a-%2Db":            "<!-- greenroom-plan: a-%252Db -->",
		"--> <b>":           "<!-- greenroom-plan: -%2D%3E%20%3Cb%3E -->",
		"":                  "<!-- greenroom-plan:  -->",
		"@all #1\n":         "<!-- greenroom-plan: %40all%20%231%0A -->",
	} {
		got := Marker(ref)
		if got != want || seen[got] != "" {
			t.Errorf("%q and %q have the marker %q, want %q", ref, seen[got], got, want)
		}
		seen[got] = ref
	}
	long := strings.Repeat("x", 5000)
	if a, b := Marker(long+"a"), Marker(long+"b"); a == b || len(a) > 1000 {
		t.Errorf("long refs have the markers %q and %q", a, b)
	}
}
