pool "a" {
  module = "local"
  max    = 4
  spare  = 1
}

pool "b" {
  module = "local"
  max    = 4
}

cache "c" {
  pools = [pool.a]
  warm  = 2
}

cache "d" {
  pools = [pool.a]
  warm  = 2
}

cache "e" {
  pools = [pool.a, pool.b]
  warm  = 2
}
