pool "a" {
  module = "local"
  max    = 4
  probe "ssh" { every = "10s"  timeout = "3s" }
}
