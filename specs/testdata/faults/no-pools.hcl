cache "c" {
  pools = []
}
