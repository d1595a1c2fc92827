package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"greenroom/lease"
	"greenroom/lease/client"
)

func newToken() *cobra.Command {
	at := &link{}
	cmd := group("token", "Make, list and revoke bearer tokens of the API", newTokenCreate(at), newTokenList(at), newTokenRevoke(at))
	at.flags(cmd)
	return cmd
}

func newTokenCreate(at *link) *cobra.Command {
	var n client.NewToken
	var role string
	var length time.Duration
	cmd := &cobra.Command{
		Use: "create --name NAME --owner TEAM", Short: "Make a token and print its secret, which nobody can see again", Args: exactArgs(),
	}
	cmd.Flags().StringVar(&n.Name, "name", "", "who it is for")
	cmd.Flags().StringVar(&n.Owner, "owner", "", "team, as in the spec's caches")
	cmd.Flags().StringVar(&role, "role", "user", "user or admin")
	cmd.Flags().DurationVar(&length, "for", 0, "how long it is valid, as 720h (default: until it is revoked)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case n.Name == "":
			return usage("--name is missing: who is the token for?")
		case role != "user" && role != "admin":
			return usage("--role %q, want user or admin", role)
		case role == "user" && n.Owner == "":
			return usage("--owner is missing: whose caches may it use?")
		case length <= 0 && cmd.Flags().Changed("for"):
			return usage("--for %v, want a time above 0; leave it out for a token that is valid until it is revoked", length)
		}
		n.Role, n.For = lease.Role(role), client.Duration(length)
		c, err := at.open(cmd, soon)
		if err != nil {
			return err
		}
		made, err := c.CreateToken(cmd.Context(), n)
		if err != nil {
			return hinted(err)
		}
		if err := show(cmd, made, func(w *tabwriter.Writer) { fmt.Fprintln(w, made.Secret) }); err != nil {
			return unread(cmd, c, made, err)
		}
		return nil
	}
	return cmd
}

// unread revokes a token whose secret nobody has read: nobody would know of it, and who may lease would be more than meant.
func unread(cmd *cobra.Command, c *client.Client, made client.Token, err error) error {
	if unrevoked := c.RevokeToken(context.WithoutCancel(cmd.Context()), made.ID); unrevoked != nil {
		return fmt.Errorf("the secret of token %s could be neither printed (%w) nor revoked: %w; try \"greenroom token revoke %s\"", made.ID, err, unrevoked, made.ID)
	}
	return fmt.Errorf("the secret of the token could not be printed, and the token was revoked: %w", err)
}

func newTokenList(at *link) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the tokens, without their secrets", Args: exactArgs(), RunE: func(cmd *cobra.Command, _ []string) error {
		ask := func(ctx context.Context, c *client.Client) ([]client.Token, error) { return c.Tokens(ctx) }
		return look(cmd, at, ask, func(w *tabwriter.Writer, tokens []client.Token) {
			row(w, "ID", "NAME", "OWNER", "ROLE", "CREATED", "EXPIRES")
			for _, t := range tokens {
				row(w, t.ID, t.Name, t.Owner, string(t.Role), ago(t.Created), expiry(t.Expires))
			}
		})
	}}
}

// expiry is when a token ends, or has ended: it stays in the list for who wonders why it does no more.
func expiry(t time.Time) string {
	if t.IsZero() || t.After(time.Now()) {
		return local(t)
	}
	return local(t) + " (expired)"
}

func newTokenRevoke(at *link) *cobra.Command {
	return &cobra.Command{Use: "revoke ID", Short: "End a token by its id", Args: exactArgs("ID"), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := at.open(cmd, soon)
		if err != nil {
			return err
		}
		if err := c.RevokeToken(cmd.Context(), args[0]); err != nil {
			return hinted(err)
		}
		return show(cmd, map[string]string{"revoked": args[0]}, func(w *tabwriter.Writer) { fmt.Fprintf(w, "%s is revoked\n", args[0]) })
	}}
}
