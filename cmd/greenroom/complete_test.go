package main

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"greenroom/lease/client"
)

// everyCommand calls f with each command that people see.
func everyCommand(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, below := range cmd.Commands() {
		if !below.Hidden {
			everyCommand(below, f)
		}
	}
}

func TestEveryWordOfAUsageLineIsCompletedAsWhatItIs(t *testing.T) {
	words := map[string]bool{}
	everyCommand(newRoot(nil, io.Discard, io.Discard), func(cmd *cobra.Command) {
		for _, w := range argWords(cmd.Use) {
			if w == "ID" {
				w = cmd.Parent().Name() + " ID"
			}
			words[w] = true
		}
	})
	want := []string{
		"ARGUMENT...", "ATTR=VALUE", "CACHE", "COMMAND", "DESTINATION", "DIR", "DIR|FILE", "GUEST", "LEASE", "NAME", "POOL", "POOL...", "SOURCE", "plan ID", "token ID",
	}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(words))); diff != "" {
		t.Errorf("completeArgs has to know these words: %s", diff)
	}
	for _, w := range want {
		if upper := strings.TrimSuffix(w, "..."); nameLists[upper] == nil && !slices.Contains([]string{"ARGUMENT", "ATTR=VALUE", "COMMAND", "DESTINATION", "DIR", "DIR|FILE", "NAME", "SOURCE"}, upper) {
			t.Errorf("nobody lists what %s may be", w)
		}
	}
}

// shelvesOf is a server that has caches of these names. It stands for one that a stranger runs.
func shelvesOf(t *testing.T, names ...string) string {
	t.Setenv("GREENROOM_TOKEN", "gr_TEST")
	caches := []client.Cache{}
	for _, n := range names {
		caches = append(caches, client.Cache{Name: n})
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"caches": caches})
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestANameThatAShellCouldMistakeIsNotOffered(t *testing.T) {
	url := shelvesOf(t, "ci", "a b", "$(id)", "`id`", "x;y", "new\nline", "t\tab", "e\x1b[2J", "'", "")
	got := execute(t.Context(), "__complete", "cache", "show", "--server", url, "")
	if diff := cmp.Diff("ci\t0 of 0 shelved\n:4\n", got.stdout); diff != "" || got.code != 0 {
		t.Errorf("exit code %d: %s", got.code, diff)
	}
}

func TestAServerThatDoesNotAnswerHoldsNoShellUp(t *testing.T) {
	t.Setenv("GREENROOM_TOKEN", "gr_TEST")
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 30*completionPatience)
	defer cancel()
	got := execute(ctx, "__complete", "cache", "show", "--server", server.URL, "")
	if got.code != 0 || got.stdout != ":4\n" || ctx.Err() != nil {
		t.Errorf("%+v, %v", got, ctx.Err())
	}
}

// bashWords is what the package bash-completion gives the script, as far as that asks for it.
const bashWords = `_get_comp_words_by_ref() { cur=${COMP_WORDS[COMP_CWORD]}; words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; }`

func TestBashCompletesNamesFromTheServer(t *testing.T) {
	url := shelvesOf(t, "nightly", "weekly")
	s := newTerminal(t, 24, 200)
	bash := exec.CommandContext(t.Context(), "bash", "--norc", "--noprofile", "-i")
	bash.Env = append(os.Environ(), "PS1=ready> ", "TERM=dumb", "GREENROOM_SERVER="+url, "INPUTRC=/dev/null", "HISTFILE=")
	bash.Stdin, bash.Stdout, bash.Stderr = s.tty, s.tty, s.tty
	bash.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := bash.Start(); err != nil {
		t.Fatal(err)
	}
	s.await(t, "ready> ", 1)
	s.enter(t, bashWords+"; source <(greenroom completion bash)\n")
	s.await(t, "ready> ", 2)
	s.enter(t, "greenroom cache sh\t")
	s.await(t, "greenroom cache show ", 1)
	s.enter(t, "n\t")
	s.await(t, "show nightly ", 1)
	s.enter(t, "-o j\t")
	s.await(t, "-o json ", 1)
	s.enter(t, "\x15exit\n")
	if err := bash.Wait(); err != nil {
		t.Error(err)
	}
}
