pool "a" {
  module = "local"
  max    = maximum(1, 2)
}
