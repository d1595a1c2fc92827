pool "Linux" {
  module    = "local"
  max       = 4
  variables = { "9lives" = true }
}

pool "debian-12" {
  module = "local"
  max    = 4
}

pool "a-name-that-is-longer-than-forty-characters" {
  module = "local"
  max    = 4
}

cache "ci_" {
  pools = [pool.debian-12]
}
