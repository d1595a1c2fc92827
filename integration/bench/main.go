// Command bench measures Greenroom as its users meet it: the built server in a process of its own, a real Redis, real
// Terraform. Each number is a ratio to a baseline that the program runs itself, in turn with what is measured, so that a slow or busy
// machine slows both; the few that are absolute say so. "make bench" runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// benchmark is one of the list. It may come to several numbers.
type benchmark struct {
	number int
	title  string
	run    func(context.Context, *lab) ([]result, error)
}

var benchmarks = []benchmark{
	{1, "lease pairs over HTTP", leasePairs},
	{2, "lease pairs and the size of the shelf", shelfSizes},
	{3, "from a miss to its guest", misses},
	{4, "converging and replacing", converging},
	{5, "ticks with nothing to do", idling},
	{6, "probes and memory", watching},
}

// sizes are how much of everything a run does.
type sizes struct {
	rounds  int
	turns   int           // of each contestant in a round
	turn    time.Duration // how long one is
	shelves []int
	probed  int           // guests that are probed
	window  time.Duration // for which probes are counted
	many    int           // guests for the memory
	settled time.Duration // for which the server has them before its memory is read

	misses, locals int           // requests for guests of no machines, and for local ones
	crowd, crowds  int           // guests to converge to, and how often
	replaced       int           // guests, one after another
	pools          int           // that have nothing to do
	idle           time.Duration // for so long
}

var (
	whole = sizes{
		rounds: 11, turns: 4, turn: 700 * time.Millisecond, shelves: []int{100, 10000, 100000},
		probed: 10000, window: 40 * time.Second, many: 100000, settled: 75 * time.Second,
		misses: 60, locals: 15, crowd: 1000, crowds: 3, replaced: 15, pools: 1000, idle: time.Minute,
	}
	// quick keeps the program working; its numbers say nothing.
	quick = sizes{
		rounds: 1, turns: 2, turn: 100 * time.Millisecond, shelves: []int{70, 140},
		probed: 50, window: time.Second, many: 200, settled: time.Second,
		misses: 2, locals: 1, crowd: 30, crowds: 1, replaced: 1, pools: 20, idle: time.Second,
	}
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, say io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(say)
	only := flags.String("only", "", "numbers of the benchmarks to run, as in 1,2 (default: all)")
	fast := flags.Bool("quick", false, "run everything once with tiny sizes: the numbers say nothing")
	jsonFile := flags.String("json", "", "file to write the results to, as JSON")
	resultsFile := flags.String("results", "", "file to write the results to, as Markdown")
	bareFor := flags.String("serve-bare", "", "be the baseline server for the Redis at this address")
	rounds := flags.Int("rounds", 0, "of the benchmarks that are taken in turn (default: 11)")
	keep := flags.Bool("keep", false, "leave the directory with the logs behind")
	binary := flags.String("binary", "", "greenroom binary to measure (default: built from the source)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *bareFor != "" {
		return serveBare(ctx, *bareFor, out)
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	l, end, err := newLab(ctx, *binary, say)
	if err != nil {
		return err
	}
	if *keep {
		fmt.Fprintln(say, "logs are in", l.dir)
	} else {
		defer end()
	}
	if l.sizes = whole; *fast {
		l.sizes = quick
	}
	if *rounds > 0 {
		l.sizes.rounds = *rounds
	}
	rep := report{Machine: thisMachine(ctx)}
	for _, b := range chosen {
		l.sayf("%d. %s", b.number, b.title)
		results, err := b.run(ctx, l)
		if err != nil {
			return fmt.Errorf("benchmark %d (%s): %w", b.number, b.title, err)
		}
		for _, r := range results {
			r.Benchmark = b.number
			rep.Results = append(rep.Results, r.judged())
		}
	}
	rep.Machine.Load = append(rep.Machine.Load, loadAverage())
	return rep.write(out, *jsonFile, *resultsFile)
}

func choose(only string) ([]benchmark, error) {
	if only == "" {
		return benchmarks, nil
	}
	var chosen []benchmark
	for text := range strings.SplitSeq(only, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		i := slices.IndexFunc(benchmarks, func(b benchmark) bool { return b.number == n })
		if err != nil || i < 0 {
			return nil, fmt.Errorf("-only %q: there is no benchmark %q", only, text)
		}
		chosen = append(chosen, benchmarks[i])
	}
	return chosen, nil
}

// newLab makes the place of a run; end takes it away again.
func newLab(ctx context.Context, binary string, say io.Writer) (l *lab, end func(), err error) {
	l = &lab{say: say, binary: binary}
	if l.self, err = os.Executable(); err != nil {
		return nil, nil, err
	}
	if l.dir, err = os.MkdirTemp("", "gr-bench-"); err != nil {
		return nil, nil, err
	}
	end = func() { _ = os.RemoveAll(l.dir) }
	if binary == "" {
		l.binary = filepath.Join(l.dir, "greenroom")
		err = l.build(ctx)
	}
	if err != nil {
		end()
		return nil, nil, err
	}
	return l, end, nil
}

// write shows a report and keeps it where it is wanted.
func (r report) write(out io.Writer, jsonFile, resultsFile string) error {
	err := table(out, r.Results)
	if jsonFile != "" {
		err = errors.Join(err, writeJSON(jsonFile, r))
	}
	if resultsFile != "" {
		err = errors.Join(err, os.WriteFile(resultsFile, []byte(r.markdown()), 0o644))
	}
	return err
}
