package plan

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the golden files anew")

var made = time.Date(2026, 11, 20, 13, 4, 0, 0, time.UTC)

func at(clock string) time.Time {
	t, err := time.Parse("2006-01-02 15:04", clock)
	if err != nil {
		t, err = time.Parse("2006-01-02 15:04", "2026-11-20 "+clock)
	}
	if err != nil {
		panic(err)
	}
	return t
}

func base() Plan {
	return Plan{
		ID: "p7k2m", Phase: Ready, Ref: "refs/pull/12/head", By: "alice", Digest: "d1", Made: made, Expires: made.Add(time.Hour),
		Base: "0123456789abcdef0123456789abcdef01234567", Head: "fedcba9876543210fedcba9876543210fedcba98",
	}
}

// examples are the plans that people get to see, and some that nobody should.
func examples() map[string]Plan {
	return map[string]Plan{
		"empty": empty(), "grow": grow(), "rollout": rollout(), "breach": breach(), "approved": approved(), "failed": failed(),
		"making": {ID: "p7k2m", Phase: Making, Ref: "main", By: "alice", Base: base().Base}, "replaced": replaced(),
		"terraform": layered(), "hostile": hostile(nasty),
	}
}

func empty() Plan {
	p := base()
	p.Summary = Summary{Keep: 2}
	p.Pools = []Pool{{Pool: "local", Change: Same}, {Pool: "vm", Change: Same}}
	p.Caches = []Cache{{Cache: "ci", Owner: "platform", Change: Same}, {Cache: "local", Invisible: true, Change: Same}}
	p.Guests = []Guest{
		{Guest: "local-1", Incarnation: 2, Pool: "local", Cache: "ci", State: "shelved", Verb: Keep},
		{Guest: "local-2", Incarnation: 1, Pool: "local", Cache: "ci", State: "leased", Verb: Keep, Lease: &Lease{"platform", at("14:05"), at("18:00")}},
	}
	return p
}

func grow() Plan {
	p := empty()
	p.Summary = Summary{Create: 2, Keep: 2, Settings: 2}
	p.Caches[0] = Cache{
		Cache: "ci", Owner: "platform", Change: Changed, Summary: p.Summary, Dip: &Dip{Warm: 4, Lowest: 1, Seconds: 60},
		Settings: []Setting{{"warm", "2", "4"}, {"prepare", "", "scripts/prepare.sh"}},
	}
	p.Guests = append(
		p.Guests,
		Guest{Guest: "local-3", Pool: "local", Cache: "ci", Verb: Create, When: Now, Reason: "warm"},
		Guest{Guest: "local-4", Pool: "local", Cache: "ci", Verb: Create, When: Now, Reason: "warm"},
	)
	return p
}

