pool "a" {
  module = "local"
  max    = 4
}

cache "c" {
  pools = [pool.a]
  lease {
    ttl = "2h"
    max = "1h"
  }
}
