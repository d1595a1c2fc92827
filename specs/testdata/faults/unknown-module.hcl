pool "a" {
  module = "loca"
  max    = 4
}
