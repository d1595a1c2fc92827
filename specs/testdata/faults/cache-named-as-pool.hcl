pool "a" {
  module = "local"
  max    = 4
}

cache "a" {
  pools = [pool.a]
}