func rollout() Plan {
	p := base()
	p.Summary = Summary{Create: 1, Replace: 13, ReplaceLater: 3, Retire: 1, RetireLater: 2, Keep: 1, Settings: 1, Anyway: 1}
	p.Pools = []Pool{
		{Pool: "big", Change: Added, Summary: Summary{Create: 1}},
		{
			Pool: "local", Change: Changed, Outdated: []string{"variables.image"}, ReadySeconds: 38, Summary: p.Summary,
			Settings: []Setting{{Name: "module (its files)"}, {Name: "variables.image"}},
		},
	}
	p.Caches = []Cache{
		{Cache: "bench", Owner: "lab", Change: Same, Summary: Summary{RetireLater: 1, Retire: 1}},
		{Cache: "ci", Owner: "platform", Change: Same, Summary: p.Summary, Dip: &Dip{Warm: 2, Lowest: 1, Seconds: 40.4, Measured: true}},
		{Cache: "docs", Owner: "docs", Change: Same},
		{Cache: "local", Invisible: true, Change: Same, Summary: Summary{RetireLater: 1}},
	}
	for n := 1; n <= 13; n++ {
		p.Guests = append(p.Guests, Guest{
			Guest: "local-" + string(rune('a'+n-1)), Incarnation: n, Pool: "local", Cache: "ci", State: "shelved", Verb: Replace, When: Now,
			Reason: "outdated", Detail: "variables.image",
		})
	}
	p.Guests[1].Anyway = true
	leased := Guest{Pool: "local", Cache: "ci", State: "leased", Verb: Replace, When: Released, Reason: "outdated", Detail: "variables.image"}
	for name, deadline := range map[string]string{"local-20": "14:05", "local-21": "14:30"} {
		g := leased
		g.Guest, g.Incarnation, g.Lease = name, 3, &Lease{"platform", at(deadline), at("18:00")}
		p.Guests = append(p.Guests, g)
	}
	other := leased
	other.Guest, other.Incarnation, other.Lease, other.ToPool = "local-30", 1, &Lease{"web", at("13:10"), at("2026-11-21 01:00")}, "big"
	p.Guests = append(
		p.Guests, other,
		Guest{Pool: "big", Cache: "ci", Verb: Create, When: Now, Reason: "warm"},
		Guest{Guest: "big-2", Pool: "big", Cache: "ci", Verb: Create, When: Released, Reason: "warm"},
		Guest{Guest: "local-60", Incarnation: 1, Pool: "local", Cache: "local", State: "shelved", Verb: Keep, Detail: "goes to cache ci"},
		Guest{Guest: "local-40", Incarnation: 1, Pool: "local", Cache: "bench", State: "shelved", Verb: Retire, When: Now, Reason: "excess"},
		Guest{Guest: "local-41", Incarnation: 1, Pool: "local", Cache: "bench", State: "leased", Verb: Retire, When: Released, Reason: "excess", OneOf: true, Lease: &Lease{"lab", at("13:30"), at("17:00")}},
		Guest{Guest: "local-50", Incarnation: 6, Pool: "local", Cache: "local", State: "held", Verb: Retire, When: Released, Reason: "outdated", Until: at("2026-11-21 09:00")},
		Guest{Guest: "local-51", Incarnation: 6, Pool: "local", Cache: "local", State: "held", Verb: Keep, Until: at("2026-11-21 09:00")},
	)
	p.Notes = []string{"pool vm is paused by bob: its guests stay as they are until it is resumed", "cache docs is disabled by an override"}
	return p
}

func breach() Plan {
	p := base()
	p.Summary = Summary{Retire: 4, Settings: 1}
	p.Pools = []Pool{{Pool: "local", Change: Removed, Summary: Summary{Retire: 4}}}
	p.Caches = []Cache{{Cache: "ci", Change: Removed, Summary: Summary{Retire: 4}}}
	for _, name := range []string{"local-1", "local-2", "local-9", "local-10"} {
		p.Guests = append(p.Guests, Guest{Guest: name, Incarnation: 1, Pool: "local", Cache: "ci", State: "shelved", Verb: Retire, When: Now, Reason: "removed"})
	}
	p.Breaches = []Breach{{Guard: "fleet", Retire: 4, Of: 4, Allowed: 0.5}, {Guard: "pool.local", Retire: 4, Of: 4, Allowed: 0.125}}
	return p
}

func approved() Plan {
	p := breach()
	p.Approved = &Approval{By: "root", At: at("13:20"), Digest: "d1"}
	return p
}

func failed() Plan {
	p := base()
	p.Phase, p.Head, p.Digest = Failed, "dir:0123456789abcdef", ""
	p.Error = "fleet: 1 fault:\nError: Size exceeds max\n\n  on fleet.hcl line 46, in cache \"ci\":\n  46: \tsize = 9\n            ^\n\nThe cache keeps 9 guests shelved and may have 6.\n"
	return p
}

func replaced() Plan {
	p := grow()
	p.Phase, p.ReplacedBy = Replaced, "p9x1z"
	return p
}

func layered() Plan {
	p := grow()
	p.Terraform = &Terraform{Phase: Ready, Shards: []Shard{
		{
			Shard: "local-0123abcd-1", Pool: "local", Kept: 4, Seconds: 1.26, Resources: []Resource{
				{Address: `terraform_data.guest["local-3"]`, Guest: "local-3", Action: "create", Attributes: []Attribute{
					{Path: "id", Unknown: true}, {Path: "input.image", After: `"debian-12"`}, {Path: "input.password", Sensitive: true},
				}},
				{Address: `terraform_data.guest["local-1"]`, Guest: "local-1", Action: "replace", Reason: "cannot_update", Attributes: []Attribute{
					{Path: "input.image", Before: `"debian-11"`, After: `"debian-12"`, Replaces: true}, {Path: "tags[0]", Before: `"old"`},
				}},
				{Address: "terraform_data.net", Action: "update", Attributes: []Attribute{{Path: "output", Before: `{"a":1}`, Unknown: true}}},
				{Address: `terraform_data.guest["local-2"]`, Guest: "local-2", Action: "delete", Reason: "not in the configuration"},
			},
		},
		{Shard: "vm-89abcdef-2", Pool: "vm", Error: "the plan would destroy a guest that nobody has claimed", Resources: []Resource{{Address: "vm.a", Action: "delete"}}},
		{Shard: "vm-89abcdef-1", Pool: "vm", Error: "Error: Invalid provider configuration\n\n  on main.tf line 3:\n   3: provider \"x\" {\n\nNo credentials."},
	}}
	return p
}

