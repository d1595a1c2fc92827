package main

import (
	"github.com/spf13/cobra"

	"greenroom/lease/client"
)

func newRenew() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "renew LEASE",
		Short: "Send one heartbeat: the lease lives a ttl longer, up to its cap",
		Args:  exactArgs("LEASE"),
	}
	at := linked(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := at.open(cmd, soon)
		if err != nil {
			return err
		}
		l, err := c.Renew(cmd.Context(), args[0], client.Renewal{})
		if err != nil {
			return hinted(err)
		}
		return printLease(cmd, l)
	}
	return cmd
}
