version = 1

pool "a" {
  module    = "local"
  max       = 4
  shardsize = 10
  brake     = { max_unhealthy = "40%" }
  probe "ssh" {
    port = 22
  }
}

cache "c" {
  pools    = [pool.a]
  max      = pool.a.maxx
  replicas = 3
  lease {
    tll = "10m"
  }
}
