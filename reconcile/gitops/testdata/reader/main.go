// Command reader is the hidden command of greenroom, without the rest.
package main

import (
	"context"
	"os"

	"greenroom/reconcile/gitops"
)

func main() { os.Exit(gitops.ReaderMain(context.Background(), os.Stdin, os.Stdout)) }
