pool "a" {
  module = "local"
  max    = 4
}

cache "c" {
  pools = [pool.a]
  size  = 3
  max   = 2
}
