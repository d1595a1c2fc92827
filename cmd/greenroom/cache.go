package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/reconcile/plan"
)

func newCache() *cobra.Command {
	at := &link{}
	cmd := group("cache", "Look at caches, enable and disable them, remove their guests; edit them in the specs", append([]*cobra.Command{
		newCacheList(at), newCacheShow(at), newCacheGuests(at), newCacheQueue(at), newCacheEnable(at, true), newCacheEnable(at, false),
		newCacheReset(at), newCacheRemoveGuest(at),
	}, newEdits("cache")...)...)
	at.flags(cmd)
	return cmd
}

func newCacheList(at *link) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List every cache", Args: exactArgs(), RunE: func(cmd *cobra.Command, _ []string) error {
		ask := func(ctx context.Context, c *client.Client) ([]client.Cache, error) { return c.Caches(ctx) }
		return look(cmd, at, ask, cacheTable)
	}}
}

func cacheTable(w *tabwriter.Writer, caches []client.Cache) {
	row(w, "CACHE", "OWNER", "ENABLED", "WARM", "SIZE", "MAX", "LEASES", "QUEUE", "HITS", "MISSES", "GUESTS")
	for _, c := range caches {
		name := c.Name
		if c.Invisible {
			name += " (spares)"
		}
		row(w, name, c.Owner, enabled(c), c.Warm, c.Size, c.Max, c.Leases, c.Queue, c.Hits, c.Misses, states(c.Guests))
	}
}

func enabled(c client.Cache) string {
	text := yes(c.Enabled)
	if c.Override != nil {
		text += ", by " + c.Override.By
	}
	return text
}

func newCacheShow(at *link) *cobra.Command {
	return &cobra.Command{Use: "show CACHE", Short: "Show one cache", Args: exactArgs("CACHE"), RunE: func(cmd *cobra.Command, args []string) error {
		ask := func(ctx context.Context, c *client.Client) (client.Cache, error) { return c.Cache(ctx, args[0]) }
		return look(cmd, at, ask, cacheDetails)
	}}
}

func cacheDetails(w *tabwriter.Writer, c client.Cache) {
	cacheTable(w, []client.Cache{c})
	if o := c.Override; o != nil {
		until := "until it is taken back with \"greenroom cache reset " + c.Name + "\""
		if !o.Until.IsZero() {
			until = "until " + local(o.Until)
		}
		why := strings.TrimSpace(fmt.Sprintf("Override by %s %s. %s", o.By, until, o.Reason))
		fmt.Fprintf(w, "\n%s\n", plan.Clean(why))
	}
}

func newCacheGuests(at *link) *cobra.Command {
	return &cobra.Command{Use: "guests CACHE", Short: "List the guests of a cache", Args: exactArgs("CACHE"), RunE: func(cmd *cobra.Command, args []string) error {
		ask := func(ctx context.Context, c *client.Client) ([]lease.Guest, error) { return c.CacheGuests(ctx, args[0]) }
		return look(cmd, at, ask, guestTable)
	}}
}

func newCacheQueue(at *link) *cobra.Command {
	return &cobra.Command{
		Use: "queue CACHE", Short: "List your requests that wait in a cache; an admin sees everybody's", Args: exactArgs("CACHE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ask := func(ctx context.Context, c *client.Client) ([]client.Lease, error) { return c.Queue(ctx, args[0]) }
			return look(cmd, at, ask, queueTable)
		},
	}
}

func queueTable(w *tabwriter.Writer, queue []client.Lease) {
	row(w, "PLACE", "LEASE", "HOLDER", "OWNER", "WAITS SINCE", "UNTIL", "REASON")
	for _, l := range queue {
		row(w, l.Position, l.ID, l.Holder, l.Owner, ago(l.Created), local(l.WaitUntil), whyQueued(l))
	}
}

func newCacheEnable(at *link, on bool) *cobra.Command {
	name := map[bool]string{true: "enable", false: "disable"}[on]
	var t client.Toggle
	var length time.Duration
	cmd := &cobra.Command{
		Use: name + " CACHE", Args: exactArgs("CACHE"),
		Short: map[bool]string{true: "Grant leases, whatever the spec says", false: "Grant no more leases, whatever the spec says"}[on],
	}
	cmd.Flags().DurationVar(&length, "for", 0, "for how long (default: until \"cache reset\")")
	cmd.Flags().StringVar(&t.Reason, "reason", "", "why, for the others")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if length <= 0 && cmd.Flags().Changed("for") {
			return usage("--for %v, want a time above 0; leave it out to have it so until \"greenroom cache reset\"", length)
		}
		t.For = client.Duration(length)
		ask := func(ctx context.Context, c *client.Client) (client.Cache, error) {
			return c.SetEnabled(ctx, args[0], on, t)
		}
		return look(cmd, at, ask, cacheDetails)
	}
	return cmd
}

func newCacheReset(at *link) *cobra.Command {
	return &cobra.Command{
		Use: "reset CACHE", Short: "Take enable or disable back: the spec is in force again", Args: exactArgs("CACHE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ask := func(ctx context.Context, c *client.Client) (client.Cache, error) { return c.DropOverride(ctx, args[0]) }
			return look(cmd, at, ask, cacheDetails)
		},
	}
}

func newCacheRemoveGuest(at *link) *cobra.Command {
	return &cobra.Command{
		Use: "remove-guest CACHE GUEST", Short: "Take a guest away, now or when its lease ends", Args: exactArgs("CACHE", "GUEST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ask := func(ctx context.Context, c *client.Client) (client.Ordered, error) {
				return c.RemoveGuest(ctx, args[0], args[1])
			}
			return look(cmd, at, ask, ordered("removed"))
		},
	}
}

// ordered tells when what was asked for takes place.
func ordered(what string) func(*tabwriter.Writer, client.Ordered) {
	return func(w *tabwriter.Writer, o client.Ordered) { fmt.Fprintf(w, "%s is %s %s\n", o.Guest, what, o.When) }
}
