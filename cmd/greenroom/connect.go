package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/reconcile/plan"
)

// link is how a command finds its server.
type link struct{ server, tokenFile, stateDir string }

// linked adds the flags of a link to a command.
func linked(cmd *cobra.Command) *link {
	l := &link{}
	l.flags(cmd)
	return l
}

// flags adds the flags of a link to a command and those below it.
func (l *link) flags(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&l.server, "server", os.Getenv("GREENROOM_SERVER"), "server's URL or socket (environment: GREENROOM_SERVER; default: the socket in the state directory)")
	flags.StringVar(&l.tokenFile, "token-file", "", "file with the bearer token (default: GREENROOM_TOKEN, or over loopback TCP the state directory's admin.token)")
	flags.Lookup("server").DefValue = "" // that of the environment may be anything, and help would print it
	stateDirFlag(cmd, &l.stateDir)
}

func stateDirFlag(cmd *cobra.Command, dir *string) {
	cmd.PersistentFlags().StringVar(dir, "state-dir", defaultStateDir(), "the server's state directory (environment: GREENROOM_STATE_DIR; else /var/lib/greenroom for root, and for others greenroom in XDG_STATE_HOME or else ~/.local/state)")
}

func defaultStateDir() string {
	if dir := os.Getenv("GREENROOM_STATE_DIR"); dir != "" {
		return dir
	}
	if os.Geteuid() == 0 {
		return "/var/lib/greenroom"
	}
	base := os.Getenv("XDG_STATE_HOME")
	if home, err := os.UserHomeDir(); base == "" && err == nil {
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "greenroom")
}

// Patience of the commands while the server is away: a look fails soon, a job waits for a restart.
const (
	soon  = time.Second
	later = time.Minute
)

// outputs refuses other formats than those that the command has.
func outputs(cmd *cobra.Command, formats ...string) error {
	o, last := cmd.Flag("output").Value.String(), len(formats)-1
	if slices.Contains(formats, o) {
		return nil
	}
	return usage("output format %q, want %s or %s", o, strings.Join(formats[:last], ", "), formats[last])
}

// open returns a client of the server that the flags name.
func (l *link) open(cmd *cobra.Command, patience time.Duration) (*client.Client, error) {
	o := client.Options{Addr: l.server, Retry: patience}
	if patience == later {
		said := false
		o.OnRetry = func(err error) {
			if !said {
				fmt.Fprintf(cmd.ErrOrStderr(), "greenroom: %s; trying again\n", plan.Clean(err.Error()))
			}
			said = true
		}
	}
	if o.Addr == "" {
		dir, err := filepath.Abs(l.stateDir)
		if err != nil {
			return nil, err
		}
		o.Addr = filepath.Join(dir, "greenroom.sock")
	}
	var err error
	if o.Token, err = l.token(); err != nil {
		return nil, err
	}
	if strings.ContainsFunc(o.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, usage("the token has a blank or a character that no token has; it is one word, such as gr_ABC: see --token-file or GREENROOM_TOKEN")
	}
	c, err := client.New(o)
	if err != nil {
		return nil, usage("%w", err)
	}
	return c, nil
}

