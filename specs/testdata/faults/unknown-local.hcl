locals {
  size = 2
}

pool "a" {
  module = "local"
  max    = local.sise
}
