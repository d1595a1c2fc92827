package main

import (
	"context"
	"os"
	"os/signal"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"greenroom/internal/session"
)

// TestMain lets scripts call this very command as "greenroom", in a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"greenroom": func() {
			ctx, stop := signal.NotifyContext(context.Background(), session.Signals()...)
			defer stop()
			os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
		},
	})
}

// TestScripts runs testdata/script: one file, one behaviour of the command.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", RequireExplicitExec: true})
}
