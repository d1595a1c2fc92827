package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/reconcile/plan"
)

func newEvents() *cobra.Command {
	var f client.EventFilter
	var follow bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what has happened lately, and with --follow what happens",
		Long: "Show what has happened lately, oldest first, and with --follow what happens, until Ctrl-C. The server keeps the last 1000\n" +
			"events since its start; the whole history of a guest is in \"greenroom guest events\". -o json gives one JSON object a line.",
		Example: "  greenroom events --cache ci\n  greenroom events --follow -o json | jq -r 'select(.to == \"tainted\") | .guest'",
		Args:    exactArgs(),
	}
	flags := cmd.Flags()
	flags.BoolVarP(&follow, "follow", "f", false, "go on with what happens")
	flags.IntVarP(&f.Number, "number", "n", 20, "how many of the past, 1 to 1000; with --follow also 0")
	flags.StringVar(&f.Guest, "guest", "", "only of this guest")
	flags.StringVar(&f.Cache, "cache", "", "only of this cache")
	flags.StringVar(&f.Pool, "pool", "", "only of the guests of this pool")
	at := linked(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f.Number > 1000 || f.Number < 0 || f.Number == 0 && !follow {
			return usage("--number %d, want 1 to 1000", f.Number)
		}
		patience := soon
		if follow {
			patience = later
		}
		c, err := at.open(cmd, patience)
		if err != nil {
			return err
		}
		last, err := pastEvents(cmd, c, f)
		if follow && cmd.Context().Err() != nil { // an interrupt is how following ends
			err, follow = nil, false
		}
		if err != nil || !follow {
			return hinted(err)
		}
		f.After = last
		return followEvents(cmd, c, f)
	}
	return cmd
}

// pastEvents prints what has happened, and returns where that ends.
func pastEvents(cmd *cobra.Command, c *client.Client, f client.EventFilter) (int64, error) {
	show, wanted := eventPrinter(cmd), f.Number
	f.Number = max(f.Number, 1) // the end of the feed is wanted in any case
	feed, err := c.Feed(cmd.Context(), f)
	if err != nil {
		return 0, err
	}
	for _, e := range feed.Events[:min(wanted, len(feed.Events))] {
		if err := show(e); err != nil {
			return 0, err
		}
	}
	return feed.Last, nil
}

// followEvents prints what happens until it is interrupted, which is how following ends.
func followEvents(cmd *cobra.Command, c *client.Client, f client.EventFilter) error {
	broken := false
	say := func(text string) { fmt.Fprintln(cmd.ErrOrStderr(), "greenroom: "+plan.Clean(text)) }
	err := c.Follow(cmd.Context(), f, client.Follower{
		Event: eventPrinter(cmd),
		Open: func() {
			if broken {
				say("following again; nothing was missed, unless it is said")
			}
			broken = false
		},
		Broken: func(err error) {
			if !broken {
				say(fmt.Sprintf("%v; trying again until it is back, Ctrl-C ends that", err))
			}
			broken = true
		},
	})
	if cmd.Context().Err() == nil {
		return hinted(err)
	}
	return nil
}

// eventPrinter prints events as lines: of JSON, or for people.
func eventPrinter(cmd *cobra.Command) func(client.Event) error {
	out := cmd.OutOrStdout()
	if isJSON(cmd) {
		lines := json.NewEncoder(out)
		return func(e client.Event) error { return lines.Encode(e) }
	}
	p := paintOf(out)
	return func(e client.Event) error {
		_, err := io.WriteString(out, e.Time.Local().Format(time.DateTime)+"  "+eventLine(e, p)+"\n")
		return err
	}
}

// eventLine is an event without its time: guest, cache, what became of it, and why.
func eventLine(e client.Event, p paint) string {
	what := plan.Clean(eventMove(e))
	line := fmt.Sprintf("%-16s %-12s %s %s", dash(e.Guest), dash(e.Cache), p.state(e.To, fmt.Sprintf("%-24s", what)), eventWhy(e))
	return strings.TrimRight(line, " ")
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return plan.Clean(s)
}

func eventMove(e client.Event) string {
	switch {
	case e.To != "" && e.From != "":
		return fmt.Sprintf("%s → %s", e.From, e.To)
	case e.To != "":
		return "→ " + string(e.To)
	case e.Kind == lease.CacheToggle && e.How != "":
		return e.How
	}
	return string(e.Kind)
}

// eventWhy is the rest of an event, in a line.
func eventWhy(e client.Event) string {
	var parts []string
	add := func(format, text string) {
		if text != "" {
			parts = append(parts, fmt.Sprintf(format, text))
		}
	}
	switch e.Kind {
	case lease.Granted:
		add("granted to %s", e.By)
		add("from %s", map[string]string{"shelf": "the shelf", "spare": "the spares", "new": "new"}[e.Source])
	case lease.LeaseEnded:
		add("%s", e.How)
		add("%s", e.Outcome)
	case lease.Missed:
		add("%s", "a request waits in line")
	case client.SpecInForce, client.SpecFault:
		add("revision %s", plan.Short(e.Revision))
	case lease.GuestMoved, lease.CacheToggle:
		if e.By != "greenroom" {
			add("by %s", e.By)
		}
	}
	add("%s", e.Reason)
	add("%s", oneLine(e.Detail))
	return plan.Clean(strings.Join(parts, ", "))
}
