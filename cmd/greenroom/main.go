// Command greenroom is the server, the client and the admin tool of Greenroom in one binary.
//
// This file is a shell around run; each command stands in a file of its own and holds no logic
// beyond reading flags, calling one package, and printing what came back.
package main

import (
	"cmp"
	"context"
	"io"
	"os"
	"os/signal"

	"greenroom/internal/session"
	"greenroom/reconcile/terraform"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), session.Signals()...)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run executes one command line and returns its exit code: 0 done, 1 failed, 2 usage; that of plan is 2 for changes.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if dir, ok := runnerDir(args); ok { // somebody waits for its run, and none of the commands is needed
		return terraform.RunnerMain(ctx, dir)
	}
	root := newRoot(stdin, stdout, stderr)
	root.SetArgs(args)
	unhelped := watchHelp(root)
	cmd, err := root.ExecuteContextC(ctx)
	return report(stderr, cmd, cmp.Or(err, *unhelped))
}
