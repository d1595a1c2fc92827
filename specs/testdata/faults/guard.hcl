guard {
  max_retire = "50%"
}

guard {
  max_retire = "20%"
}

guard "fleet" {
  max_retire = 0.5
}

pool "a" {
  module = "local"
  max    = 4
  guard {
    max_retired = "10%"
  }
}

pool "b" {
  module = "local"
  max    = 4
  guard {
    max_retire = "150%"
  }
  guard {
    max_retire = "10%"
  }
}

cache "c" {
  pools = [pool.a]
  guard {
    max_retire = "50%"
  }
}

pool "d" {
  module = "local"
  max    = 4
  guard  = "50%"
}
