pool "a" {
  module    = ["local"]
  max       = "four"
  labels    = ["linux"]
  capacity  = { cpus = "two" }
  variables = "isolation"
  probe "exec" {
    command = "true"
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
