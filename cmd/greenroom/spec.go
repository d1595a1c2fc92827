package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"greenroom/modules"
	"greenroom/specs"
)

func newSpec() *cobra.Command {
	return group("spec", "Check, lay out, show and start the HCL specs of a fleet", newSpecValidate(), newSpecFmt(), newSpecInit(), newSpecShow())
}

func newSpecValidate() *cobra.Command {
	return &cobra.Command{
		Use:   "validate [DIR]",
		Short: "Say everything that is wrong with the specs in DIR (default: \"specs\" where there is one, else the current directory)",
		Args:  atMostOneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, files, diags := specs.Load(argOr(args, specsDir()), specs.Options{Bundled: modules.Names()})
			if isJSON(cmd) {
				if err := writeJSON(cmd.OutOrStdout(), jsonDiagnostics(diags)); err != nil {
					return err
				}
				return invalid(diags)
			}
			if err := writeDiagnostics(cmd.ErrOrStderr(), files, diags); err != nil || diags.HasErrors() {
				return errors.Join(err, invalid(diags))
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s, %s: valid\n", count(len(fleet.Pools), "pool"), count(len(fleet.Caches), "cache"))
			return err
		},
	}
}

func newSpecShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show [DIR]",
		Short: "Print the fleet in DIR (default as of validate) with references resolved and every default filled in",
		Args:  atMostOneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, files, diags := specs.Load(argOr(args, specsDir()), specs.Options{Bundled: modules.Names()})
			if err := writeDiagnostics(cmd.ErrOrStderr(), files, diags); err != nil || diags.HasErrors() {
				return errors.Join(err, invalid(diags))
			}
			if isJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), fleet)
			}
			_, err := cmd.OutOrStdout().Write(fleet.HCL())
			return err
		},
	}
}

func newSpecInit() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "init DIR",
		Short: "Write a commented fleet to start from into DIR",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage("spec init takes one directory, and got %d; try \"greenroom spec init specs\"", len(args))
			}
			return goodArg(cmd, "DIR", args[0])
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := specs.Init(args[0], force); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Wrote a fleet to %s. Next: greenroom spec validate %s\n", args[0], args[0])
			if isJSON(cmd) {
				return writeJSON(cmd.OutOrStdout(), map[string]string{"dir": args[0]})
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "overwrite files that exist")
	return cmd
}

func newSpecFmt() *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "fmt [DIR|FILE]",
		Short: "Lay out spec files in the canonical style, and list those that changed",
		Args:  atMostOneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			changed, err := specs.FormatFiles(argOr(args, specsDir()), !check)
			err = errors.Join(err, listFiles(cmd, changed))
			if err == nil && check && len(changed) > 0 {
				return fmt.Errorf("%s not in the canonical style; run \"%s\"", count(len(changed), "file"), strings.Join(append([]string{cmd.CommandPath()}, args...), " "))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "change nothing; exit 1 when a file would change")
	return cmd
}

func listFiles(cmd *cobra.Command, names []string) error {
	if isJSON(cmd) {
		return writeJSON(cmd.OutOrStdout(), append([]string{}, names...))
	}
	for _, name := range names {
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), name); err != nil {
			return err
		}
	}
	return nil
}

// jsonDiagnostic is one element of "spec validate -o json".
type jsonDiagnostic struct {
	Severity string `json:"severity"`
	Summary  string `json:"summary"`
	Detail   string `json:"detail"`
	File     string `json:"file"`
	Line     int    `json:"line"`
	Column   int    `json:"column"`
}

func jsonDiagnostics(diags hcl.Diagnostics) []jsonDiagnostic {
	list := []jsonDiagnostic{}
	for _, d := range diags {
		severity := "error"
		if d.Severity == hcl.DiagWarning {
			severity = "warning"
		}
		j := jsonDiagnostic{Severity: severity, Summary: d.Summary, Detail: d.Detail}
		if d.Subject != nil {
			j.File, j.Line, j.Column = d.Subject.Filename, d.Subject.Start.Line, d.Subject.Start.Column
		}
		list = append(list, j)
	}
	return list
}

// writeDiagnostics fits the lines to the terminal when w is one.
func writeDiagnostics(w io.Writer, files map[string]*hcl.File, diags hcl.Diagnostics) error {
	width, _ := screen(w)
	return specs.WriteDiagnostics(w, files, diags, bool(paintOf(w)), uint(width))
}

func invalid(diags hcl.Diagnostics) error {
	if !diags.HasErrors() {
		return nil
	}
	return fmt.Errorf("the specs have %s; nothing was changed", count(len(diags.Errs()), "fault"))
}

func atMostOneArg(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usage("%s takes at most 1 argument, and got %d (try %q)", cmd.CommandPath(), len(args), cmd.CommandPath()+" --help")
	}
	if len(args) == 1 && args[0] == "" {
		return usage("the argument is empty: give it a value, or leave it out (try %q)", cmd.CommandPath()+" --help")
	}
	return nil
}

func argOr(args []string, otherwise string) string {
	if len(args) > 0 {
		return args[0]
	}
	return otherwise
}

func isJSON(cmd *cobra.Command) bool {
	f := cmd.Flag("output")
	return f != nil && f.Value.String() == "json"
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
