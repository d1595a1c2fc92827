pool "a" {
  module = "local"
  max    = 4
}

cache "c" {
  pools = [pool.a, pool.a]
}
