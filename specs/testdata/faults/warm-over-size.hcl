pool "a" {
  module = "local"
  max    = 4
}

cache "c" {
  pools = [pool.a]
  warm  = 3
  size  = 2
}

cache "d" {
  pools = [pool.a]
  warm  = 9
}
