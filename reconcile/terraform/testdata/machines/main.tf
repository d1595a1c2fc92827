# Guests of a real provider: integration/providers, which the test builds into a mirror.
terraform {
  required_providers {
    room = {
      source = "greenroom/room"
    }
  }
}

variable "guests" {
  type = map(object({ incarnation = number, user_data = string }))
}

variable "pool" {
  type = string
}

variable "ssh_authorized_keys" {
  type = list(string)
}

variable "dir" {
  type = string
}

resource "room_machine" "guest" {
  for_each = var.guests
  path     = "${var.dir}/${each.key}"
  text     = each.value.incarnation
}

output "guests" {
  value = {
    for name, machine in room_machine.guest : name => {
      id = "${name}/${machine.text}", host = "127.0.0.1", port = 22, user = "root", host_key = "", attributes = {}
    }
  }
}