// nasty tries everything at once: terminals, HTML, Markdown in tables, lists, code and fences, mentions and references.
const nasty = "\x1b[31mred\x1b]0;t\a\u202e\u200b\r\n```\n~~~\n--> <!-- <script>alert(1)</script></details></code>" +
	" | \\| a\\ `` @team #123 !45 $6 ~l %m http://evil.example www.evil.example x@evil.example [l](http://evil.example)\n/close\nPlan: nothing\x00\xff&amp;"

// hostile is a plan in which every string is s, in each combination that is shown in another way.
func hostile(s string) Plan {
	var p Plan
	fill(reflect.ValueOf(&p).Elem(), s)
	p.Phase = Ready
	p.Guests = nil
	for _, verb := range []Verb{Create, Replace, Retire, Keep, Verb(s)} {
		for _, when := range []string{Now, Released, s} {
			var g Guest
			fill(reflect.ValueOf(&g).Elem(), s)
			idle := g
			idle.Lease, idle.Until, idle.Incarnation = nil, time.Time{}, 0
			for _, g := range []Guest{g, idle, {Cache: s, Pool: s}} {
				g.Verb, g.When = verb, when
				p.Guests = append(p.Guests, g)
			}
		}
	}
	for _, a := range p.Terraform.Shards[0].Resources[0].Attributes {
		a.Sensitive, a.Unknown = false, false
		p.Terraform.Shards[0].Resources[0].Attributes = append(p.Terraform.Shards[0].Resources[0].Attributes, a)
	}
	fine := p.Terraform.Shards[0]
	fine.Error = ""
	p.Terraform.Shards = append(p.Terraform.Shards, fine)
	return p
}

// fill sets every field of v to something: its strings to s.
func fill(v reflect.Value, s string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Int:
		v.SetInt(3)
	case reflect.Float64:
		v.SetFloat(0.5)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), s)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), s)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(made))
			return
		}
		for _, field := range v.Fields() {
			fill(field, s)
		}
	}
}

func asText(t *testing.T, p Plan, o TextOptions) string {
	t.Helper()
	var out bytes.Buffer
	if err := WriteText(&out, p, o); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// golden compares got with a file of testdata, or writes it with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is another now, -want +got (write it anew with -update):\n%s", path, diff)
	}
}

func TestAPlanReadsInATerminalAsItsGoldenFile(t *testing.T) {
	for name, p := range examples() {
		t.Run(name, func(t *testing.T) {
			golden(t, name+".txt", asText(t, p, TextOptions{}))
		})
	}
	golden(t, "rollout_full.txt", asText(t, rollout(), TextOptions{Full: true}))
	golden(t, "rollout_narrow.txt", asText(t, rollout(), TextOptions{Width: 60}))
	golden(t, "terraform_full.txt", asText(t, layered(), TextOptions{Full: true}))
	golden(t, "rollout_color.txt", asText(t, rollout(), TextOptions{Color: true, Width: 100}))
}

// vt100 are the sequences that colour writes.
var vt100 = regexp.MustCompile("\x1b\\[[0-9;]*m")

// checkText holds what is true of every plan in a terminal.
func checkText(t *testing.T, p Plan) {
	t.Helper()
	unwrapped := diagnostics(p)
	for _, o := range []TextOptions{{}, {Full: true}, {Width: 50}, {Width: 1, Color: true, Full: true}} {
		got := asText(t, p, o)
		if o.Color {
			got = vt100.ReplaceAllString(got, "")
		}
		lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
		for i, line := range lines {
			if n := strings.IndexFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }); n >= 0 || !utf8.ValidString(line) {
				t.Errorf("line %d has what a terminal would act on, at byte %d: %q", i+1, n, line)
			}
			verdict := strings.HasPrefix(line, "Plan: ") || strings.HasPrefix(line, "No changes: ")
			if verdict != (i == len(lines)-1) {
				t.Errorf("line %d of %d: only the last line is the verdict: %q", i+1, len(lines), line)
			}
			limit := max(o.Width, minWidth)
			if o.Width > 0 && !verdict && utf8.RuneCountInString(line) > limit && !unwrapped[strings.TrimSpace(line)] {
				t.Errorf("line %d is longer than %d: %q", i+1, limit, line)
			}
		}
	}
}

