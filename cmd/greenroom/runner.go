package main

import (
	"github.com/spf13/cobra"

	"greenroom/reconcile/terraform"
)

// newRunner is the hidden command that the server starts for each Terraform run, and that outlives it.
func newRunner() *cobra.Command {
	return &cobra.Command{
		Use:    "runner SHARD_DIR",
		Short:  "Carry out the Terraform run whose intent is in SHARD_DIR (started by the server)",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if code := terraform.RunnerMain(cmd.Context(), args[0]); code != 0 {
				return &exitError{Code: code}
			}
			return nil
		},
	}
}
