guard = "50%"

guard "fleet" {
  max_retire = 0.5
}

gard {
  max_retire = "50%"
}
