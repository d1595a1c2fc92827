package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"greenroom/modules"
	"greenroom/reconcile/terraform"
)

func newModule() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "module",
		Short: "Check Terraform modules against the contract",
		RunE: func(*cobra.Command, []string) error {
			return usage("module needs the command test (try \"greenroom module --help\")")
		},
	}
	cmd.AddCommand(newModuleTest())
	return cmd
}

func newModuleTest() *cobra.Command {
	var varFile string
	var opts terraform.Options
	cmd := &cobra.Command{
		Use:   "test DIR",
		Short: "Make, replace and destroy two real guests of the module in DIR, and check each step",
		Args:  exactArgs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			if slices.Contains(modules.Names(), args[0]) && !exists(dir) {
				return fmt.Errorf("there is no directory %s; %q is a module that comes with Greenroom and is tested with it: name the directory of one of your own", args[0], args[0])
			}
			if opts.Mirror, err = mirrorDir(opts.Mirror); err != nil {
				return err
			}
			for _, name := range unset(opts.Env) {
				loud(cmd)("--env " + name + " is not set: Terraform runs without it")
			}
			vars, err := readVarFile(varFile)
			if err != nil {
				return err
			}
			return testModule(cmd, opts, dir, vars)
		},
	}
	cmd.Flags().StringVar(&varFile, "var-file", "", "JSON file with the pool's variables")
	cmd.Flags().StringVar(&opts.Binary, "terraform", "", "terraform or tofu binary (default: found on PATH, or installed)")
	cmd.Flags().StringVar(&opts.Mirror, "mirror", "", "provider filesystem mirror; providers come from there and nowhere else")
	cmd.Flags().StringSliceVar(&opts.Env, "env", nil, "names of environment variables to hand to Terraform")
	return cmd
}

// testModule runs the check in a state directory of its own, which is kept when guests may be left.
func testModule(cmd *cobra.Command, opts terraform.Options, dir string, vars json.RawMessage) error {
	state, err := os.MkdirTemp("", "greenroom-module-")
	if err != nil {
		return err
	}
	opts.StateDir = state
	driver, err := terraform.New(cmd.Context(), opts)
	if err != nil {
		return err
	}
	defer driver.Detach()
	line, asJSON, done := newProgress(cmd), isJSON(cmd), 0
	line.say("checking the module…")
	err = terraform.Check(cmd.Context(), driver, dir, vars, func(step terraform.CheckStep) {
		line.aside(func() { printCheckStep(cmd.OutOrStdout(), asJSON, step) })
		done++
		line.say("checking the module, %s done…", count(done, "step"))
	})
	line.end()
	if !errors.Is(err, terraform.ErrLeft) {
		removed := os.RemoveAll(state)
		err = cmp.Or(err, removed)
	}
	if err != nil && cmd.Context().Err() != nil {
		return interrupted(err.Error())
	}
	return err
}

func printCheckStep(w io.Writer, asJSON bool, step terraform.CheckStep) {
	if asJSON {
		_ = json.NewEncoder(w).Encode(step) // a closed stdout must not leave guests behind
		return
	}
	result := "ok"
	if step.Error != "" {
		result = "FAILED"
	}
	fmt.Fprintf(w, "%-24s %-6s %6.2fs\n", step.Name, result, step.Seconds)
}

func readVarFile(file string) (json.RawMessage, error) {
	if file == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, usage("--var-file: %w", err)
	}
	var vars map[string]json.RawMessage
	if err := json.Unmarshal(raw, &vars); err != nil {
		return nil, usage("--var-file %s: a JSON object of variables is needed: %w", file, err)
	}
	return raw, nil
}
