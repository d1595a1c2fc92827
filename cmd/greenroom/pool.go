package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"greenroom/lease"
	"greenroom/lease/client"
)

func newPool() *cobra.Command {
	at := &link{}
	cmd := group("pool", "Look at pools, pause and resume them; edit them in the specs", append([]*cobra.Command{
		newPoolList(at), newPoolShow(at), newPoolPause(at), newPoolResume(at),
	}, newEdits("pool")...)...)
	at.flags(cmd)
	return cmd
}

func newPoolList(at *link) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List every pool", Args: exactArgs(), RunE: func(cmd *cobra.Command, _ []string) error {
		ask := func(ctx context.Context, c *client.Client) ([]client.Pool, error) { return c.Pools(ctx) }
		return look(cmd, at, ask, poolTable)
	}}
}

// unknown stands for what the store would have to tell.
const unknown = "unknown"

func poolTable(w *tabwriter.Writer, pools []client.Pool) { poolRows(w, pools, "") }

// poolRows writes pools as they stand; while the store is away nobody knows how.
func poolRows(w *tabwriter.Writer, pools []client.Pool, away string) {
	row(w, "POOL", "MODULE", "MAX", "SPARE", "SHARDS", "CONDITION", "GUESTS")
	for _, p := range pools {
		state, guests := standing(p.Conditions), states(p.Guests)
		switch {
		case away != "":
			state, guests = unknown, unknown
		case p.Pause != nil:
			state = "paused by " + p.Pause.By
		case p.Brake != "":
			state = "brake: " + p.Brake
		}
		row(w, p.Pool, p.Module, p.Max, p.Spare, len(p.Shards), state, guests)
	}
}

func newPoolShow(at *link) *cobra.Command {
	return &cobra.Command{Use: "show POOL", Short: "Show one pool with its shards", Args: exactArgs("POOL"), RunE: func(cmd *cobra.Command, args []string) error {
		ask := func(ctx context.Context, c *client.Client) (client.Pool, error) { return c.Pool(ctx, args[0]) }
		return look(cmd, at, ask, poolDetails)
	}}
}

func poolDetails(w *tabwriter.Writer, p client.Pool) {
	poolTable(w, []client.Pool{p})
	row(w)
	for _, c := range p.Conditions {
		lines(w, string(c.Type), reasoned(c))
	}
	row(w)
	row(w, "SHARD", "GUESTS", "OUTDATED", "RUN", "FAILURES", "LAST RUN", "CONDITION")
	for _, s := range p.Shards {
		last := ""
		if s.LastRun != nil {
			last = s.LastRun.Result + ", " + ago(s.LastRun.Ended)
		}
		row(w, s.Shard, s.Guests, yes(s.Outdated), s.Run, s.Failures, last, standing(s.Conditions))
	}
}

func newPoolPause(at *link) *cobra.Command {
	var reason string
	cmd := &cobra.Command{Use: "pause POOL", Short: "Start no more Terraform runs for a pool", Args: exactArgs("POOL")}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the others")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ask := func(ctx context.Context, c *client.Client) (lease.Pause, error) { return c.Pause(ctx, args[0], reason) }
		return look(cmd, at, ask, func(w *tabwriter.Writer, _ lease.Pause) { fmt.Fprintf(w, "%s is paused\n", args[0]) })
	}
	return cmd
}

func newPoolResume(at *link) *cobra.Command {
	return &cobra.Command{Use: "resume POOL", Short: "End a pause", Args: exactArgs("POOL"), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := at.open(cmd, soon)
		if err != nil {
			return err
		}
		if err := c.Resume(cmd.Context(), args[0]); err != nil {
			return hinted(err)
		}
		return show(cmd, map[string]string{"resumed": args[0]}, func(w *tabwriter.Writer) { fmt.Fprintf(w, "%s is resumed\n", args[0]) })
	}}
}
