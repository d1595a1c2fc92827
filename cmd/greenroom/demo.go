package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"greenroom/internal/demo"
)

func newDemo() *cobra.Command {
	var o demo.Options
	var verbose bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Walk through the main job on this host, each step measured, and keep serving",
		Long: "Start a server with the embedded store and the bundled local module in a temporary directory, and walk through the\n" +
			"main job: guests get ready, one is leased, used, released and leased again, one is killed and replaced, and the\n" +
			"spec's warm is raised. Then it keeps serving until Ctrl-C. In the end every guest is retired.",
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out, o.Notes, o.JSON = cmd.OutOrStdout(), cmd.ErrOrStderr(), isJSON(cmd)
			o.Log = slog.New(slog.DiscardHandler)
			if verbose {
				o.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			}
			return demo.Run(cmd.Context(), o)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.Exit, "exit", false, "end after the walk instead of serving on; with the --dir of a demo that was killed: only retire the guests that it left")
	flags.StringVar(&o.Dir, "dir", "", "keep state and specs in this directory, which has none but a demo's (default: a temporary one)")
	flags.StringVar(&o.Listen, "listen", "127.0.0.1:0", "address of the API")
	flags.StringVar(&o.Terraform, "terraform", "", "path of the terraform or tofu binary (default: found on PATH, or installed)")
	flags.BoolVar(&verbose, "verbose", false, "log every decision to stderr")
	return cmd
}
