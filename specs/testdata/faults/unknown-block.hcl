pol "a" {
  module = "local"
  max    = 4
}

pool "b" {
  module = "local"
  max    = 4
  prob "ssh" {}
  labels {
    os = "linux"
  }
}

locals {
  sizes {
    a = 1
  }
}
