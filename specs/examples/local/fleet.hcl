# A fleet that runs on any machine: the bundled "local" module makes each guest a sandbox of this very host,
# with an SSH server of its own, and Terraform has nothing to download for it. "greenroom demo" serves this
# fleet, and "greenroom spec init" copies it. Every block and attribute is explained in docs/specs.md.

locals {
  warm = 2 # raise it and watch the cache fill up
}

# A pool is a supply of guests of one kind.
pool "local" {
  module = "local"
  max    = 8 # never more guests than this, whatever state they are in
  spare  = 0 # guests for requests that name no cache

  # Requests ask for equal labels, and for at least so much capacity.
  labels = {
    os   = "linux"
    kind = "sandbox"
  }
  capacity = {
    cpus   = 1
    memory = 512
  }

  # Handed to the module. "namespaces" isolates more, where this host lets users do that.
  variables = {
    isolation = "process"
  }

  # A guest that does not answer twice in a row is replaced.
  probe "ssh" {
    every    = "2s"
    timeout  = "2s"
    failures = 2
  }

  # When more than this looks dead at once the fault is elsewhere: replace nothing.
  brake {
    max_unhealthy = "40%"
  }

  # Replace outdated guests one by one.
  rollout {
    max_unavailable = 1
  }
}

# A cache is a shelf of prepared guests that belongs to a team.
cache "ci" {
  owner = "platform"
  pools = [pool.local]
  warm  = local.warm         # ready before anybody asks
  size  = 4                  # at most so many stay on the shelf
  max   = pool.local.max - 2 # at most so many in all, leased ones included

  # A lease that is not renewed ends after ttl, and every lease ends after max.
  lease {
    ttl = "5m"
    max = "1h"
  }

  # A guest goes back on the shelf until it has served 50 leases or is a day old; then it is replaced.
  reuse {
    uses = 50
    age  = "24h"
  }

  prepare = "scripts/prepare.sh" # once, when a guest enters the cache
  reset   = "scripts/reset.sh"   # after each lease, before the guest is shelved again

  # "release --hold" keeps a guest aside for diagnosis, so long and so many at once.
  hold {
    for = "1h"
    max = 1
  }
}
