locals {
  a = join("", [for n in range(1000) : "0123456789012345678901234567890123456789012345678901234567890123456789"])
  b = "${local.a}${local.a}${local.a}${local.a}${local.a}${local.a}${local.a}${local.a}${local.a}${local.a}${local.a}${local.a}${local.a}${local.a}${local.a}${local.a}"
  c = 1e400
}
