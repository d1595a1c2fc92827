package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"greenroom/lease/client"
	"greenroom/reconcile/condition"
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
	row(w, "SPEC", fmt.Sprintf("%s from %s, in force since %s", st.Revision, st.Source, ago(st.SpecSince)))
	if f := st.SpecFault; f != nil {
		row(w, "", fmt.Sprintf("the newest revision %s is not in force: %s since %s: %s", f.Revision, f.Reason, ago(f.Since), firstLine(f.Message)))
		if f.Plan != "" {
			row(w, "", "see it with \"greenroom plan show "+f.Plan+"\"; let it come into force with \"greenroom plan approve "+f.Plan+"\"")
		}
	}
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
		row(w, strings.ToUpper(string(c.Type)), reasoned(c))
	}
	row(w)
	poolTable(w, st.Pools)
	row(w)
	cacheTable(w, st.Caches)
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
