package main

import (
	"fmt"
	"regexp"
	"strings"
)

// queueTarget is how long a request may wait before it is bad, in seconds. The alert GreenroomQueueOld has the same number.
const queueTarget = 600

// Units as Grafana calls them.
const (
	seconds = "s"
	ratio   = "percentunit"
	number  = "short"
	perSec  = "reqps"
	memory  = "bytes"
)

// Colours that mean something; Grafana has a shade of each for dark and for light.
const (
	good, warn, bad, plain = "green", "orange", "red", "text"
)

var source = Source{Type: "prometheus", UID: "${datasource}"}

// selectors are written short in queries, so that none forgets a variable.
var selectors = strings.NewReplacer(
	"{SERVER", `{instance=~"$server"`,
	"{POOL", `{instance=~"$server",pool=~"$pool"`,
	"{CACHE", `{instance=~"$server",cache=~"$cache"`,
)

// shared are the metrics that each server on a store tells alike, with their labels.
var shared = map[string]string{
	"guests": "pool, cache, state", "pool_max": "pool", "cache_size": "cache", "cache_warm": "cache", "cache_enabled": "cache",
	"cache_hits_total": "cache", "cache_misses_total": "cache", "cache_removals_total": "cache, reason", "guest_deaths_total": "pool, reason",
	"leases": "cache", "leases_ended_total": "cache, how", "queue_length": "cache", "queue_oldest_seconds": "cache",
	"shards": "pool, condition", "pool_condition": "pool, condition", "terraform_breaker": "pool", "watchdog_brake": "pool",
}

var sharing = regexp.MustCompile(`once(\((?:\w+\()?greenroom_(\w+))`)

// written spells out what queries have in short: selectors, and once(…), which takes what several servers tell alike from
// one of them.
func written(expr string) string {
	expr = sharing.ReplaceAllStringFunc(expr, func(s string) string {
		m := sharing.FindStringSubmatch(s)
		return fmt.Sprintf("max by (%s) %s", shared[m[2]], m[1])
	})
	return selectors.Replace(expr)
}

// series is a query over the time that is shown.
func series(legend, expr string) Target {
	return Target{
		Datasource: source, EditorMode: "code", Expr: written(expr), Format: "time_series", LegendFormat: legend, Range: true,
	}
}

// events is a query that counts what is rare: a step of it is never so short that nothing falls into most of them.
func events(legend, expr string) Target {
	t := series(legend, expr)
	t.Interval = "2m"
	return t
}

// quantile asks for what that share of a histogram did not exceed. Where nothing was counted there is no line.
func quantile(share float64, by, histogram string) string {
	return fmt.Sprintf(`histogram_quantile(%g, sum by (le, %s) (rate(%s[$__rate_interval]))) >= 0`, share, by, histogram)
}

// now is a query of this moment.
func now(legend, expr string) Target {
	t := series(legend, expr)
	t.Range, t.Instant = false, true
	return t
}

// buckets is a query of a histogram's buckets.
func buckets(expr string) Target {
	t := events("{{le}}", expr)
	t.Format = "heatmap"
	return t
}

func column(expr string) Target {
	t := now("", expr)
	t.Format = "table"
	return t
}

func panel(kind, title, about string, w, h int, options any, targets []Target) Panel {
	for i := range targets {
		targets[i].RefID = string(rune('A' + i))
	}
	return Panel{
		Type: kind, Title: title, Description: about, Datasource: &source, Targets: targets, GridPos: Grid{W: w, H: h}, Options: options,
		FieldConfig: &Fields{Defaults: Field{Color: &Color{Mode: "thresholds"}}, Overrides: []Override{}},
	}
}

type object = map[string]any

// stat shows one number, or one for each series.
func stat(title, about string, targets ...Target) Panel {
	p := panel("stat", title, about, 4, 4, object{
		"colorMode": "value", "graphMode": "none", "justifyMode": "auto", "orientation": "auto", "percentChangeColorMode": "standard",
		"showPercentChange": false, "textMode": "auto", "wideLayout": true,
		"reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false},
	}, targets)
	return p.steps(plain)
}

// named shows the name of a stat's series in place of its value.
func (p Panel) named(mode string) Panel {
	p.Options.(object)["textMode"] = mode
	return p
}

// graph shows lines.
func graph(title, about string, targets ...Target) Panel {
	p := panel("timeseries", title, about, 8, 8, object{
		"legend":  object{"calcs": []string{"lastNotNull", "max"}, "displayMode": "table", "placement": "bottom", "showLegend": true},
		"tooltip": object{"mode": "multi", "sort": "desc"},
	}, targets)
	p.FieldConfig.Defaults.Color = &Color{Mode: "palette-classic"}
	p.FieldConfig.Defaults.Custom = object{
		"drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": false,
		"stacking": object{"group": "A", "mode": "none"}, "thresholdsStyle": object{"mode": "off"}, "axisPlacement": "auto",
	}
	return p.from(0)
}

func (p Panel) custom(name string, v any) Panel {
	p.FieldConfig.Defaults.Custom.(object)[name] = v
	return p
}

// stepped draws what changes at once.
func (p Panel) stepped() Panel { return p.custom("lineInterpolation", "stepAfter") }

