pool "a" {
  module = "local"
  max    = 4
  probe "ssh" {}
  probe "ssh" {}
}
