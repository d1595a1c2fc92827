package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/modules"
	"greenroom/reconcile/plan"
	"greenroom/specs"
)

// completionPatience is how long a shell waits for names: whoever pressed the key would think that it is stuck.
const completionPatience = time.Second

// named is a name with what there is to say of it.
type named struct{ name, about string }

// nameLists ask a server for what a word in a usage line stands for. A flag is completed by the word that it is called.
var nameLists = map[string]func(context.Context, *client.Client) ([]named, error){
	"CACHE": func(ctx context.Context, c *client.Client) ([]named, error) {
		return listed(c.Caches(ctx))(func(c client.Cache) named {
			return named{c.Name, fmt.Sprintf("%d of %d shelved", c.Guests[lease.Shelved], c.Size)}
		})
	},
	"POOL": func(ctx context.Context, c *client.Client) ([]named, error) {
		return listed(c.Pools(ctx))(func(p client.Pool) named { return named{p.Pool, standing(p.Conditions)} })
	},
	"GUEST": func(ctx context.Context, c *client.Client) ([]named, error) {
		return listed(c.Guests(ctx, ""))(func(g lease.Guest) named { return named{g.Name, string(g.State)} })
	},
	"LEASE": func(ctx context.Context, c *client.Client) ([]named, error) {
		return listed(c.Leases(ctx, ""))(func(l client.Lease) named { return named{l.ID, string(l.Phase) + " for " + l.Holder} })
	},
	"plan ID": func(ctx context.Context, c *client.Client) ([]named, error) {
		return listed(c.Plans(ctx))(func(p plan.Plan) named { return named{p.ID, p.Ref} })
	},
	"token ID": func(ctx context.Context, c *client.Client) ([]named, error) {
		return listed(c.Tokens(ctx))(func(t client.Token) named { return named{t.ID, t.Name} })
	},
}

func listed[T any](list []T, err error) func(func(T) named) ([]named, error) {
	return func(of func(T) named) ([]named, error) {
		out := []named{}
		for _, v := range list {
			out = append(out, of(v))
		}
		return out, err
	}
}

// Flags that are completed by values, by directories and by files; others have values that nobody can guess.
var (
	flagValues = map[string][]string{
		"output": {"text", "json"}, "outcome": {"pass", "fail"}, "role": {"user", "admin"},
		"log-format": {"text", "json"}, "log-level": logLevels,
	}
	flagDirs  = []string{"dir", "state-dir", "specs", "mirror"}
	flagFiles = []string{"token-file", "specs-token-file", "specs-key-file", "specs-known-hosts", "redis-url-file", "hook-secret-file", "public-key", "var-file", "terraform", "server"}
)

// completed lets shells complete the arguments and flags of a command and all below it.
func completed(cmd *cobra.Command) {
	if cmd.ValidArgs == nil {
		cmd.ValidArgsFunction = completeArgs
	}
	each := func(f *pflag.Flag) { _ = cmd.RegisterFlagCompletionFunc(f.Name, completeFlag(f.Name)) } // one that has its own keeps it
	cmd.Flags().VisitAll(each)
	cmd.PersistentFlags().VisitAll(each)
	for _, below := range cmd.Commands() {
		completed(below)
	}
}

func completeFlag(name string) cobra.CompletionFunc {
	word := strings.ToUpper(name)
	switch {
	case nameLists[word] != nil:
		return func(cmd *cobra.Command, _ []string, start string) ([]string, cobra.ShellCompDirective) {
			return completeNames(cmd, word, nil, start)
		}
	case slices.Contains(flagDirs, name):
		return cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
	case slices.Contains(flagFiles, name):
		return cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault)
	}
	return cobra.FixedCompletions(flagValues[name], cobra.ShellCompDirectiveNoFileComp)
}

// completeArgs goes by the words of the usage line.
func completeArgs(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
	words := argWords(cmd.Use)
	if len(words) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	last := words[len(words)-1]
	if len(args) >= len(words) && !strings.HasSuffix(last, "...") {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	switch word := strings.TrimSuffix(words[min(len(args), len(words)-1)], "..."); word {
	case "DIR":
		if cmd.HasSubCommands() {
			return nil, cobra.ShellCompDirectiveDefault // they are offered too, and to cobra it is one or the other
		}
		return nil, cobra.ShellCompDirectiveFilterDirs
	case "DIR|FILE", "SOURCE", "DESTINATION", "COMMAND", "ARGUMENT":
		return nil, cobra.ShellCompDirectiveDefault
	case "ID":
		return completeNames(cmd, cmd.Parent().Name()+" ID", args, start)
	case "NAME":
		return completeBlocks(cmd, start)
	default:
		return completeNames(cmd, word, args, start)
	}
}

// argWords are the arguments that a usage line names: [POOL...] is POOL..., and what follows a flag is its value.
func argWords(use string) []string {
	var out []string
	fields := strings.Fields(use)
	for i, f := range fields[1:] {
		f = strings.Trim(f, "[]()")
		if f != "" && f[0] >= 'A' && f[0] <= 'Z' && !strings.HasPrefix(strings.Trim(fields[i], "[]("), "--") || fields[i] == "--" {
			out = append(out, f)
		}
	}
	return out
}

// completeNames asks the server. When it does not tell soon there is nothing to offer, and no place to say why.
func completeNames(cmd *cobra.Command, word string, but []string, start string) ([]string, cobra.ShellCompDirective) {
	list := nameLists[word]
	if list == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	flag := func(name string) string {
		if f := cmd.Flag(name); f != nil {
			return f.Value.String()
		}
		return ""
	}
	at := &link{server: flag("server"), tokenFile: flag("token-file"), stateDir: flag("state-dir")}
	c, err := at.open(cmd, -1)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
	defer cancel()
	found, err := list(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return offer(found, but, start), cobra.ShellCompDirectiveNoFileComp
}

// completeBlocks reads the spec files that are to be edited; a new block has a name of its own.
func completeBlocks(cmd *cobra.Command, start string) ([]string, cobra.ShellCompDirective) {
	dir := cmd.Flag("specs").Value.String()
	if dir == "" {
		dir = specsDir()
	}
	fleet, _, _ := specs.Load(dir, specs.Options{Bundled: modules.Names()})
	if fleet == nil || cmd.Name() == string(specs.Create) {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var found []named
	if cmd.Parent().Name() == "cache" {
		for _, c := range fleet.Caches {
			found = append(found, named{c.Name, c.Owner})
		}
	} else {
		for _, p := range fleet.Pools {
			found = append(found, named{p.Name, p.Module})
		}
	}
	return offer(found, nil, start), cobra.ShellCompDirectiveNoFileComp
}

// offer are the names that begin so, but some. A name that a shell could take for more than a word is none of ours.
func offer(found []named, but []string, start string) []string {
	var out []string
	for _, n := range found {
		if n.name != "" && strings.HasPrefix(n.name, start) && !slices.Contains(but, n.name) && strings.Trim(n.name, plain) == "" {
			out = append(out, cobra.CompletionWithDesc(n.name, plan.Clean(n.about)))
		}
	}
	return out
}
