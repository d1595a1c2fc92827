package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// mustSay are the flags that mean something else when they are left out. An empty one is a mistake, such as a variable that is
// not set, and is never taken for that.
var mustSay = []string{
	"cache", "guest", "pool", "ref", "digest", "specs", "dir", "state-dir", "mirror", "public-key", "var-file", "token-file",
	"specs-token-file", "specs-key-file", "specs-known-hosts", "redis-url-file", "hook-secret-file", "backend-file",
}

// Arguments and flags that name one thing of the server's.
var (
	nameArgs  = []string{"LEASE", "CACHE", "GUEST", "POOL", "ID"}
	nameFlags = []string{"lease", "cache", "guest", "pool"}
)

// given refuses flags that nobody can have meant.
func given(cmd *cobra.Command) error {
	if cmd.HasParent() && cmd.Parent().Name() == "guestd" {
		return nil // it is called by modules, and has words of its own
	}
	for _, name := range mustSay {
		if f := cmd.Flag(name); f != nil && f.Changed && f.Value.String() == "" {
			return usage("--%s is empty: give it a value, or leave it out", name)
		}
	}
	for _, name := range nameFlags {
		if f := cmd.Flag(name); f != nil && unnameable(f.Value.String()) {
			return usage("--%s %q is no name: names have no slash", name, f.Value)
		}
	}
	if f := cmd.Flag("server"); f != nil && withUser(f.Value.String()) {
		return usage("the server's address (--server or GREENROOM_SERVER) holds a user or a password: leave them out, and put a token into GREENROOM_TOKEN or --token-file")
	}
	return nil
}

// withUser tells of an address such as http://user:password@host, without reading it as one: a password may keep it from being one.
func withUser(server string) bool {
	return strings.Contains(server, "@") && !strings.HasPrefix(server, "/") && !strings.HasPrefix(server, "unix:")
}

// unnameable tells what no path of the API can hold.
func unnameable(name string) bool { return strings.Contains(name, "/") || name == "." || name == ".." }

// exactArgs asks for the arguments that usage names.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(names) {
			want := strings.Join(names, " ")
			if want == "" {
				want = "no arguments"
			}
			return usage("%s takes %s, and got %s (try %q)", cmd.CommandPath(), want, count(len(args), "argument"), cmd.CommandPath()+" --help")
		}
		for i, name := range names {
			if err := goodArg(cmd, name, args[i]); err != nil {
				return err
			}
		}
		return nil
	}
}

// goodArg refuses an argument that is empty, such as a variable that is not set, or that is to be a name and is none.
func goodArg(cmd *cobra.Command, name, arg string) error {
	switch {
	case arg == "":
		return usage("%s is empty (try %q)", name, cmd.CommandPath()+" --help")
	case slices.Contains(nameArgs, name) && unnameable(arg):
		return usage("%s %q is no name: names have no slash", name, arg)
	}
	return nil
}
