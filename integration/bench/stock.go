package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"greenroom/lease"
	"greenroom/specs"
)

// shelf is a fleet of one pool and one cache, whose guests are put on record by package lease, as a run's outcome is, and not
// by Terraform: 100 000 of them would take it hours. The pool is paused, so that the reconciler leaves them as they are.
type shelf struct {
	guests int
	port   int           // at which every guest answers
	every  time.Duration // between two probes
}

// module is one of no machines: Terraform keeps books of them and nothing else.
const module = `
variable "guests" {
  type = map(object({ incarnation = number, user_data = string }))
}
variable "pool" { type = string }
variable "ssh_authorized_keys" { type = list(string) }
variable "port" { type = number }
resource "terraform_data" "guest" {
  for_each         = var.guests
  triggers_replace = each.value.incarnation
}
output "guests" {
  value = {
    for name, guest in terraform_data.guest : name => {
      id = guest.id, host = "127.0.0.1", port = var.port, user = "root", host_key = "", attributes = {}
    }
  }
}
`

func (s shelf) spec() string {
	return fmt.Sprintf(`
pool "null" {
  module    = "./null"
  max       = %d
  variables = { port = %d }
  probe "tcp" { every = "%s" }
}

cache "bench" {
  owner = "platform"
  pools = [pool.null]
  warm  = 0
}
`, s.guests, s.port, s.every)
}

// writeSpecs writes specs and the module of no machines into a new directory.
func (l *lab) writeSpecs(text string) (dir string, err error) {
	if dir, err = l.place(); err != nil {
		return "", err
	}
	if err := os.Mkdir(filepath.Join(dir, "null"), 0o700); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "null", "main.tf"), []byte(module), 0o600); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "fleet.hcl"), []byte(text), 0o600)
}

// fill puts the guests of a shelf on record in a new Redis and returns the directory of their specs.
func (l *lab) fill(ctx context.Context, r *redisServer, s shelf) (dir string, err error) {
	if dir, err = l.writeSpecs(s.spec()); err != nil {
		return "", err
	}
	fleet, _, diags := specs.Load(dir, specs.Options{})
	if diags.HasErrors() {
		return "", diags
	}
	store := lease.New(r.rdb, lease.Options{})
	if err := errors.Join(store.Open(ctx), store.Adopt(ctx, fleet)); err != nil {
		return "", err
	}
	if err := store.SetPause(ctx, "null", &lease.Pause{By: "bench", Since: time.Now()}); err != nil {
		return "", err
	}
	var group errgroup.Group
	group.SetLimit(32)
	for n := range s.guests {
		group.Go(func() error { return s.put(ctx, store, fleet, n) })
	}
	return dir, group.Wait()
}

// put brings one guest from its plan to the shelf.
func (s shelf) put(ctx context.Context, store *lease.Store, fleet *specs.Fleet, n int) error {
	const run = "bench"
	// 25 guests are of one shard, as the default is.
	g, err := store.Plan(ctx, fleet.Pool("null"), fleet.Cache("bench"), fmt.Sprintf("null-0123abcd-%d", n/25+1), "0123abcd", false)
	if err != nil {
		return err
	}
	if g, err = store.Claim(ctx, g, lease.Provisioning, run, "", 0); err != nil {
		return err
	}
	// Each guest has an address of its own: to one address alone the host would run out of ports.
	if g, err = store.Publish(ctx, g, run, g.Incarnation, lease.Machine{
		ID: fmt.Sprintf("7d3c1c9e-0c5e-4a4e-9d5f-%012x", n), Host: fmt.Sprintf("127.%d.%d.%d", 1+n/62500, 1+n/250%250, 1+n%250), Port: s.port, User: "root",
		HostKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHXO3HJUzYcH6oBnV3E2W2p6Qm9mFD8pX0Xf0u0Wj4kS", Attributes: []byte(`{"zone":"a"}`),
	}); err != nil {
		return err
	}
	_, err = store.Booted(ctx, g)
	return err
}
