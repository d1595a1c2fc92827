package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"text/tabwriter"
)

// result is one number that a benchmark came to.
type result struct {
	Benchmark int     `json:"benchmark"` // its number
	Name      string  `json:"name"`
	Unit      string  `json:"unit"`
	Measured  float64 `json:"measured"`
	Baseline  float64 `json:"baseline,omitempty"`
	Against   string  `json:"against,omitempty"` // what the baseline is
	Ratio     float64 `json:"ratio,omitempty"`   // as Goal wants it
	Goal      goal    `json:"goal,omitzero"`
	Verdict   string  `json:"verdict"`
}

// goal is what a result has to reach: its ratio where it has a baseline, else what was measured.
type goal struct {
	Least float64 `json:"at_least,omitempty"`
	Most  float64 `json:"at_most,omitempty"`
	None  bool    `json:"none,omitempty"` // it must be 0
}

func atLeast(n float64) goal { return goal{Least: n} }
func atMost(n float64) goal  { return goal{Most: n} }

func (g goal) String() string {
	switch {
	case g.Least > 0:
		return "at least " + number(g.Least)
	case g.Most > 0:
		return "at most " + number(g.Most)
	case g.None:
		return "none"
	}
	return ""
}

// The verdicts. A number without a goal is there to explain another.
const (
	passes = "PASS"
	falls  = "FALLS SHORT"
)

func (r result) judged() result {
	n := r.Measured
	if r.Baseline > 0 {
		n = r.Ratio
	}
	switch {
	case r.Goal == goal{}:
	case n >= r.Goal.Least && (r.Goal.Most == 0 || n <= r.Goal.Most) && (!r.Goal.None || n == 0):
		r.Verdict = passes
	default:
		r.Verdict = falls
	}
	return r
}

// number writes a number with three digits that say something.
func number(n float64) string {
	switch {
	case n == 0:
		return "0"
	case n >= 100:
		return strconv.FormatFloat(n, 'f', 0, 64)
	case n >= 10:
		return strconv.FormatFloat(n, 'f', 1, 64)
	}
	return strconv.FormatFloat(n, 'f', 2, 64)
}

var columns = []string{"#", "benchmark", "measured", "baseline", "ratio", "goal", "verdict"}

func (r result) cells() []string {
	cells := []string{strconv.Itoa(r.Benchmark), r.Name, number(r.Measured) + " " + r.Unit, "", "", r.Goal.String(), r.Verdict}
	if r.Baseline > 0 {
		cells[3], cells[4] = fmt.Sprintf("%s %s (%s)", number(r.Baseline), r.Unit, r.Against), number(r.Ratio)
	}
	return cells
}

// table writes the results for people at a terminal.
func table(w io.Writer, results []result) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(cells []string) {
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(tab, "\t")
			}
			fmt.Fprint(tab, c)
		}
		fmt.Fprintln(tab)
	}
	line(columns)
	for _, r := range results {
		line(r.cells())
	}
	return tab.Flush()
}

// report is a whole run.
type report struct {
	Machine machine  `json:"machine"`
	Results []result `json:"results"`
}

func writeJSON(path string, r report) error {
	body, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(body, '\n'), 0o644)
}
