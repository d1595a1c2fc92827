pool "a" {
  module = "local"
  max    = 4
  labels = {
    OS   = "linux"
    arch = ""
    zone = " west"
  }
  capacity = {
    "cpu count" = 2
  }
}

pool "b" {
  module = "local"
  max    = 4
  labels = { for n in range(33) : "l${n}" => "x" }
}