// diagnostics are the lines of all errors, which are never wrapped.
func diagnostics(p Plan) map[string]bool {
	all := []string{p.Error}
	if p.Terraform != nil {
		all = append(all, p.Terraform.Error)
		for _, s := range p.Terraform.Shards {
			all = append(all, s.Error)
		}
	}
	lines := map[string]bool{}
	for _, text := range all {
		for line := range strings.Lines(cleanLines(text)) {
			lines[strings.TrimSpace(line)] = true
		}
	}
	return lines
}

func TestNoFieldOfAPlanReachesTheTerminal(t *testing.T) {
	for name, p := range examples() {
		t.Run(name, func(t *testing.T) { checkText(t, p) })
	}
}

// phased is a hostile plan in one of the phases, or in one that nobody knows.
func phased(s string, kind byte) Plan {
	p := hostile(s)
	p.Phase = []Phase{Ready, Making, Failed, Replaced, Phase(s)}[int(kind)%5]
	if kind&8 != 0 {
		p.Approved.Digest = "other"
	}
	return p
}

func FuzzText(f *testing.F) {
	for kind := range byte(16) {
		f.Add(nasty, kind)
		f.Add("a", kind)
	}
	f.Fuzz(func(t *testing.T, s string, kind byte) { checkText(t, phased(s, kind)) })
}

func TestShowingAPlanLeavesItAsItIs(t *testing.T) {
	p, same := hostile(nasty), hostile(nasty)
	asText(t, p, TextOptions{Full: true})
	if diff := cmp.Diff(same, p); diff != "" {
		t.Errorf("-before +after:\n%s", diff)
	}
}

func TestARevisionIsShortAndStillOfItsKind(t *testing.T) {
	for long, want := range map[string]string{
		"0123456789abcdef0123456789abcdef01234567": "0123456789ab", "dir:0123456789abcdef": "dir:0123456789ab", "0123": "0123",
		"main": "main", "a-branch-with-a-long-name": "a-branch-with-a-long-name", "": "",
	} {
		if got := Short(long); got != want {
			t.Errorf("%q is %q, want %q", long, got, want)
		}
	}
}

func TestAPlanThatWasNotMadeDoesNotSayThatNothingIsInForce(t *testing.T) {
	for _, c := range []struct {
		p          Plan
		base, head string
	}{
		{Plan{Phase: Making}, "what is in force", "a head not read yet"},
		{Plan{Phase: Failed}, "what is in force", "a head that could not be read"},
		{Plan{Phase: Failed, Head: "0123"}, "what is in force", "0123"},
		{Plan{Phase: Ready, Head: "0123"}, "nothing in force", "0123"},
	} {
		if base, head := LayOut(c.p).Compared(); base != c.base || head != c.head {
			t.Errorf("%+v compares %q with %q", c.p, base, head)
		}
	}
}

func TestTimesAreInWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Hour: "1 hour", 90 * time.Minute: "90 minutes", time.Minute: "1 minute", 5 * time.Hour: "5 hours", 72 * time.Hour: "3 days",
	} {
		if got := span(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
	for seconds, want := range map[float64]string{
		0: "less than a second", 40.4: "about 40s", 240: "about 4m", 7200: "about 2h", -1: "an unknown time", 1e300: "an unknown time",
	} {
		if got := about(seconds); got != want {
			t.Errorf("%v is %q, want %q", seconds, got, want)
		}
	}
}

func TestTheReferenceNamesEveryFieldOfAPlan(t *testing.T) {
	doc, err := os.ReadFile("../../docs/plans.md")
	if err != nil {
		t.Fatal(err)
	}
	missing := map[string]bool{}
	var look func(reflect.Type)
	look = func(of reflect.Type) {
		switch of.Kind() {
		case reflect.Pointer, reflect.Slice:
			look(of.Elem())
		case reflect.Struct:
			for field := range of.Fields() {
				name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
				if name != "" && !bytes.Contains(doc, []byte("`"+name+"`")) {
					missing[of.Name()+"."+name] = true
				}
				look(field.Type)
			}
		}
	}
	look(reflect.TypeFor[Plan]())
	if len(missing) > 0 {
		t.Errorf("docs/plans.md does not name %v", missing)
	}
}
