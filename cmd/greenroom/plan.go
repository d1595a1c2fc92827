package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"greenroom/lease/client"
	"greenroom/modules"
	"greenroom/reconcile/gitops"
	"greenroom/reconcile/plan"
	"greenroom/specs"
)

const planExits = "Exit codes: 0 no changes, 2 changes, 1 anything else, mistakes on the command line included."

func newPlan() *cobra.Command {
	var p planCommand
	var ref, name string
	cmd := &cobra.Command{
		Use:   "plan [DIR | --ref REF]",
		Short: "Show what a revision of the specs would change, before anything changes",
		Long: "Show what a revision of the specs would change, guest by guest, before anything changes: that in DIR (default: specs where that\n" +
			"is a directory, else the current one), or a branch, tag or commit of the repository that the server follows.\n\n" + planExits,
		Example: "  greenroom plan\n  greenroom plan --ref feature/more-guests\n  greenroom plan -o markdown --name \"pull/12\" > comment.md",
		Args:    atMostOneArg,
	}
	p.at.flags(cmd)
	p.flags(cmd)
	cmd.Flags().StringVar(&ref, "ref", "", "branch, tag or commit of the followed repository, instead of a directory")
	cmd.Flags().StringVar(&name, "name", "", "what the directory is, for people, as pull/12; a newer plan of the same name replaces the older (default: its absolute path)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := p.check(cmd); err != nil {
			return err
		}
		if ref != "" && (len(args) > 0 || name != "") {
			return usage("--ref names a revision of the followed repository; DIR and --name are for a directory that is sent along")
		}
		r := client.PlanRequest{Ref: ref}
		if ref == "" {
			var err error
			if r, err = p.pack(cmd, argOr(args, specsDir()), name); err != nil {
				return err
			}
		}
		c, err := p.at.open(cmd, later)
		if err != nil {
			return err
		}
		made, err := c.Plan(cmd.Context(), r)
		return p.finish(cmd, c, made, err)
	}
	cmd.AddCommand(newPlanShow(&p.at), newPlanList(&p.at), newPlanApprove(&p.at))
	return cmd
}

func newPlanShow(at *link) *cobra.Command {
	p := planCommand{}
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show a plan again, waiting while it is being made", Long: "Show a plan again, waiting while it is being made.\n\n" + planExits,
		Args: exactArgs("ID"),
	}
	p.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := p.check(cmd); err != nil {
			return err
		}
		p.at = *at
		c, err := p.at.open(cmd, soon)
		if err != nil {
			return err
		}
		made, err := c.GetPlan(cmd.Context(), args[0], 0)
		return p.finish(cmd, c, made, err)
	}
	return cmd
}

func newPlanList(at *link) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the plans that have not expired yet", Args: exactArgs(), RunE: func(cmd *cobra.Command, _ []string) error {
		ask := func(ctx context.Context, c *client.Client) ([]plan.Plan, error) { return c.Plans(ctx) }
		return look(cmd, at, ask, func(w *tabwriter.Writer, plans []plan.Plan) {
			row(w, "PLAN", "PHASE", "OF", "HEAD", "BY", "MADE", "SUMMARY")
			for _, p := range plans {
				row(w, p.ID, string(p.Phase), p.Ref, plan.Short(p.Head), p.By, ago(p.Made), outline(p))
			}
		})
	}}
}

// outline is what a plan comes to, in a cell of a table.
func outline(p plan.Plan) string {
	switch {
	case p.Phase == plan.Failed:
		return firstLine(p.Error)
	case p.Phase != plan.Ready:
		return ""
	case p.Held():
		return "held: " + p.Summary.String()
	}
	return p.Summary.String()
}

func newPlanApprove(at *link) *cobra.Command {
	var digest string
	cmd := &cobra.Command{
		Use: "approve ID", Short: "Let the revision of a plan come into force though it is held", Args: exactArgs("ID"),
		Long: "Let the revision of a plan come into force though it is held: just this change of what is in force now.",
		RunE: func(cmd *cobra.Command, args []string) error {
			ask := func(ctx context.Context, c *client.Client) (plan.Plan, error) {
				p, err := c.GetPlan(ctx, args[0], 0)
				if err != nil {
					return p, err
				}
				return c.ApprovePlan(ctx, args[0], cmp.Or(digest, p.Digest))
			}
			return look(cmd, at, ask, func(w *tabwriter.Writer, p plan.Plan) {
				fmt.Fprintf(w, "plan %s is approved: revision %s may come into force (%s)\n", p.ID, plan.Short(p.Head), p.Summary)
			})
		},
	}
	cmd.Flags().StringVar(&digest, "digest", "", "digest of the plan that was looked at (default: the one it has now)")
	return cmd
}

// planCommand is what "plan" and "plan show" have in common.
type planCommand struct {
	at   link
	full bool
	wait time.Duration
	url  string
}

func (p *planCommand) flags(cmd *cobra.Command) {
	cmd.Flags().StringP("output", "o", "text", "output format: text, json or markdown")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json", "markdown"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().BoolVar(&p.full, "full", false, "every guest on a line of its own, and Terraform's changes by attribute")
	cmd.Flags().DurationVar(&p.wait, "wait", 15*time.Minute, "longest time to wait for the plan")
	cmd.Flags().StringVar(&p.url, "url", "", "where people reach the server, for the link in markdown (default: --server when that is a URL)")
}

func (p *planCommand) check(cmd *cobra.Command) error {
	if p.wait < 0 {
		return usage("--wait %v is negative", p.wait)
	}
	return outputs(cmd, "text", "json", "markdown")
}

