package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func TestEveryCommandAndFlagIsDescribed(t *testing.T) {
	everyCommand(newRoot(nil, io.Discard, io.Discard), func(cmd *cobra.Command) {
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: its description %q is no phrase", cmd.CommandPath(), cmd.Short)
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" || strings.HasSuffix(f.Usage, ".") {
				t.Errorf("%s --%s: its description %q is no phrase", cmd.CommandPath(), f.Name, f.Usage)
			}
		})
	})
}

func TestEveryCommandHasAManPageThatRendersWithoutAWarning(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man")
	if got := execute(t.Context(), "man", dir); got.code != 0 || got.stdout+got.stderr != "" {
		t.Fatalf("%+v", got)
	}
	var want []string
	everyCommand(newRoot(nil, io.Discard, io.Discard), func(cmd *cobra.Command) {
		want = append(want, filepath.Join(dir, strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1"))
	})
	slices.Sort(want)
	pages, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, pages); diff != "" {
		t.Error(diff)
	}
	var warnings strings.Builder
	man := exec.CommandContext(t.Context(), "man", append([]string{"--warnings=w", "-P", "cat", "-l"}, pages...)...)
	man.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=100", "MANROFFOPT=", "MAN_KEEP_FORMATTING=")
	man.Stderr = &warnings
	out, err := man.Output()
	if err != nil || warnings.Len() > 0 {
		t.Errorf("man: %v\n%s", err, warnings.String())
	}
	for _, want := range []string{
		"greenroom-cache-disable - Grant no more leases, whatever the spec says",
		"greenroom with [--cache CACHE] [flags] -- COMMAND [ARGUMENT...]",
		"SYNOPSIS greenroom COMMAND [ARGUMENT...] [flags] DESCRIPTION",
		"SYNOPSIS greenroom plan [DIR | --ref REF] [flags] greenroom plan COMMAND [ARGUMENT...] [flags] DESCRIPTION",
		"GREENROOM_HOST, _PORT, _USER, _GUEST and _LEASE",
		`greenroom events --follow -o json | jq -r 'select(.to == "tainted") | .guest'`,
		"-n, --number int", "how many events, 1 to 200 (default: 50)",
		"greenroom(1), greenroom-plan-approve(1), greenroom-plan-list(1), greenroom-plan-show(1)",
	} {
		if !strings.Contains(strings.Join(strings.Fields(string(out)), " "), want) { // wherever lines break
			t.Errorf("no %q is in the pages", want)
		}
	}
	if home, err := os.UserHomeDir(); err != nil || strings.Contains(string(out), home+"/") {
		t.Errorf("the pages tell of %s, which is no one else's: %v", home, err)
	}
}
