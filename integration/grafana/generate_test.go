package main

import (
	"cmp"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"greenroom/lease"
)

func TestTheCommittedDashboardsAreCurrent(t *testing.T) {
	files, err := os.ReadDir("dashboards")
	if err != nil {
		t.Fatal(err)
	}
	want := dashboards()
	for _, f := range files {
		d, made := want[f.Name()]
		if !made {
			t.Errorf("dashboards/%s is made by nobody", f.Name())
			continue
		}
		text, err := render(d)
		committed, unreadable := os.ReadFile(filepath.Join("dashboards", f.Name()))
		if err := cmp.Or(err, unreadable); err != nil {
			t.Fatal(err)
		}
		if string(text) != string(committed) {
			t.Errorf("dashboards/%s is not what the generator makes: go run ./integration/grafana integration/grafana/dashboards", f.Name())
		}
		delete(want, f.Name())
	}
	for name := range want {
		t.Errorf("dashboards/%s is missing", name)
	}
}

func TestEachDashboardCanBeShown(t *testing.T) {
	uids := map[string]string{}
	for name, d := range dashboards() {
		t.Run(name, func(t *testing.T) {
			if other := uids[d.UID]; other != "" || len(d.UID) < 8 || len(d.UID) > 40 {
				t.Errorf("the uid %q is bad, or that of %s too", d.UID, other)
			}
			uids[d.UID] = name
			if d.SchemaVersion != 41 || d.Time.From == "" || d.Time.To != "now" || d.Refresh == "" || d.Templating.List[0].Query != "prometheus" {
				t.Errorf("the head of the dashboard: %+v", d)
			}
			standsClear(t, d)
			for _, p := range d.Panels {
				isWhole(t, p)
			}
			asksOnlyForWhatIsChosen(t, d)
		})
	}
}

