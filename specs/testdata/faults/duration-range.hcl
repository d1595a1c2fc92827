pool "a" {
  module = "local"
  max    = 4
  probe "ssh" {
    every   = "0s"
    timeout = "-3s"
  }
}

cache "c" {
  pools = [pool.a]
  lease {
    ttl = "4s"
    max = "100000h"
  }
  reuse {
    age = "0s"
  }
  hold {
    for = "-1h"
  }
}
