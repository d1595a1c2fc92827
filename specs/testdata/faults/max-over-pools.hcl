pool "a" {
  module = "local"
  max    = 4
}

pool "b" {
  module = "local"
  max    = 4
}

cache "c" {
  pools = [pool.a, pool.b]
  max   = 9
}
