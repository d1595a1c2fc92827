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
