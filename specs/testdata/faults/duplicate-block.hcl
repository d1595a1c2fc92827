pool "a" {
  module = "local"
  max    = 4
  brake {}
  brake {}
}
