pool "a" {
  module = "local"
  max    = 4.5
}
