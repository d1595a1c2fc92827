pool "a" {
  module    = "local"
  max       = tonumber("four")
  user_data = file("missing.sh")
}
