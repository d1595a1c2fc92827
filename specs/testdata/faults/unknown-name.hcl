pool "a" {
  module = local
  max    = var.max
  labels = { os = linux }
}