// stacked draws series on top of each other.
func (p Panel) stacked() Panel {
	return p.custom("stacking", object{"group": "A", "mode": "normal"}).custom("fillOpacity", 60).custom("lineWidth", 0)
}

// bars draws counts of events.
func (p Panel) bars() Panel {
	return p.stacked().custom("drawStyle", "bars").whole()
}

// limit draws the thresholds as lines.
func (p Panel) limit(more ...Step) Panel {
	return p.steps(good, more...).custom("thresholdsStyle", object{"mode": "dashed"})
}

// heat shows how a histogram moves.
func heat(title, about string, targets ...Target) Panel {
	p := panel("heatmap", title, about, 8, 9, object{
		"calculate": false, "cellGap": 1, "cellValues": object{"decimals": 1}, "exemplars": object{"color": "rgba(255,0,255,0.7)"},
		"color": object{
			"exponent": 0.5, "fill": "dark-blue", "mode": "scheme", "reverse": true, "scale": "exponential", "scheme": "Blues", "steps": 64,
		},
		"filterValues": object{"le": 1e-9}, "legend": object{"show": true}, "rowsFrame": object{"layout": "auto"}, "showValue": "never",
		"tooltip": object{"mode": "single", "showColorScale": false, "yHistogram": false},
		"yAxis":   object{"axisPlacement": "left", "reverse": false, "unit": seconds},
	}, targets)
	p.FieldConfig.Defaults = Field{Custom: object{"hideFrom": object{"legend": false, "tooltip": false, "viz": false}, "scaleDistribution": object{"type": "linear"}}}
	return p
}

// strips shows states over time, a strip for each series.
func strips(title, about string, words []Word, targets ...Target) Panel {
	p := panel("state-timeline", title, about, 8, 8, object{
		"alignValue": "left", "mergeValues": true, "rowHeight": 0.8, "showValue": "auto",
		"legend":  object{"calcs": []string{}, "displayMode": "list", "placement": "bottom", "showLegend": true},
		"tooltip": object{"mode": "single", "sort": "none"},
	}, targets)
	p.FieldConfig.Defaults.Custom = object{"fillOpacity": 70, "lineWidth": 0}
	return p.words(words...)
}

// table shows one line for each value of a label, and a column for each query.
func table(title, about, label string, columns []string, targets ...Target) Panel {
	p := panel("table", title, about, 16, 8, object{"cellHeight": "sm", "frameIndex": 0, "showHeader": true}, targets)
	names, order := object{label: label}, object{label: 0}
	for i, c := range columns {
		names["Value #"+targets[i].RefID], order["Value #"+targets[i].RefID] = c, i+1
	}
	p.FieldConfig.Defaults.Custom = object{"align": "auto", "cellOptions": object{"type": "auto"}, "filterable": false, "inspect": false}
	p.Transformations = []Transform{
		{"merge", object{}},
		{"organize", object{"excludeByName": object{"Time": true}, "indexByName": order, "renameByName": names}},
	}
	return p.steps(plain)
}

func (p Panel) size(w, h int) Panel {
	p.GridPos.W, p.GridPos.H = w, h
	return p
}

func (p Panel) unit(u string) Panel {
	p.FieldConfig.Defaults.Unit = u
	return p
}

// empty is shown where there is nothing to show, which is no fault.
func (p Panel) empty(words string) Panel {
	p.FieldConfig.Defaults.NoValue = words
	return p
}

// whole shows numbers without decimals.
func (p Panel) whole() Panel {
	p.FieldConfig.Defaults.Decimals = new(int)
	return p
}

func (p Panel) from(v float64) Panel {
	p.FieldConfig.Defaults.Min = &v
	return p
}

// share shows parts of a whole.
func (p Panel) share() Panel {
	p = p.unit(ratio)
	p.FieldConfig.Defaults.Max = new(1.0)
	return p
}

// at is a threshold.
func at(v float64, colour string) Step { return Step{colour, &v} }

func (p Panel) steps(first string, more ...Step) Panel {
	p.FieldConfig.Defaults.Thresholds = &Thresholds{"absolute", append([]Step{{Color: first}}, more...)}
	return p
}

// words shows 0, 1, … as words.
func (p Panel) words(words ...Word) Panel {
	p.FieldConfig.Defaults.Mappings = []Mapping{mapping(words)}
	return p
}

func mapping(words []Word) Mapping {
	m := Mapping{Type: "value", Options: map[string]Word{}}
	for i, w := range words {
		w.Index = i
		m.Options[string(rune('0'+i))] = w
	}
	return m
}

// field shows one series or column otherwise than the others.
func (p Panel) field(name string, properties ...Property) Panel {
	p.FieldConfig.Overrides = append(p.FieldConfig.Overrides, Override{Matcher{"byName", name}, properties})
	return p
}

func colour(c string) Property { return Property{"color", Color{FixedColor: c, Mode: "fixed"}} }

// mark draws a series as a line over what is stacked.
func (p Panel) mark(name string, style ...int) Panel {
	line := object{"fill": "solid"}
	if len(style) > 0 {
		line = object{"fill": "dash", "dash": style}
	}
	return p.field(name, colour(plain), Property{"custom.stacking", object{"group": "A", "mode": "none"}},
		Property{"custom.fillOpacity", 0}, Property{"custom.lineWidth", 2}, Property{"custom.lineStyle", line})
}
