locals {
  warm = 1
}
