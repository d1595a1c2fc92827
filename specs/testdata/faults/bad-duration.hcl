pool "a" {
  module = "local"
  max    = 4
  probe "ssh" {
    every = "10 seconds"
  }
}

cache "c" {
  pools = [pool.a]
  lease {
    ttl = 30
    max = "1d"
  }
}