// standsClear asserts that every panel has an id of its own and a place of its own.
func standsClear(t *testing.T, d Dashboard) {
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("panel %q has the id %d, as another one", p.Title, p.ID)
		}
		ids[p.ID] = true
		g := p.GridPos
		if g.X < 0 || g.W < 1 || g.H < 1 || g.X+g.W > columns {
			t.Errorf("panel %q does not fit: %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("panels %q and %q overlap at %d, %d", p.Title, other, x, y)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}

// isWhole asserts that a panel says what it shows, and where from.
func isWhole(t *testing.T, p Panel) {
	if p.Title == "" {
		t.Errorf("panel %d has no title", p.ID)
	}
	if p.Type == "row" {
		return
	}
	if len(p.Description) < 10 || !strings.HasSuffix(p.Description, ".") {
		t.Errorf("panel %q does not tell its reader what it shows: %q", p.Title, p.Description)
	}
	if p.Datasource == nil || *p.Datasource != source || len(p.Targets) == 0 {
		t.Errorf("panel %q has no queries, or not of the chosen data source: %+v", p.Title, p.Datasource)
	}
	refs := map[string]bool{}
	for _, q := range p.Targets {
		if q.Datasource != source || refs[q.RefID] || q.RefID == "" || q.Range == q.Instant {
			t.Errorf("panel %q: the query %+v", p.Title, q)
		}
		refs[q.RefID] = true
	}
}

var variable = regexp.MustCompile(`\$\{?(\w+)`)

// asksOnlyForWhatIsChosen asserts that every variable is there and of use, and that no query forgets the choice of a server.
func asksOnlyForWhatIsChosen(t *testing.T, d Dashboard) {
	used := map[string]bool{}
	look := func(title, text string) {
		for _, m := range variable.FindAllStringSubmatch(text, -1) {
			used[m[1]] = true
		}
		for _, s := range regexp.MustCompile(`greenroom_\w+(\{[^}]*\})?`).FindAllString(text, -1) {
			if !strings.Contains(s, `{instance=~"$server"`) {
				t.Errorf("%s: %s is asked of every server", title, s)
			}
		}
	}
	for _, p := range d.Panels {
		used[p.Repeat] = true
		for _, q := range p.Targets {
			look(p.Title, q.Expr)
		}
	}
	look("the annotation", d.Annotations.List[0].Expr)
	known := []string{"", "datasource", "__interval", "__range", "__rate_interval"}
	for _, v := range d.Templating.List {
		known = append(known, v.Name)
		if v.Type == "query" && (*v.Datasource != source || !v.Multi || !v.IncludeAll) {
			t.Errorf("the variable %+v", v)
		}
		if !used[v.Name] && v.Name != "datasource" {
			t.Errorf("the variable %s is of no use", v.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(used)) {
		if !slices.Contains(known, name) {
			t.Errorf("there is no variable %s", name)
		}
	}
}

// each calls f with every panel of every dashboard.
func each(f func(dashboard string, p Panel)) {
	for name, d := range dashboards() {
		for _, p := range d.Panels {
			f(name, p)
		}
	}
}

func TestWhatSeveralServersTellAlikeIsTakenOnce(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, labels := range shared {
		if row := regexp.MustCompile("(?m)^\\| `greenroom_" + name + "` \\| \\w+ \\| (.*?) \\|").FindSubmatch(text); row == nil || strings.ReplaceAll(string(row[1]), "`", "") != labels {
			t.Errorf("docs/metrics.md has not the labels %s of %s: %q", labels, name, row)
		}
	}
	metric, taken := regexp.MustCompile(`(max by \(([^)]*)\) \((?:\w+\()?)?greenroom_(\w+)`), 0
	each(func(dashboard string, p Panel) {
		for _, q := range p.Targets {
			for _, m := range metric.FindAllStringSubmatch(q.Expr, -1) {
				if labels := shared[m[3]]; labels != "" && m[2] != labels {
					t.Errorf("%s, %s: %s is counted once for each server: %s", dashboard, p.Title, m[3], q.Expr)
				} else if labels != "" {
					taken++
				}
			}
		}
	})
	if taken < 50 {
		t.Errorf("only %d of them are found", taken)
	}
}

func TestHeatmapsAreMadeOfBuckets(t *testing.T) {
	heatmaps := 0
	each(func(dashboard string, p Panel) {
		for _, q := range p.Targets {
			heat, raw := p.Type == "heatmap", strings.Contains(q.Expr, "_bucket{") && !strings.Contains(q.Expr, "histogram_quantile(")
			whole := strings.HasPrefix(q.Expr, "sum by (le) (increase(") && q.Format == "heatmap" && q.LegendFormat == "{{le}}" && q.Range && len(p.Targets) == 1
			if heat != raw || heat && !whole || !heat && q.Format == "heatmap" || (p.Type == "table") != (q.Format == "table") {
				t.Errorf("%s, %s is a %s of %+v", dashboard, p.Title, p.Type, q)
			}
			if heat {
				heatmaps++
			}
		}
	})
	if heatmaps != 5 {
		t.Errorf("%d heatmaps, want three of waits, one of leases, one of guests", heatmaps)
	}
}

func TestUnitsAreThoseOfGrafana(t *testing.T) {
	known := []string{"", seconds, ratio, number, perSec, memory} // as in Grafana's valueFormats
	each(func(dashboard string, p Panel) {
		if p.FieldConfig == nil {
			return
		}
		units := []any{p.FieldConfig.Defaults.Unit}
		for _, o := range p.FieldConfig.Overrides {
			for _, property := range o.Properties {
				if property.ID == "unit" {
					units = append(units, property.Value)
				}
			}
		}
		for _, u := range units {
			if !slices.Contains(known, u.(string)) {
				t.Errorf("%s, %s: the unit %q", dashboard, p.Title, u)
			}
		}
	})
}

func TestStatesAreStackedInTheirColoursUnderDesiredAndMax(t *testing.T) {
	stocks := 0
	each(func(dashboard string, p Panel) {
		colours, legends := map[string]string{}, []string{}
		for _, q := range p.Targets {
			legends = append(legends, q.LegendFormat)
		}
		if !slices.Contains(legends, "tainted") {
			return
		}
		stocks++
		for _, o := range p.FieldConfig.Overrides {
			for _, property := range o.Properties {
				if c, ok := property.Value.(Color); ok && c.Mode == "fixed" {
					colours[o.Matcher.Options] = c.FixedColor
				}
			}
		}
		var want []string
		for _, s := range states {
			want = append(want, s.name)
			if colours[s.name] != s.colour {
				t.Errorf("%s, %s: %s has the colour %q", dashboard, p.Title, s.name, colours[s.name])
			}
		}
		stacking := p.FieldConfig.Defaults.Custom.(object)["stacking"].(object)["mode"]
		if !slices.Equal(legends, append(want, "desired", "max")) || stacking != "normal" {
			t.Errorf("%s, %s stacks %v, %v", dashboard, p.Title, legends, stacking)
		}
	})
	if stocks != 2 {
		t.Errorf("%d panels show states, want one of all and one for each pool", stocks)
	}
}

func TestEveryStateHasAColourOfItsOwn(t *testing.T) {
	colours := map[string]string{}
	for _, s := range states {
		if other := colours[s.colour]; other != "" {
			t.Errorf("%s has the colour of %s", s.name, other)
		}
		colours[s.colour] = s.name
	}
	drawn := slices.Sorted(maps.Values(colours))
	var there []string
	for _, s := range lease.States {
		there = append(there, string(s))
	}
	slices.Sort(there)
	if !slices.Equal(drawn, there) {
		t.Errorf("colours for %v, states are %v", drawn, there)
	}
}
