package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"greenroom/lease/client"
	"greenroom/reconcile/plan"
)

func newAcquire() *cobra.Command {
	var w wishes
	var keyFile string
	cmd := &cobra.Command{
		Use:   "acquire [--cache CACHE]",
		Short: "Lease a guest, waiting in line for it, and print where it is",
		Long: "Lease a guest, waiting in line for it, and print where it is as KEY=VALUE lines for a shell.\n\n" +
			"The lease ends by \"greenroom release\", or when it is not renewed within its ttl. Ctrl-C while in line cancels the request.",
		Example: "  eval \"$(greenroom acquire --cache ci)\"\n  greenroom ssh --lease \"$GREENROOM_LEASE\"\n  greenroom release \"$GREENROOM_LEASE\"",
		Args:    exactArgs(),
	}
	w.flags(cmd)
	cmd.Flags().StringVar(&keyFile, "public-key", "", "file with the public key to be certified for the guest")
	at := linked(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r, err := w.request()
		if err != nil {
			return err
		}
		if keyFile != "" {
			text, err := os.ReadFile(keyFile)
			if err != nil {
				return fmt.Errorf("read the public key: %w", err)
			}
			r.PublicKey = strings.TrimSpace(string(text))
		}
		c, err := at.open(cmd, later)
		if err != nil {
			return err
		}
		l, err := c.Acquire(cmd.Context(), r, inLine(cmd))
		if err != nil {
			return unleased(cmd, err)
		}
		cutTTL(cmd, r, l)
		if err := printLease(cmd, l); err != nil {
			return unprinted(cmd, c, l, err)
		}
		return nil
	}
	return cmd
}

// cutTTL tells of a ttl that is not what was asked for: who sends heartbeats by hand would send them too late.
func cutTTL(cmd *cobra.Command, r client.Request, l client.Lease) {
	if l.TTL > 0 && l.TTL < r.TTL {
		fmt.Fprintf(cmd.ErrOrStderr(), "greenroom: the ttl of the lease is %v instead of %v: cache %s grants no longer leases\n", time.Duration(l.TTL), time.Duration(r.TTL), plan.Clean(l.Cache))
	}
}

// unprinted gives a lease back whose id nobody has read: nobody else could, and its guest would be idle until it expires.
func unprinted(cmd *cobra.Command, c *client.Client, l client.Lease, err error) error {
	if _, unreleased := c.Release(context.WithoutCancel(cmd.Context()), l.ID, client.Release{}); unreleased != nil {
		return fmt.Errorf("lease %s could be neither printed (%w) nor given back: %w", l.ID, err, unreleased)
	}
	return fmt.Errorf("the lease could not be printed and was given back: %w", err)
}

func printLease(cmd *cobra.Command, l client.Lease) error {
	if isJSON(cmd) {
		return writeJSON(cmd.OutOrStdout(), l)
	}
	g := client.Guest{}
	if l.Guest != nil {
		g = *l.Guest
	}
	var lines strings.Builder
	for _, kv := range [][2]string{
		{"LEASE", l.ID},
		{"CACHE", l.Cache},
		{"PHASE", string(l.Phase)},
		{"GUEST", g.Name},
		{"HOST", g.Host},
		{"PORT", fmt.Sprint(g.Port)},
		{"USER", g.User},
		{"HOST_KEY", g.HostKey},
		{"HEALTH", g.Health},
		{"DEADLINE", stamp(l.Deadline)},
		{"OUTCOME", l.Outcome},
		{"CERTIFICATE", l.Certificate},
	} {
		lines.WriteString(variable("GREENROOM_"+kv[0], kv[1]))
	}
	_, err := io.WriteString(cmd.OutOrStdout(), lines.String())
	return err
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339)
}

// variable is one line for a POSIX shell, quoted where that is needed; nothing for what is not there.
func variable(name, value string) string {
	switch {
	case value == "" || value == "0":
		return ""
	case strings.ContainsFunc(value, func(r rune) bool { return !strings.ContainsRune(plain, r) }):
		value = shellQuote(value)
	}
	return name + "=" + value + "\n"
}

const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_./:@+"

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
