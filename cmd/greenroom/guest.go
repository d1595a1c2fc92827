package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/reconcile/plan"
)

func newGuest() *cobra.Command {
	at := &link{}
	cmd := group("guest", "Look at guests, probe, taint and hold them",
		newGuestList(at), newGuestShow(at), newGuestEvents(at), newGuestTaint(at), newGuestProbe(at), newGuestHold(at))
	at.flags(cmd)
	return cmd
}

func newGuestList(at *link) *cobra.Command {
	var pool string
	cmd := &cobra.Command{Use: "list", Short: "List the guests of all pools", Args: exactArgs()}
	cmd.Flags().StringVar(&pool, "pool", "", "only of this pool")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ask := func(ctx context.Context, c *client.Client) ([]lease.Guest, error) { return c.Guests(ctx, pool) }
		return look(cmd, at, ask, guestTable)
	}
	return cmd
}

func guestTable(w *tabwriter.Writer, guests []lease.Guest) {
	row(w, "GUEST", "INCARNATION", "CACHE", "STATE", "SINCE", "USES", "ADDRESS", "REASON")
	for _, g := range guests {
		row(w, g.Name, g.Incarnation, g.Cache, g.State, ago(g.Since), g.Uses, address(g), firstLine(why(g)))
	}
}

func address(g lease.Guest) string {
	if g.Host == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d", g.Host, g.Port)
}

// why is what there is to say of a guest: its taint to come, its health, or the reason of its state.
func why(g lease.Guest) string {
	switch {
	case g.Condemned != "":
		return "to be tainted: " + g.Condemned
	case g.Health != "":
		return g.Health
	}
	return g.Reason
}

func newGuestShow(at *link) *cobra.Command {
	return &cobra.Command{Use: "show GUEST", Short: "Show one guest", Args: exactArgs("GUEST"), RunE: func(cmd *cobra.Command, args []string) error {
		ask := func(ctx context.Context, c *client.Client) (heldGuest, error) { return holderOf(ctx, c, args[0]) }
		return look(cmd, at, ask, heldDetails)
	}}
}

// heldGuest is a guest with who has leased it, as far as the caller may know.
type heldGuest struct {
	lease.Guest
	Holder string `json:"holder,omitempty"`
	Owner  string `json:"owner,omitempty"` // the holder's team
}

// holderOf asks for a guest and looks for its lease among those that the caller may see: others stay hidden.
func holderOf(ctx context.Context, c *client.Client, name string) (heldGuest, error) {
	g, err := c.Guest(ctx, name)
	held := heldGuest{Guest: g}
	if err != nil || g.State != lease.Leased {
		return held, err
	}
	leases, err := c.Leases(ctx, "") // of all caches: that of the guest may be in the specs no more
	for _, l := range leases {
		if l.Guest != nil && l.Guest.Name == g.Name && l.Guest.Incarnation == g.Incarnation {
			held.Holder, held.Owner = l.Holder, l.Owner
		}
	}
	return held, err
}

func heldDetails(w *tabwriter.Writer, g heldGuest) {
	guestDetails(w, g.Guest)
	if g.Holder != "" {
		row(w, "holder", fmt.Sprintf("%s (%s)", g.Holder, g.Owner))
	}
}

func guestDetails(w *tabwriter.Writer, g lease.Guest) {
	guestTable(w, []lease.Guest{g})
	row(w)
	for _, kv := range [][2]string{
		{"shard", g.Shard},
		{"digest", g.Digest},
		{"run", g.Run},
		{"id", g.ID},
		{"user", g.User},
		{"host key", g.HostKey},
		{"lease", g.Lease},
		{"born", ago(g.Born)},
		{"until", local(g.Until)},
		{"evidence", g.Evidence},
	} {
		if kv[1] != "" {
			row(w, kv[0], joined(kv[1]))
		}
	}
}

func newGuestEvents(at *link) *cobra.Command {
	var n int
	cmd := &cobra.Command{Use: "events GUEST", Short: "Show the history of a guest, newest first", Args: exactArgs("GUEST")}
	cmd.Flags().IntVarP(&n, "number", "n", 50, "how many events, 1 to 200")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if n < 1 || n > 200 {
			return usage("--number %d, want 1 to 200", n)
		}
		ask := func(ctx context.Context, c *client.Client) ([]lease.Event, error) { return c.Events(ctx, args[0], n) }
		return look(cmd, at, ask, historyTable)
	}
	return cmd
}

func historyTable(w *tabwriter.Writer, events []lease.Event) {
	row(w, "TIME", "INCARNATION", "CACHE", "FROM", "TO", "BY", "REASON", "DETAIL")
	for _, e := range events {
		row(w, local(e.Time), e.Incarnation, e.Cache, string(e.From), e.To, e.Actor, e.Reason, oneLine(e.Detail))
	}
}

func newGuestTaint(at *link) *cobra.Command {
	var reason string
	cmd := &cobra.Command{Use: "taint GUEST", Short: "Order a guest to be replaced, now or when its lease ends", Args: exactArgs("GUEST")}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the history")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ask := func(ctx context.Context, c *client.Client) (client.Ordered, error) {
			return c.Taint(ctx, args[0], reason)
		}
		return look(cmd, at, ask, ordered("tainted"))
	}
	return cmd
}

func newGuestProbe(at *link) *cobra.Command {
	return &cobra.Command{
		Use: "probe GUEST", Short: "Ask a guest whether it is alive; exit 1 when it is not", Args: exactArgs("GUEST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.open(cmd, soon)
			if err != nil {
				return err
			}
			p, err := c.Probe(cmd.Context(), args[0])
			if err != nil {
				return hinted(err)
			}
			text := map[bool]string{true: "alive", false: "not alive"}[p.Alive]
			err = show(cmd, p, func(w *tabwriter.Writer) { fmt.Fprintf(w, "%s is %s: %s\n", p.Guest, text, plan.Clean(p.Result)) })
			if !p.Alive {
				err = errors.Join(err, &exitError{Code: 1})
			}
			return err
		},
	}
}

func newGuestHold(at *link) *cobra.Command {
	var length time.Duration
	cmd := &cobra.Command{Use: "hold GUEST --for 4h", Short: "Keep an idle guest aside for diagnosis", Args: exactArgs("GUEST")}
	cmd.Flags().DurationVar(&length, "for", 0, "for how long; at most what the cache allows")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if length <= 0 {
			return usage("--for is missing: say how long, as --for 4h")
		}
		ask := func(ctx context.Context, c *client.Client) (lease.Guest, error) {
			return c.Hold(ctx, args[0], client.Duration(length))
		}
		return look(cmd, at, ask, guestDetails)
	}
	return cmd
}
