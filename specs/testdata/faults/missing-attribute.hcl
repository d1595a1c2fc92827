pool "a" {
  max = null
  probe "http" {}
  probe "exec" {}
}

cache "c" {}
