package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"greenroom/lease/client"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/plan"
)

func newStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the whole house: spec, store, Terraform, pools, caches",
		Args:  exactArgs(),
	}
	at := linked(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ask := func(ctx context.Context, c *client.Client) (client.Status, error) { return c.Status(ctx) }
		return look(cmd, at, ask, statusTable)
	}
	return cmd
}

func statusTable(w *tabwriter.Writer, st client.Status) {
	specRows(w, st.Status)
	store, binary := "in use", st.Terraform
	if st.Store != "" {
		store = "AWAY: " + st.Store
	}
	if binary == "" {
		binary = "none was found"
	}
	row(w, "STORE", store)
	row(w, "TERRAFORM", fmt.Sprintf("%s, processes so far: %d", binary, st.Processes))
	for _, c := range st.Conditions {
		if c.Status || c.Message != "" { // what is not so needs no line
			lines(w, strings.ToUpper(string(c.Type)), reasoned(c))
		}
	}
	row(w)
	poolRows(w, st.Pools, st.Store)
	row(w)
	cacheTable(w, st.Caches)
}

// faultLines is how much of a fault is shown at once.
const faultLines = 30

// specRows tell what is in force, and why nothing newer is.
func specRows(w *tabwriter.Writer, st condition.Status) {
	inForce := "nothing is in force yet, from " + st.Source
	if st.Revision != "" {
		inForce = fmt.Sprintf("%s from %s, came into force %s", plan.Short(st.Revision), st.Source, ago(st.SpecSince))
	}
	row(w, "SPEC", inForce)
	f := st.SpecFault
	if f == nil {
		return
	}
	what, found := "no newer revision can be read", f.Reason
	if f.Revision != "" {
		what = "the newer revision " + plan.Short(f.Revision) + " is not in force"
	}
	if !f.Since.IsZero() {
		found += ", found " + ago(f.Since)
	}
	label := map[bool]string{true: "HELD", false: "FAULT"}[f.Held()]
	lines(w, label, fmt.Sprintf("%s (%s): %s", what, found, strings.TrimSpace(f.Message)))
	if f.Plan != "" {
		row(w, "NEXT", fmt.Sprintf("see it with \"greenroom plan show %s\"; an admin lets it come into force with \"greenroom plan approve %s\"", f.Plan, f.Plan))
	}
}

// lines writes a text of several lines beside its label.
func lines(w *tabwriter.Writer, label, text string) {
	all := strings.Split(text, "\n")
	row(w, label, all[0])
	for _, line := range all[1:min(len(all), faultLines)] {
		row(w, " ", line)
	}
	if more := len(all) - faultLines; more > 0 {
		row(w, " ", fmt.Sprintf("… and %s: see -o json", count(more, "more line")))
	}
}

// joined puts the lines of a text into one.
func joined(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "\n", " / ") }

// oneLine is a text as one line of a bounded length. The middle is left out first: a failure begins with what failed, and its
// output ends with why.
func oneLine(s string) string {
	const head, tail = 150, 250
	text := []rune(joined(s))
	if len(text) <= head+tail {
		return string(text)
	}
	return string(text[:head]) + " … " + string(text[len(text)-tail:])
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func reasoned(c condition.Condition) string {
	text := fmt.Sprint(c.Status)
	if message := strings.TrimSpace(c.Message); message != "" {
		text += ": " + message
	}
	return fmt.Sprintf("%s (%s, %s)", text, c.Reason, ago(c.Since))
}

// standing is the condition that says most: a human must act, tried again later, under way, ready.
func standing(conditions []condition.Condition) string {
	order := []condition.Type{condition.Stalled, condition.Waiting, condition.Reconciling, condition.Ready}
	for _, want := range order {
		for _, c := range conditions {
			if c.Type == want && c.Status {
				return strings.TrimSuffix(fmt.Sprintf("%s: %s", c.Type, firstLine(c.Message)), ": ")
			}
		}
	}
	return "not ready"
}
