locals {
  warm = 2
}
