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
	row(w, "TERRAFORM", fmt.Sprintf("%s, %d processes so far", binary, st.Processes))
	for _, c := range st.Conditions {
		if c.Status || c.Message != "" { // what is not so needs no line
			row(w, strings.ToUpper(string(c.Type)), reasoned(c))
		}
	}
	row(w)
	poolTable(w, st.Pools)
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
	lines := strings.Split(strings.TrimSpace(f.Message), "\n")
	row(w, label, fmt.Sprintf("%s (%s): %s", what, found, plan.Clean(lines[0])))
	for _, line := range lines[1:min(len(lines), faultLines)] {
		row(w, " ", plan.Clean(line))
	}
	if len(lines) > faultLines {
		row(w, " ", fmt.Sprintf("… and %d more lines: see -o json", len(lines)-faultLines))
	}
	if f.Plan != "" {
		row(w, "NEXT", fmt.Sprintf("see it with \"greenroom plan show %s\"; an admin lets it come into force with \"greenroom plan approve %s\"", f.Plan, f.Plan))
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func reasoned(c condition.Condition) string {
	return fmt.Sprintf("%v: %s (%s, %s)", c.Status, c.Message, c.Reason, ago(c.Since))
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
