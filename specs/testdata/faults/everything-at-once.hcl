locals {
  ttl = "30min"
}

pool "linux" {
  module = "local"
  max    = 2
  spare  = 3
  speed  = "fast"
}

cache "ci" {
  pools = [pool.linus]
  warm  = 4
  size  = 3
  lease {
    ttl = local.ttl
  }
}
