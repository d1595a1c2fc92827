pool "a" {
  module = "local"
  max    = 4
  spare  = 5
}
