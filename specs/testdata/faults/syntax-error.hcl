pool "a" {
  module = "local"
  max    = 
}
