cache "c" {
  pools = [pool.a, pool.b]
  warm  = -1
}
