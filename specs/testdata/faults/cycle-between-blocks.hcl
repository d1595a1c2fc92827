pool "a" {
  module = "local"
  max    = cache.c.size
}

cache "c" {
  pools = [pool.a]
}
