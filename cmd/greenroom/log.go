package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"greenroom/lease/client"
)

var logLevels = []string{"debug", "info", "warn", "error"}

func newLog() *cobra.Command {
	at := &link{}
	cmd := group("log", "Look at and change how much the server logs", newLogLevel(at))
	at.flags(cmd)
	return cmd
}

func newLogLevel(at *link) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "level [debug|info|warn|error]",
		Short: "Show the level of the server's log, or change it while it runs",
		Long: "Show the level of the server's log, or change it while it runs: until the next change or the end of the server. \"serve\n" +
			"--log-level\" is what it starts with. Runs that are under way, and guests, have logs of their own.",
		Example:   "  greenroom log level debug",
		ValidArgs: logLevels,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && !slices.Contains(logLevels, args[0]) {
				return usage("the log has no level %q, want one of %s", args[0], strings.Join(logLevels, ", "))
			}
			return atMostOneArg(cmd, args)
		},
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ask := func(ctx context.Context, c *client.Client) (client.Log, error) {
			if len(args) == 0 {
				return c.Log(ctx)
			}
			return c.SetLog(ctx, client.Log{Level: args[0]})
		}
		return look(cmd, at, ask, func(w *tabwriter.Writer, l client.Log) { fmt.Fprintln(w, l.Level) })
	}
	return cmd
}

// redisLog hands what the Redis client says of its connections to the server's log. It is of use to who looks for a fault;
// that the store is away is told once, by the server.
type redisLog struct{ log *slog.Logger }

func (r redisLog) Printf(ctx context.Context, format string, v ...any) {
	r.log.DebugContext(ctx, "redis: "+fmt.Sprintf(format, v...))
}
