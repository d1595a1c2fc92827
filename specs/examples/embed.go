// Package examples carries runnable fleets inside the binary, so that the demo and "spec init" need no checkout.
package examples

import "embed"

// FS has one spec directory for each example; "local" is the fleet of the demo.
//
//go:embed local
var FS embed.FS
