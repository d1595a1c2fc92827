output "guests" {
  description = "Where each guest answers and who it must prove to be, by name."
  value       = { for name, facts in terraform_data.facts : name => facts.output }
}
