pool "a" {
  module    = "../modules/vm"
  max       = 4
  user_data = file("../secret")
}

cache "c" {
  pools   = [pool.a]
  prepare = "../prepare.sh"
  reset   = "/etc/passwd"
}
