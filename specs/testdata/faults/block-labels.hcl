pool {
  module = "local"
  max    = 4
}

cache "c" "d" {
  pools = [pool.a]
}

pool "a" {
  module = "local"
  max    = 4
  probe {}
  brake "hard" {}
}

locals "x" {}
