package main

import (
	"github.com/spf13/cobra"

	"greenroom/reconcile/gitops"
)

// newReader is the hidden command in which the server reads what others have written: specs, repositories, archives.
func newReader() *cobra.Command {
	return &cobra.Command{
		Use:    "reader",
		Short:  "Read specs, as told on standard input (started by the server)",
		Hidden: true,
		Args:   exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if code := gitops.ReaderMain(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout()); code != 0 {
				return &exitError{Code: code}
			}
			return nil
		},
	}
}
