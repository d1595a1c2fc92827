pool "a" {
  module = "local"
  max    = 4
  brake {
    max_unhealthy = "140%"
  }
}

pool "b" {
  module = "local"
  max    = 4
  brake {
    max_unhealthy = 0.4
  }
}

pool "c" {
  module = "local"
  max    = 4
  brake {
    max_unhealthy = "-1%"
  }
}
