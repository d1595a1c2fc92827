package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"greenroom/modules"
	"greenroom/specs"
)

// Deadlines of git: of what only looks, and of a commit, whose hooks and signing may wait for a person.
const (
	gitLooks   = 30 * time.Second
	gitCommits = 10 * time.Minute
)

// edit is one command that edits the pools or caches of a spec directory. It needs no server.
type edit struct {
	kind         string
	action       specs.Action
	dir, message string
	commit, dry  bool
	unset        []string
}

// newEdits are the commands create, set and remove for blocks of a kind.
func newEdits(kind string) []*cobra.Command {
	return []*cobra.Command{
		(&edit{kind: kind, action: specs.Create}).command("Add a " + kind + " to the spec files"),
		(&edit{kind: kind, action: specs.Set}).command("Change a " + kind + " in the spec files"),
		(&edit{kind: kind, action: specs.Remove}).command("Take a " + kind + " out of the spec files"),
	}
}

const assignments = `NAME=VALUE gives an attribute a number, true or false, or text, as it needs one; NAME:=EXPRESSION gives it an
expression. Attributes of inner blocks are written as lease.ttl=10m, keys of objects as labels.os=debian-12, and the
pools of a cache as pools=local,other. docs/specs.md has them all.`

func (e *edit) command(short string) *cobra.Command {
	cmd := &cobra.Command{Use: string(e.action) + " NAME [ATTR=VALUE …]", Short: short, Long: short + ".\n\n" + assignments, RunE: e.run}
	flags := cmd.Flags()
	flags.StringVar(&e.dir, "specs", "", "spec directory (default: \"specs\" where there is one, else the current directory)")
	flags.BoolVar(&e.commit, "commit", false, "commit the edited file, and nothing else, with git")
	flags.StringVarP(&e.message, "message", "m", "", "message of the commit (default: what was done)")
	flags.BoolVar(&e.dry, "dry-run", false, "show the difference and write nothing")
	switch e.action {
	case specs.Set:
		flags.StringArrayVar(&e.unset, "unset", nil, "attribute, key or inner block to take out; may be repeated")
	case specs.Remove:
		cmd.Use, cmd.Long = "remove NAME", short+"."
	}
	return cmd
}

func (e *edit) run(cmd *cobra.Command, args []string) error {
	if err := e.check(cmd, args); err != nil {
		return err
	}
	change, err := specs.NewEdit(e.action, e.kind, args[0], args[1:], e.unset)
	if err != nil {
		return usage("%w", err)
	}
	edited, err := change.Apply(e.dir, specs.Options{Bundled: modules.Names()})
	if faults, ok := errors.AsType[*specs.Faults](err); ok {
		return cmp.Or(writeFaults(cmd.ErrOrStderr(), e.dir, faults), err)
	}
	if err != nil {
		return err
	}
	return e.carryOut(cmd, change, edited)
}

func (e *edit) check(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0 || e.action == specs.Remove && len(args) > 1:
		return usage("%s takes %s, and got %s (try %q)", cmd.CommandPath(), strings.TrimPrefix(cmd.Use, string(e.action)+" "), count(len(args), "argument"), cmd.CommandPath()+" --help")
	case e.commit && e.dry:
		return usage("--dry-run writes nothing that --commit could commit; leave one of them out")
	case cmd.Flags().Changed("message") && (!e.commit || strings.TrimSpace(e.message) == ""):
		return usage("--message needs some words, and --commit beside it")
	}
	if e.dir == "" {
		e.dir = specsDir()
	}
	return goodArg(cmd, "NAME", args[0])
}

// outcome is what an edit prints with -o json.
type outcome struct {
	// Files that were edited, or would be without --dry-run.
	Files []string `json:"files"`
	Diff  string   `json:"diff"`
	// Committed is the id of the commit, "" where there is none.
	Committed string `json:"committed"`
}

