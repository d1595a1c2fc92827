pool "linux" {
  module = "local"
  max    = 4
}

cache "c" {
  pools = [pool.linus, pool.windows]
}

cache "d" {
  pools = [{ name = "macos" }]
}
