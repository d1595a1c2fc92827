pool "a" {
  module    = "local"
  max       = 4
  user_data = join("", [for n in range(1000) : "0123456789012345678901234567890123456789012345678901234567890123456789"])
  probe "http" {
    port = 80
    path = "health check"
  }
  probe "exec" {
    command = []
  }
}
