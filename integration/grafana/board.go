package main

// columns that a dashboard has.
const columns = 24

// board lays panels out: from left to right, and on to the next line where one does not fit.
type board struct {
	Dashboard
	y int
}

func newBoard(uid, title, about string, variables ...Variable) *board {
	return &board{Dashboard: Dashboard{
		UID: uid, Title: title, Description: about, Tags: []string{"greenroom"}, Editable: true, GraphTooltip: 1, Refresh: "30s",
		SchemaVersion: 41, Time: Range{"now-6h", "now"}, Timezone: "browser",
		Annotations: list[Annotation]{[]Annotation{revisions}},
		Links: []Link{{
			Icon: "external link", IncludeVars: true, KeepTime: true, Tags: []string{"greenroom"}, Title: "Greenroom", Type: "dashboards",
		}},
		Templating: list[Variable]{append([]Variable{datasource, server}, variables...)},
	}}
}

// row puts panels below what is there, under a title.
func (b *board) row(title string, panels ...Panel) { b.place("", title, panels) }

// each puts panels below what is there, once for each value of a variable.
func (b *board) each(variable, title string, panels ...Panel) { b.place(variable, title, panels) }

func (b *board) place(repeat, title string, panels []Panel) {
	open := false
	b.add(Panel{Type: "row", Title: title, Collapsed: &open, Panels: &[]Panel{}, Repeat: repeat, GridPos: Grid{H: 1, W: columns}}, 0, b.y)
	b.y++
	x, line := 0, 0
	for _, p := range panels {
		if x+p.GridPos.W > columns {
			x, line, b.y = 0, 0, b.y+line
		}
		b.add(p, x, b.y)
		x, line = x+p.GridPos.W, max(line, p.GridPos.H)
	}
	b.y += line
}

func (b *board) add(p Panel, x, y int) {
	p.ID, p.GridPos.X, p.GridPos.Y = len(b.Panels)+1, x, y
	b.Panels = append(b.Panels, p)
}

var (
	datasource = Variable{Name: "datasource", Label: "Data source", Type: "datasource", Query: "prometheus", Refresh: 1}

	server = choices("server", "Server", `label_values(greenroom_spec_valid, instance)`)
	pool   = choices("pool", "Pool", `label_values(greenroom_pool_max{instance=~"$server"}, pool)`)
	cache  = choices("cache", "Cache", `label_values(greenroom_cache_size{instance=~"$server"}, cache)`)

	// revisions marks in every graph when a revision came into force: most surprises begin there.
	revisions = Annotation{
		Datasource: source, Enable: true, IconColor: "blue", Name: "Revisions", Step: "1m", TitleFormat: "Revision in force", TextFormat: "{{revision}}",
		Expr: selectors.Replace(`group by (instance, revision) (greenroom_spec_info{SERVER}) unless group by (instance, revision) (greenroom_spec_info{SERVER} offset 2m)`),
	}
)

func choices(name, label, query string) Variable {
	return Variable{
		Name: name, Label: label, Type: "query", Datasource: &source, Definition: query, Refresh: 2, Sort: 1, Multi: true, IncludeAll: true, AllValue: ".*",
		Query:   object{"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
		Current: &Choice{[]string{"All"}, []string{"$__all"}},
	}
}
