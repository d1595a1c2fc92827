package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"greenroom/reconcile/plan"
)

// exitError ends the command with its own exit code; a nil Err prints nothing.
type exitError struct {
	Code int
	Err  error
}

func (e *exitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit status %d", e.Code)
	}
	return e.Err.Error()
}

func (e *exitError) Unwrap() error { return e.Err }

// usage marks an error as the caller's mistake in flags or arguments: exit code 2.
func usage(format string, args ...any) error {
	return &exitError{Code: 2, Err: fmt.Errorf(format, args...)}
}

// newRoot builds the command tree. stdout carries data only; everything for people goes to stderr.
func newRoot(stdin io.Reader, stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "greenroom",
		Short: "Keeps guests ready: pools and caches of machines for CI, as short leases",
		Long: "Keeps guests ready: pools and caches of machines for CI, as short leases. It is the server, the client and the admin tool.\n\n" +
			"stdout carries data only, and everything for people goes to stderr. Exit codes: 0 done, 1 failed, 2 usage; with, run and ssh\n" +
			"exit as their command did, and plan with 0 for no changes and 2 for changes.",
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%s%s (try %q)", flagFault(err), flagMeant(cmd, err), cmd.CommandPath()+" --help")
	})
	formats := root.PersistentFlags()
	formats.StringP("output", "o", "text", "output format: text or json")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if owns(cmd) {
			heedPipes()
		}
		if err := given(cmd); err != nil {
			return err
		}
		if cmd.Flag("output") != formats.Lookup("output") {
			return nil // a flag of the command's own, with formats of its own
		}
		return outputs(cmd, "text", "json")
	}
	root.AddCommand(
		newDemo(),
		newServe(),
		newAcquire(), newRenew(), newRelease(), newWith(), newRun(), newSSH(), newCp(),
		newStatus(), newTop(), newEvents(), newLease(), newCache(), newGuest(), newPool(), newPlan(), newReconcile(), newToken(), newLog(),
		newGuestd(),
		newModule(),
		newReader(), newRunner(), newMan(),
		newSpec(),
		newVersion(),
	)
	completed(root)
	root.DisableSuggestions, root.SuggestionsMinimumDistance = true, 2 // unknownCommand makes them
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil {
		help.Run, help.RunE = nil, helpOn // cobra's own succeeds, whatever the command is called
		root.RemoveCommand(help)          // it comes back when a command is executed
	}
	root.InitDefaultCompletionCmd()
	if scripts, _, err := root.Find([]string{"completion"}); err == nil {
		scripts.RunE, scripts.Args = oneBelow, cobra.ArbitraryArgs // cobra's own prints its help and succeeds, whatever the shell is called
	}
	return root
}

// helpOn prints the help of a command.
func helpOn(help *cobra.Command, args []string) error {
	cmd, rest, err := help.Root().Find(args)
	if err != nil {
		return err
	}
	if len(rest) > 0 && cmd.HasSubCommands() {
		return oneBelow(cmd, rest)
	}
	cmd.InitDefaultHelpFlag()
	return cmd.Help()
}

// watchHelp leads to the error of printing help, which cobra keeps to itself.
func watchHelp(root *cobra.Command) *error {
	failed, help := new(error), root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		out := &firstFault{to: root.OutOrStdout()}
		root.SetOut(out)
		help(cmd, args)
		root.SetOut(out.to)
		*failed = out.err
	})
	return failed
}

// firstFault remembers why something could not be written.
type firstFault struct {
	to  io.Writer
	err error
}

func (f *firstFault) Write(p []byte) (int, error) {
	n, err := f.to.Write(p)
	f.err = cmp.Or(f.err, err)
	return n, err
}

// flagFault puts what the packages time and strconv say of a flag's value into our words.
func flagFault(err error) string {
	invalid, ok := errors.AsType[interface {
		error
		GetValue() string
	}](err)
	if !ok {
		return err.Error()
	}
	cause := errors.Unwrap(invalid)
	number, isNumber := errors.AsType[*strconv.NumError](cause)
	want := ""
	switch {
	case cause == nil:
	case strings.HasPrefix(cause.Error(), "time: "):
		want = "want a duration such as 30m or 1h30m"
	case isNumber && number.Func == "ParseBool":
		want = "want true or false"
	case isNumber:
		want = "want a whole number"
	}
	if want == "" {
		return err.Error()
	}
	return strings.TrimSuffix(err.Error(), cause.Error()) + want
}

// flagMeant is the flag that may be meant by one that there is not.
func flagMeant(cmd *cobra.Command, err error) string {
	typed, unknown := strings.CutPrefix(err.Error(), "unknown flag: --")
	meant, least := "", 3 // so many mistakes are another word
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if n := levenshtein.Distance(typed, f.Name, nil); unknown && !f.Hidden && n < min(least, len(typed)) {
			meant, least = "; did you mean --"+f.Name+"?", n
		}
	})
	return meant
}

// unknownCommand says in one line what cobra says in several, with the commands that may be meant.
func unknownCommand(cmd *cobra.Command, err error) error {
	var name string
	if _, scan := fmt.Sscanf(err.Error(), "unknown command %q", &name); scan != nil {
		return err
	}
	meant := ""
	if near := cmd.Root().SuggestionsFor(name); len(near) > 0 {
		meant = "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return fmt.Errorf("%s has no command %q%s (try %q)", cmd.Root().Name(), name, meant, cmd.Root().Name()+" --help")
}

// usageCode is the exit code of a mistake on the command line: 2, but 1 below plan, whose 2 says that there are changes, as
// that of "terraform plan -detailed-exitcode" does.
func usageCode(cmd *cobra.Command) int {
	for c := cmd; c.HasParent(); c = c.Parent() {
		if c.Name() == "plan" {
			return 1
		}
	}
	return 2
}

// complain prints an error. What a server says in one may have been written by anybody: of its control characters only line
// ends reach the terminal.
func complain(stderr io.Writer, err error) {
	lines := strings.Split(strings.ReplaceAll(err.Error(), "\t", "    "), "\n")
	for i, line := range lines {
		lines[i] = plan.Clean(line)
	}
	fmt.Fprintf(stderr, "greenroom: %s\n", strings.Join(lines, "\n"))
}

// report prints the error of a command as one line and returns the exit code that belongs to it.
func report(stderr io.Writer, cmd *cobra.Command, err error) int {
	if err == nil {
		return 0
	}
	var exit *exitError
	switch {
	case errors.As(err, &exit) && exit.Err == nil:
		return exit.Code
	case errors.As(err, &exit):
		complain(stderr, err)
		if exit.Code == 2 {
			return usageCode(cmd)
		}
		return exit.Code
	case strings.HasPrefix(err.Error(), "unknown command"):
		complain(stderr, unknownCommand(cmd, err))
		return 2
	}
	complain(stderr, err)
	return 1
}
