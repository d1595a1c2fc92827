pool "a" {
  module = "local"
  max    = 4
  probe "ssh" {
    every   = "5s"
    timeout = "6s"
  }
}
