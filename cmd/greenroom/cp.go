package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"greenroom/internal/ssh"
)

// remote marks the path of a copy that is in the guest.
const remote = "guest:"

func newCp() *cobra.Command {
	var id string
	cmd := &cobra.Command{
		Use:   "cp --lease LEASE SOURCE DESTINATION",
		Short: "Copy files or directories to a guest or from it; the guest's path begins with guest:",
		Example: "  greenroom cp --lease \"$GREENROOM_LEASE\" build.tar guest:/tmp/\n" +
			"  greenroom cp --lease \"$GREENROOM_LEASE\" guest:report.xml .",
		Args: exactArgs("SOURCE", "DESTINATION"),
	}
	cmd.Flags().StringVar(&id, "lease", "", "lease of the guest")
	at := linked(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		from, down := strings.CutPrefix(args[0], remote)
		to, up := strings.CutPrefix(args[1], remote)
		if down == up {
			return usage("one of SOURCE and DESTINATION is in the guest and begins with %q; got %q and %q", remote, args[0], args[1])
		}
		if id == "" {
			return usage("--lease is missing: name the lease whose guest it is")
		}
		s, err := enter(cmd, at, wishes{}, id)
		if err != nil {
			return err
		}
		return settle(cmd, s, func() (int, error) {
			return inGuest(cmd, s, func(ctx context.Context, guest *ssh.Client) (int, error) {
				if up {
					return 0, guest.Upload(ctx, from, to)
				}
				return 0, guest.Download(ctx, from, to)
			})
		})
	}
	return cmd
}
