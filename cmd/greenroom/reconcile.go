package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"greenroom/lease/client"
)

func newReconcile() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reconcile [POOL...]",
		Short: "Look now, at some pools or all of them",
	}
	at := linked(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ask := func(ctx context.Context, c *client.Client) ([]string, error) { return c.Reconcile(ctx, args...) }
		return look(cmd, at, ask, func(w *tabwriter.Writer, woken []string) { fmt.Fprintf(w, "woken: %s\n", strings.Join(woken, ", ")) })
	}
	return cmd
}
