pool "a" {
  module = "local"
  max    = 4
}

pool "a" {
  module = "local"
  max    = 4
}