func (l *link) token() (string, error) {
	if l.tokenFile != "" {
		text, err := os.ReadFile(l.tokenFile)
		if err != nil {
			return "", fmt.Errorf("read the token: %w", err)
		}
		token := strings.TrimSpace(string(text))
		if token == "" {
			return "", fmt.Errorf("the token file %s is empty; it holds one word, such as gr_ABC", l.tokenFile)
		}
		return token, nil
	}
	if token := strings.TrimSpace(os.Getenv("GREENROOM_TOKEN")); token != "" {
		return token, nil
	}
	if !l.loopback() {
		return "", nil
	}
	text, err := os.ReadFile(filepath.Join(l.stateDir, "admin.token"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return "", fmt.Errorf("read the token: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// loopback tells whether the server is reached over TCP on this machine: the admin's token of this machine's server is sent to
// no other, and a socket needs none, because its server knows who calls.
func (l *link) loopback() bool {
	u, err := url.Parse(l.server)
	if err != nil {
		return false
	}
	host := u.Hostname()
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// hints are what to do about an answer, by its code.
var hints = map[string]string{
	"not_yours":      "ask its holder or an admin",
	"unauthorized":   "set GREENROOM_TOKEN or --token-file; an admin makes tokens with \"greenroom token create\"",
	"forbidden":      "ask an admin",
	"unknown_cache":  "see \"greenroom cache list\"",
	"unknown_pool":   "see \"greenroom pool list\"",
	"unknown_guest":  "see \"greenroom guest list\"",
	"unknown_lease":  "leases end by release, expiry and the loss of their guest; acquire another",
	"lease_over":     "acquire another",
	"impossible":     "see labels and capacities with \"greenroom spec show\"",
	"none_ready":     "leave --wait out to wait in line",
	"hold_budget":    "taint a held guest with \"greenroom guest taint GUEST\", or raise hold { max } in the spec",
	"leased":         "release the lease with --hold instead",
	"conflict":       "look at it with \"greenroom guest show\", and try again",
	"last_admin":     "make another one with \"greenroom token create --role admin\" first",
	"unavailable":    "see \"greenroom status\"",
	"unknown_plan":   "ask for it again with \"greenroom plan\"; see \"greenroom plan list\"",
	"plan_not_ready": "see what has become of it with \"greenroom plan show\"",
	"plan_stale":     "look at it again with \"greenroom plan show\", then approve it",
}

// hinted adds to an error what to do next.
func hinted(err error) error {
	var answered *client.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &answered) && hints[answered.Code] != "":
		return advised(err, hints[answered.Code])
	case !errors.As(err, &answered) && errors.Is(err, fs.ErrPermission):
		return advised(err, "only the server's own user and root may use its socket; an admin makes tokens for --server URL")
	case !errors.As(err, &answered) && strings.Contains(err.Error(), "cannot reach the server"):
		return advised(err, "is \"greenroom serve\" running? name another with --server or --state-dir")
	}
	return err
}

// advised puts a hint behind an error: in brackets, unless the error ends with some.
func advised(err error, hint string) error {
	if strings.HasSuffix(err.Error(), ")") {
		return fmt.Errorf("%w; %s", err, hint)
	}
	return fmt.Errorf("%w (%s)", err, hint)
}

// look makes one call and prints what came back.
func look[T any](cmd *cobra.Command, at *link, ask func(context.Context, *client.Client) (T, error), table func(*tabwriter.Writer, T)) error {
	c, err := at.open(cmd, soon)
	if err != nil {
		return err
	}
	v, err := ask(cmd.Context(), c)
	if err != nil {
		return hinted(err)
	}
	return show(cmd, v, func(w *tabwriter.Writer) { table(w, v) })
}

// show prints v as JSON, or what table writes: columns are separated by tabs.
func show(cmd *cobra.Command, v any, table func(w *tabwriter.Writer)) error {
	if isJSON(cmd) {
		return writeJSON(cmd.OutOrStdout(), v)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
	table(w)
	return w.Flush()
}

// row writes one line of a table. What the server says may have been written by anybody: control characters are made visible,
// line ends and tabs, which would break the table, included.
func row(w *tabwriter.Writer, cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		if c == "" {
			c = "-"
		}
		fmt.Fprint(w, plan.Clean(fmt.Sprint(c)))
	}
	fmt.Fprintln(w)
}

func yes(b bool) string { return map[bool]string{true: "yes", false: "no"}[b] }

// ago writes the time since t for people.
func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := time.Since(t)
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd ago", int(d.Hours()/24))
	case d >= time.Hour:
		return d.Truncate(time.Minute).String() + " ago"
	}
	return max(0, d.Truncate(time.Second)).String() + " ago"
}

// local writes a time for people.
func local(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(time.DateTime)
}

// wishes are the flags that say what guest is wanted.
type wishes struct {
	cache   string
	labels  map[string]string
	atLeast map[string]string
	ttl     time.Duration
	wait    string
}

func (w *wishes) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.cache, "cache", "", "cache to take the guest from (default: a spare of any pool)")
	cmd.Flags().StringToStringVar(&w.labels, "label", nil, "label that the guest must have, as key=value; may be repeated")
	cmd.Flags().StringToStringVar(&w.atLeast, "at-least", nil, "capacity that the guest must have, as cpus=2; may be repeated")
	cmd.Flags().DurationVar(&w.ttl, "ttl", 0, "how long the lease lives after a heartbeat (default: the cache's)")
	cmd.Flags().StringVar(&w.wait, "wait", "", "longest time to wait in line, as 10m; 0s: not at all (default: as long as it takes)")
}

func (w *wishes) request() (client.Request, error) {
	r := client.Request{Cache: w.cache, Labels: w.labels, TTL: client.Duration(w.ttl)}
	if w.ttl < 0 {
		return r, usage("--ttl %v is negative", w.ttl)
	}
	if w.wait != "" {
		r.Wait = new(client.Duration)
		if err := r.Wait.UnmarshalText([]byte(w.wait)); err != nil {
			return r, usage("--wait: %w", err)
		}
	}
	for name, text := range w.atLeast {
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || !(n >= 0) || math.IsInf(n, 0) {
			return r, usage("--at-least %s=%s: %q is no number from 0 on", name, text, text)
		}
		if r.AtLeast == nil {
			r.AtLeast = map[string]float64{}
		}
		r.AtLeast[name] = n
	}
	return r, nil
}

// inLine tells of a new place in line.
func inLine(cmd *cobra.Command) func(client.Lease) {
	return func(l client.Lease) {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s in line for cache %s: %s\n", client.Ordinal(l.Position), plan.Clean(l.Cache), plan.Clean(whyQueued(l)))
	}
}

// whyQueued is what a request waits for, without its place.
func whyQueued(l client.Lease) string {
	return strings.TrimPrefix(l.Reason, "you are "+client.Ordinal(l.Position)+": ")
}

// group is a command that only has others below it.
func group(use, short string, below ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, RunE: oneBelow}
	cmd.AddCommand(below...)
	return cmd
}

// oneBelow is what a command does that only has others below it.
func oneBelow(cmd *cobra.Command, args []string) error {
	var names []string
	for _, b := range cmd.Commands() {
		names = append(names, b.Name())
	}
	if len(args) > 0 {
		return usage("%s has no command %q; it has %s", cmd.CommandPath(), args[0], strings.Join(names, ", "))
	}
	if len(names) == 1 {
		return usage("%s needs the command %s", cmd.CommandPath(), names[0])
	}
	return usage("%s needs one of the commands %s", cmd.CommandPath(), strings.Join(names, ", "))
}

// states writes the counts of guests that are not zero, in the order of a guest's life.
func states(counts map[lease.State]int) string {
	var out []string
	for _, s := range lease.States {
		if counts[s] > 0 {
			out = append(out, fmt.Sprintf("%d %s", counts[s], s))
		}
	}
	return strings.Join(out, ", ")
}