func specsDir() string {
	if info, err := os.Stat("specs"); err == nil && info.IsDir() {
		return "specs"
	}
	return "."
}

// pack makes an archive of a directory of specs, unless the specs have faults: all of them are shown then, without asking the
// server.
func (p *planCommand) pack(cmd *cobra.Command, dir, name string) (client.PlanRequest, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return client.PlanRequest{}, err
	}
	if name == "" {
		name = abs
	}
	_, files, diags := specs.Load(dir, specs.Options{Bundled: modules.Names()})
	files, diags = specs.Withheld(files, diags) // what a job prints, others read
	if err := writeDiagnostics(cmd.ErrOrStderr(), files, diags); err != nil {
		return client.PlanRequest{}, err
	}
	if diags.HasErrors() {
		var text bytes.Buffer
		err := specs.WriteDiagnostics(&text, files, diags, false, 100)
		failed := plan.Plan{Phase: plan.Failed, Ref: name, Error: text.String(), Pools: []plan.Pool{}, Caches: []plan.Cache{}, Guests: []plan.Guest{}}
		return client.PlanRequest{}, errors.Join(err, p.print(cmd, failed), invalid(diags))
	}
	archive, err := gitops.Zip(dir)
	return client.PlanRequest{Archive: archive, Name: name}, err
}

// finish waits for a plan, shows it, and says by the exit code what it comes to.
func (p *planCommand) finish(cmd *cobra.Command, c *client.Client, made plan.Plan, err error) error {
	if err == nil {
		made, err = p.await(cmd, c, made)
	}
	switch {
	case err != nil && cmd.Context().Err() != nil:
		return interrupted("a plan that nobody waits for expires at the server")
	case err != nil:
		return hinted(err)
	case !made.Told():
		if err := plan.WriteText(cmd.ErrOrStderr(), made, p.style(cmd.ErrOrStderr())); err != nil {
			return err
		}
	}
	if err := p.print(cmd, made); err != nil {
		return err
	}
	return p.verdict(made)
}

// await returns a plan when it is made, Terraform's part included, or as it stands when there is no time left. It follows a
// plan that is replaced to the one in its place.
func (p *planCommand) await(cmd *cobra.Command, c *client.Client, now plan.Plan) (plan.Plan, error) {
	line, poll, end := newProgress(cmd), 30*time.Second, time.Now().Add(p.wait)
	defer line.end()
	if line.terminal {
		poll = time.Second
	}
	for {
		id := now.ID
		switch left := time.Until(end); {
		case now.Phase == plan.Replaced && now.ReplacedBy != "":
			id, poll = now.ReplacedBy, min(poll, max(left, 0))
			fmt.Fprintf(cmd.ErrOrStderr(), "greenroom: plan %s was replaced by plan %s\n", now.ID, id)
		case !unfinished(now) || left <= 0:
			return now, nil
		default:
			line.say("%s", planProgress(now))
			poll = min(poll, left)
		}
		var err error
		if now, err = c.GetPlan(cmd.Context(), id, poll); err != nil {
			return now, err
		}
	}
}

func unfinished(p plan.Plan) bool {
	return p.Phase == plan.Making || p.Terraform != nil && p.Terraform.Phase == plan.Making
}

func planProgress(p plan.Plan) string {
	if p.Phase == plan.Making {
		return "making the plan…"
	}
	return fmt.Sprintf("making the plan… Terraform has planned %s", count(len(p.Terraform.Shards), "shard"))
}

// print writes a plan to stdout. One that was not made is no text: what there is to say of it goes to stderr.
func (p *planCommand) print(cmd *cobra.Command, made plan.Plan) error {
	out := cmd.OutOrStdout()
	switch {
	case isJSON(cmd):
		return writeJSON(out, made)
	case cmd.Flag("output").Value.String() == "markdown":
		return plan.WriteMarkdown(out, made, plan.MarkdownOptions{URL: p.link()})
	case !made.Told():
		return nil
	}
	return plan.WriteText(out, made, p.style(out))
}

// link is where people reach the server, as far as that is known.
func (p *planCommand) link() string {
	if p.url == "" && strings.HasPrefix(p.at.server, "http") {
		return strings.TrimSuffix(p.at.server, "/")
	}
	return strings.TrimSuffix(p.url, "/")
}

func (p *planCommand) style(w io.Writer) plan.TextOptions {
	width, _ := screen(w)
	return plan.TextOptions{Color: bool(paintOf(w)), Width: width, Full: p.full}
}

// verdict is the end of the command: nothing for a plan without changes.
func (p *planCommand) verdict(made plan.Plan) error {
	switch {
	case made.Phase == plan.Failed:
		return &exitError{Code: 1}
	case unfinished(made):
		return fmt.Errorf("plan %s is not complete after %v; look again with \"greenroom plan show %s\"", made.ID, p.wait, made.ID)
	case made.Phase == plan.Replaced:
		return fmt.Errorf("plan %s was replaced; ask for another", made.ID)
	}
	if t := made.Terraform; t != nil && t.Phase == plan.Failed {
		return errors.New("no plans of Terraform's own could be made")
	} else if t != nil && len(t.Failed()) > 0 {
		return fmt.Errorf("%s of %d could not be planned by Terraform", count(len(t.Failed()), "shard"), len(t.Shards))
	}
	if made.Summary.Changes() {
		return &exitError{Code: 2}
	}
	return nil
}
