package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"greenroom/lease/client"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/plan"
)

func newReconcile() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "reconcile [POOL...]",
		Short: "Look now, at some pools or all of them",
		Long: "Look now, at some pools or all of them. With --wait: until all that their specs want is there; exit 1 when that takes longer,\n" +
			"or when a pool is paused or stalled, because then it would take forever.",
		Example: "  greenroom reconcile local --wait 10m",
	}
	cmd.Flags().DurationVar(&wait, "wait", 0, "longest time to wait until the pools have converged (default: not at all)")
	at := linked(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, name := range args {
			if err := goodArg(cmd, "POOL", name); err != nil {
				return err
			}
		}
		switch {
		case wait < 0:
			return usage("--wait %v is negative", wait)
		case wait > 0:
			return converge(cmd, at, args, wait)
		}
		ask := func(ctx context.Context, c *client.Client) ([]string, error) { return c.Reconcile(ctx, args...) }
		return look(cmd, at, ask, func(w *tabwriter.Writer, woken []string) { fmt.Fprintf(w, "woken: %s\n", strings.Join(woken, ", ")) })
	}
	return cmd
}

// converge wakes pools, waits until they have what they want, and shows them as they stand then.
func converge(cmd *cobra.Command, at *link, names []string, wait time.Duration) error {
	c, err := at.open(cmd, later)
	if err != nil {
		return err
	}
	if _, err := c.Reconcile(cmd.Context(), names...); err != nil {
		return hinted(err)
	}
	line := newProgress(cmd)
	var pools []client.Pool
	var stuck, missing string
	calm := 0 // looks in a row that found an end: the first may have come before the server's own look
	done, err := patiently(cmd.Context(), wait, func(ctx context.Context) (bool, error) {
		st, err := c.Status(ctx)
		if err != nil {
			return false, err
		}
		pools = slices.DeleteFunc(st.Pools, func(p client.Pool) bool { return len(names) > 0 && !slices.Contains(names, p.Pool) })
		stuck, missing = stuckPool(pools), outlinePools(slices.DeleteFunc(slices.Clone(pools), isReady))
		if st.Revision == "" {
			missing = "nothing is in force yet"
		}
		line.say("converging: %s", cmp.Or(missing, "all is there"))
		if calm++; stuck == "" && missing != "" {
			calm = 0
		}
		return calm == 2, nil
	})
	line.end()
	switch {
	case cmd.Context().Err() != nil:
		return interrupted("the server goes on by itself")
	case err != nil:
		return hinted(err)
	case stuck != "":
		return errors.New(plan.Clean(stuck))
	case !done:
		return fmt.Errorf("not converged after %v: %s", wait, plan.Clean(missing))
	}
	return show(cmd, pools, func(w *tabwriter.Writer) { poolTable(w, pools) })
}

// patiently calls look twice a second until it is done, fails, or wait is over: then it is not done.
func patiently(ctx context.Context, wait time.Duration, look func(ctx context.Context) (done bool, err error)) (bool, error) {
	end := time.Now().Add(wait)
	for {
		done, err := look(ctx)
		left := time.Until(end)
		if done || err != nil || left <= 0 {
			return done, err
		}
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-time.After(min(time.Second/2, left)):
		}
	}
}

func isReady(p client.Pool) bool { return condition.Of(p.Conditions, condition.Ready).Status }

// stuckPool says why waiting has no end.
func stuckPool(pools []client.Pool) string {
	for _, p := range pools {
		switch stalled := condition.Of(p.Conditions, condition.Stalled); {
		case p.Pause != nil:
			return fmt.Sprintf("pool %s is paused by %s; see \"greenroom pool resume\"", p.Pool, p.Pause.By)
		case stalled.Status:
			return fmt.Sprintf("pool %s is stalled: %s", p.Pool, firstLine(stalled.Message))
		}
	}
	return ""
}

// outlinePools says of each pool what it has by now.
func outlinePools(pools []client.Pool) string {
	parts := []string{}
	for _, p := range pools {
		has := states(p.Guests)
		if has == "" {
			has = "no guests"
		}
		parts = append(parts, fmt.Sprintf("%s (%s; %s)", p.Pool, has, standing(p.Conditions)))
	}
	return strings.Join(parts, ", ")
}
