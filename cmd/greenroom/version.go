package main

import (
	"cmp"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version of this binary", Args: exactArgs(), RunE: func(cmd *cobra.Command, _ []string) error {
		if isJSON(cmd) {
			return writeJSON(cmd.OutOrStdout(), map[string]string{"version": cmd.Root().Version})
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "greenroom version %s\n", cmd.Root().Version)
		return err
	}}
}

// version is what the binary was built from: a version of the module, else a commit, as far as the build knew.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return versionOf(info)
}

func versionOf(info *debug.BuildInfo) string {
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	revision := settings["vcs.revision"]
	if revision != "" && settings["vcs.modified"] == "true" {
		revision += "+dirty"
	}
	return cmp.Or(revision, "unknown")
}