// carryOut writes an edit that is known to be good. Whatever git may object to is asked before.
func (e *edit) carryOut(cmd *cobra.Command, change *specs.Edit, edited *specs.Edited) error {
	did := fmt.Sprintf("%s in %s", change, edited.Path)
	if bytes.Equal(edited.Before, edited.After) {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: nothing to change\n", did)
		return outcome{Files: []string{}}.show(cmd)
	}
	old, name := "a/"+filepath.ToSlash(edited.Path), "b/"+filepath.ToSlash(edited.Path)
	if edited.Created {
		old = os.DevNull
	}
	out := outcome{Files: []string{edited.Path}, Diff: string(diff.Diff(old, edited.Before, name, edited.After))}
	if e.dry {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: nothing was written, because of --dry-run\n", did)
		return out.show(cmd)
	}
	file := checkout{dir: filepath.Dir(edited.Path), name: filepath.Base(edited.Path), words: cmd.ErrOrStderr()}
	if e.commit {
		if err := file.ready(cmd.Context()); err != nil {
			return err
		}
	}
	if err := edited.Write(); err != nil {
		return err
	}
	var err error
	if e.commit {
		out.Committed, err = file.commit(cmd.Context(), cmp.Or(e.message, change.String()), edited.Created)
	}
	if err := cmp.Or(out.show(cmd), err); err != nil {
		return err
	}
	if e.commit {
		did += ", commit " + out.Committed[:min(12, len(out.Committed))]
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s. Next: greenroom plan %s\n", did, e.dir)
	return nil
}

func (o outcome) show(cmd *cobra.Command) error {
	if isJSON(cmd) {
		return writeJSON(cmd.OutOrStdout(), o)
	}
	text := o.Diff
	if paintOf(cmd.OutOrStdout()) {
		text = colored(text)
	}
	_, err := io.WriteString(cmd.OutOrStdout(), text)
	return err
}

// colored paints a unified diff as git does.
func colored(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		var paint string
		switch {
		case strings.HasPrefix(line, "diff "), strings.HasPrefix(line, "--- "), strings.HasPrefix(line, "+++ "):
			paint = "\x1b[1m"
		case line[0] == '@':
			paint = "\x1b[36m"
		case line[0] == '+':
			paint = "\x1b[32m"
		case line[0] == '-':
			paint = "\x1b[31m"
		default:
			out.WriteString(line)
			continue
		}
		out.WriteString(paint + strings.TrimSuffix(line, "\n") + "\x1b[m\n")
	}
	return out.String()
}

// checkout is a file in a git checkout. It is committed by the user's own git, so that hooks, signing and
// identity are theirs.
type checkout struct {
	dir, name string
	words     io.Writer // gets what git says
}

// ready says why the file could not be committed, or not alone.
func (c checkout) ready(ctx context.Context) error {
	var words strings.Builder
	quiet := checkout{dir: c.dir, name: c.name, words: &words}
	inside, err := quiet.git(ctx, gitLooks, "rev-parse", "--is-inside-work-tree")
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return errors.New("--commit needs git, and there is none on PATH: install it, or leave --commit out; nothing was changed")
	case err != nil || inside != "true":
		why, _, _ := strings.Cut(words.String(), "\n")
		return fmt.Errorf("%s is in no git checkout that could be committed to (%s): name another with --specs, or leave --commit out; nothing was changed",
			c.dir, cmp.Or(why, fmt.Sprint(cmp.Or(err, errors.New("it has no work tree")))))
	}
	status, err := quiet.git(ctx, gitLooks, "--no-optional-locks", "status", "--porcelain", "--ignored", "--", c.name)
	file := filepath.Join(c.dir, c.name)
	switch {
	case err != nil:
		return fmt.Errorf("git status of %s: %w: %s", file, err, strings.TrimSpace(words.String()))
	case strings.HasPrefix(status, "!!"):
		return fmt.Errorf("git ignores %s: change .gitignore, or leave --commit out; nothing was changed", file)
	case status != "":
		return fmt.Errorf("%s has changes that are not committed yet and would be committed along: commit or undo them first, or leave --commit out; nothing was changed", file)
	}
	return nil
}

// commit commits the file, whatever else is staged, and returns the id of the commit.
func (c checkout) commit(ctx context.Context, message string, isNew bool) (string, error) {
	var err error
	if isNew {
		_, err = c.git(ctx, gitLooks, "add", "--intent-to-add", "--", c.name)
	}
	if err == nil {
		_, err = c.git(ctx, gitCommits, "commit", "--quiet", "--only", "-m", message, "--", c.name)
	}
	if err != nil {
		return "", fmt.Errorf("%s is edited but not committed, because git failed (%w): mend what it says, and commit the file with git", filepath.Join(c.dir, c.name), err)
	}
	return c.git(ctx, gitLooks, "rev-parse", "HEAD")
}

func (c checkout) git(ctx context.Context, limit time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", c.dir, "--literal-pathspecs"}, args...)...)
	cmd.Stderr = c.words
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // so that git takes its locks away
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.Output()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return "", fmt.Errorf("it took longer than %v", limit)
	}
	return strings.TrimSpace(string(out)), err
}
