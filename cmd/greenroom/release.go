package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"greenroom/lease"
	"greenroom/lease/client"
)

func newRelease() *cobra.Command {
	var outcome string
	var hold time.Duration
	var discard bool
	cmd := &cobra.Command{
		Use:   "release LEASE",
		Short: "End a lease, so that its guest goes back on the shelf; or cancel a request",
		Args:  exactArgs("LEASE"),
	}
	cmd.Flags().StringVar(&outcome, "outcome", "", "how the job went: pass or fail")
	cmd.Flags().DurationVar(&hold, "hold", 0, "keep the guest aside for diagnosis for so long")
	cmd.Flags().BoolVar(&discard, "discard", false, "never shelve this guest again: replace it")
	at := linked(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if outcome != "" && outcome != "pass" && outcome != "fail" {
			return usage("--outcome %q, want pass or fail", outcome)
		}
		if hold < 0 {
			return usage("--hold %v is negative", hold)
		}
		c, err := at.open(cmd, soon)
		if err != nil {
			return err
		}
		shelve := !discard
		l, err := c.Release(cmd.Context(), args[0], client.Release{Outcome: outcome, Hold: client.Duration(hold), Shelve: &shelve})
		if errors.Is(err, lease.ErrHoldBudget) {
			return fmt.Errorf("%w; the lease goes on meanwhile: release it without --hold", hinted(err))
		}
		if err != nil {
			return hinted(err)
		}
		if l.Reason != "" {
			loud(cmd)(l.Reason)
		}
		if isJSON(cmd) {
			return writeJSON(cmd.OutOrStdout(), l)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", l.ID, l.How)
		return err
	}
	return cmd
}
