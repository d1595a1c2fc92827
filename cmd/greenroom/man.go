package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newMan is for who packages the command. The pages are written from the commands themselves, as plain text: what makes
// them out of Markdown takes the underscores of variables for emphasis.
func newMan() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the man pages to DIR, one for each command",
		Args:  exactArgs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return writeManPages(cmd.Root(), args[0])
		},
	}
}

func writeManPages(cmd *cobra.Command, dir string) error {
	if err := os.WriteFile(filepath.Join(dir, manName(cmd)+".1"), []byte(manPage(cmd)), 0o644); err != nil {
		return err
	}
	for _, below := range available(cmd) {
		if err := writeManPages(below, dir); err != nil {
			return err
		}
	}
	return nil
}

func manName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// manPage is a page in the language of man(7). It has no date, so that the same commands make the same page.
func manPage(cmd *cobra.Command) string {
	var b strings.Builder
	section := func(title string) { fmt.Fprintf(&b, ".SH %s\n", title) }
	fmt.Fprintf(&b, ".TH %s 1 \"\" Greenroom Greenroom\n.nh\n.ad l\n", roff(strings.ToUpper(manName(cmd))))
	section("NAME")
	fmt.Fprintf(&b, "%s \\- %s\n", roff(manName(cmd)), roff(cmd.Short))
	section("SYNOPSIS")
	fmt.Fprintf(&b, "%s\n", synopsis(cmd))
	section("DESCRIPTION")
	b.WriteString(roffParagraphs(describe(cmd)))
	if cmd.HasExample() {
		section("EXAMPLES")
		fmt.Fprintf(&b, ".nf\n%s\n.fi\n", roff(cmd.Example))
	}
	if cmd.HasAvailableSubCommands() {
		section("COMMANDS")
		for _, below := range available(cmd) {
			fmt.Fprintf(&b, ".TP\n\\fB%s\\fR\n%s\n", roff(below.Name()), roff(below.Short))
		}
	}
	cmd.InitDefaultHelpFlag()
	cmd.InitDefaultVersionFlag()
	for _, part := range []struct {
		title string
		flags *pflag.FlagSet
	}{{"OPTIONS", cmd.NonInheritedFlags()}, {"\"OPTIONS OF THE COMMANDS ABOVE\"", cmd.InheritedFlags()}} {
		if part.flags.HasAvailableFlags() {
			section(part.title)
			part.flags.VisitAll(func(f *pflag.Flag) { b.WriteString(roffFlag(f)) })
		}
	}
	section("\"SEE ALSO\"")
	b.WriteString(roff(strings.Join(manNeighbours(cmd), ", ")) + "\n")
	return b.String()
}

// synopsis is how a command is called, and how those below it are.
func synopsis(cmd *cobra.Command) string {
	itself, below := roff(cmd.UseLine()), roff(cmd.CommandPath()+" COMMAND [ARGUMENT...] [flags]")
	switch {
	case !cmd.HasAvailableSubCommands():
		return itself
	case strings.Contains(cmd.Use, " "): // it does something by itself too
		return itself + "\n.br\n" + below
	}
	return below
}

// describe is what a page says of its command, at the least what its list says.
func describe(cmd *cobra.Command) string {
	if cmd.Long != "" {
		return cmd.Long
	}
	return cmd.Short + "."
}

// manNeighbours are the pages of the command above and of those below.
func manNeighbours(cmd *cobra.Command) []string {
	var out []string
	if cmd.HasParent() {
		out = append(out, manName(cmd.Parent())+"(1)")
	}
	for _, below := range available(cmd) {
		out = append(out, manName(below)+"(1)")
	}
	return out
}

func available(cmd *cobra.Command) []*cobra.Command {
	return slices.DeleteFunc(slices.Clone(cmd.Commands()), func(c *cobra.Command) bool { return !c.IsAvailableCommand() })
}

// roffFlag is one flag. The default of one that the environment may give is that of this machine, and told in its words.
func roffFlag(f *pflag.Flag) string {
	if f.Hidden {
		return ""
	}
	value, words := pflag.UnquoteUsage(f)
	names := "\\fB" + roff("--"+f.Name) + "\\fR"
	if f.Shorthand != "" {
		names = "\\fB" + roff("-"+f.Shorthand) + "\\fR, " + names
	}
	if value != "" {
		names += " \\fI" + roff(value) + "\\fR"
	}
	if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "0s" && f.DefValue != "[]" && !strings.Contains(words, "environment:") {
		words += " (default: " + f.DefValue + ")"
	}
	return fmt.Sprintf(".TP\n%s\n%s\n", names, roff(words))
}

// roffParagraphs lays text out anew, but for lines that are indented.
func roffParagraphs(text string) string {
	return strings.ReplaceAll(roff(strings.TrimSpace(text)), "\n\n", "\n.PP\n") + "\n"
}

// roff is text that roff shows as it is.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, "\t", "    ").Replace(text)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
