pool "a" {
  module = "./modules/vm"
  max    = 4
}

pool "b" {
  module = "./empty"
  max    = 4
}

pool "c" {
  module = "/no/such/module"
  max    = 4
}
