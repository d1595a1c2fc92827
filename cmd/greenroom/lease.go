package main

import (
	"context"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"greenroom/lease"
	"greenroom/lease/client"
)

func newLease() *cobra.Command {
	at := &link{}
	cmd := group("lease", "Look at leases and at requests that wait", newLeaseList(at))
	at.flags(cmd)
	return cmd
}

func newLeaseList(at *link) *cobra.Command {
	var cache string
	cmd := &cobra.Command{Use: "list", Short: "List your leases and the requests that wait; an admin sees everybody's", Args: exactArgs()}
	cmd.Flags().StringVar(&cache, "cache", "", "only of this cache")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ask := func(ctx context.Context, c *client.Client) ([]client.Lease, error) { return c.Leases(ctx, cache) }
		return look(cmd, at, ask, leaseTable)
	}
	return cmd
}

func leaseTable(w *tabwriter.Writer, leases []client.Lease) {
	row(w, "LEASE", "PHASE", "GUEST", "HOLDER", "OWNER", "SINCE", "UNTIL")
	for _, l := range leases {
		guest, since, until := "", l.Created, l.WaitUntil
		if l.Phase == lease.Active {
			since, until = l.Granted, l.Deadline
		}
		if l.Guest != nil {
			guest = l.Guest.Name
		}
		row(w, l.ID, l.Phase, guest, l.Holder, l.Owner, ago(since), local(until))
	}
}
