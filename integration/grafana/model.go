package main

// The part of Grafana's dashboard model (schema 41) that is used here, in the order in which Grafana itself writes it.

// Dashboard is one page.
type Dashboard struct {
	Annotations   list[Annotation] `json:"annotations"`
	Description   string           `json:"description"`
	Editable      bool             `json:"editable"`
	GraphTooltip  int              `json:"graphTooltip"` // 1: the crosshair is shared
	Links         []Link           `json:"links"`
	Panels        []Panel          `json:"panels"`
	Refresh       string           `json:"refresh"`
	SchemaVersion int              `json:"schemaVersion"`
	Tags          []string         `json:"tags"`
	Templating    list[Variable]   `json:"templating"`
	Time          Range            `json:"time"`
	Timezone      string           `json:"timezone"`
	Title         string           `json:"title"`
	UID           string           `json:"uid"`
}

type list[T any] struct {
	List []T `json:"list"`
}

// Range is what a dashboard shows at first.
type Range struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Annotation marks moments in all graphs.
type Annotation struct {
	Datasource  Source `json:"datasource"`
	Enable      bool   `json:"enable"`
	Expr        string `json:"expr"`
	IconColor   string `json:"iconColor"`
	Name        string `json:"name"`
	Step        string `json:"step"`
	TextFormat  string `json:"textFormat"`
	TitleFormat string `json:"titleFormat"`
}

// Link leads to the dashboards that have the tags.
type Link struct {
	AsDropdown  bool     `json:"asDropdown"`
	Icon        string   `json:"icon"`
	IncludeVars bool     `json:"includeVars"`
	KeepTime    bool     `json:"keepTime"`
	Tags        []string `json:"tags"`
	TargetBlank bool     `json:"targetBlank"`
	Title       string   `json:"title"`
	Tooltip     string   `json:"tooltip"`
	Type        string   `json:"type"`
	URL         string   `json:"url"`
}

// Source names a data source.
type Source struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

// Variable is one of the choices at the top.
type Variable struct {
	AllValue   string  `json:"allValue,omitempty"`
	Current    *Choice `json:"current,omitempty"`
	Datasource *Source `json:"datasource,omitempty"`
	Definition string  `json:"definition,omitempty"`
	Hide       int     `json:"hide"`
	IncludeAll bool    `json:"includeAll"`
	Label      string  `json:"label"`
	Multi      bool    `json:"multi"`
	Name       string  `json:"name"`
	Query      any     `json:"query"`
	Refresh    int     `json:"refresh"` // 2: whenever the time range changes
	Sort       int     `json:"sort"`    // 1: by name
	Type       string  `json:"type"`
}

// Choice is what a variable is set to at first.
type Choice struct {
	Text  []string `json:"text"`
	Value []string `json:"value"`
}

// Panel is a graph, a number, a table, or the head of a row of them.
type Panel struct {
	Collapsed       *bool       `json:"collapsed,omitempty"` // rows only
	Datasource      *Source     `json:"datasource,omitempty"`
	Description     string      `json:"description,omitempty"`
	FieldConfig     *Fields     `json:"fieldConfig,omitempty"`
	GridPos         Grid        `json:"gridPos"`
	ID              int         `json:"id"`
	Options         any         `json:"options,omitempty"`
	Panels          *[]Panel    `json:"panels,omitempty"` // rows only
	Repeat          string      `json:"repeat,omitempty"`
	Targets         []Target    `json:"targets,omitempty"`
	Title           string      `json:"title"`
	Transformations []Transform `json:"transformations,omitempty"`
	Type            string      `json:"type"`
}

// Grid is where a panel stands: 24 columns, and as many lines as it takes.
type Grid struct {
	H int `json:"h"`
	W int `json:"w"`
	X int `json:"x"`
	Y int `json:"y"`
}

// Target is one query.
type Target struct {
	Datasource   Source `json:"datasource"`
	EditorMode   string `json:"editorMode"`
	Expr         string `json:"expr"`
	Format       string `json:"format"`
	Instant      bool   `json:"instant"`
	Interval     string `json:"interval,omitempty"`
	LegendFormat string `json:"legendFormat,omitempty"`
	Range        bool   `json:"range"`
	RefID        string `json:"refId"`
}

// Transform is what is done with the results of queries before they are shown.
type Transform struct {
	ID      string `json:"id"`
	Options any    `json:"options"`
}

// Fields say how values are shown.
type Fields struct {
	Defaults  Field      `json:"defaults"`
	Overrides []Override `json:"overrides"`
}

// Field is how one value is shown.
type Field struct {
	Color      *Color      `json:"color,omitempty"`
	Custom     any         `json:"custom,omitempty"`
	Decimals   *int        `json:"decimals,omitempty"`
	Mappings   []Mapping   `json:"mappings,omitempty"`
	Max        *float64    `json:"max,omitempty"`
	Min        *float64    `json:"min,omitempty"`
	NoValue    string      `json:"noValue,omitempty"`
	Thresholds *Thresholds `json:"thresholds,omitempty"`
	Unit       string      `json:"unit,omitempty"`
}

// Color is a fixed one, or how it is chosen.
type Color struct {
	FixedColor string `json:"fixedColor,omitempty"`
	Mode       string `json:"mode"`
}

// Mapping shows values as words.
type Mapping struct {
	Options map[string]Word `json:"options"`
	Type    string          `json:"type"`
}

// Word is shown in place of a value.
type Word struct {
	Color string `json:"color"`
	Index int    `json:"index"`
	Text  string `json:"text"`
}

// Thresholds colour values from each step on.
type Thresholds struct {
	Mode  string `json:"mode"`
	Steps []Step `json:"steps"`
}

// Step is one threshold; the first one has no value.
type Step struct {
	Color string   `json:"color"`
	Value *float64 `json:"value"`
}

// Override shows some fields otherwise.
type Override struct {
	Matcher    Matcher    `json:"matcher"`
	Properties []Property `json:"properties"`
}

// Matcher says which fields.
type Matcher struct {
	ID      string `json:"id"`
	Options string `json:"options"`
}

// Property is what is otherwise.
type Property struct {
	ID    string `json:"id"`
	Value any    `json:"value"`
}
