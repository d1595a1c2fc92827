pool "a" {
  module = "local"
  max    = 4
  max    = 5
}
