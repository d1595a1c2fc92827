pool "a" {
  module = "my module"
  max    = 4
}

pool "b" {
  module = ""
  max    = 4
}
