pool "a" {
  module = "local"
