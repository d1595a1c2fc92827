pool "a" {
  module = "local"
  max    = 4
  variables = {
    guests              = {}
    pool                = "a"
    ssh_authorized_keys = []
    isolation           = "process"
  }
}
