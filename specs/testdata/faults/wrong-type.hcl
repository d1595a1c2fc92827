pool "a" {
  module    = ["local"]
  max       = "four"
  labels    = { os = "linux", disks = ["a"] }
  capacity  = { cpus = "two" }
  variables = "isolation"
  probe "exec" {
    command = ["true", null]
  }
}

cache "c" {
  enabled = "perhaps"
  pools   = "a"
  lease {
    ttl = ["5m"]
  }
}

cache "d" {
  pools = ["a", 1, cache.c, null]
}
