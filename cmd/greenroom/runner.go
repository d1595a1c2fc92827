package main

import (
	"strings"

	"github.com/spf13/cobra"

	"greenroom/reconcile/terraform"
)

// runnerDir is the directory for which the server starts a runner.
func runnerDir(args []string) (dir string, ok bool) {
	if len(args) != 2 || args[0] != "runner" || strings.HasPrefix(args[1], "-") {
		return "", false
	}
	return args[1], true
}

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
