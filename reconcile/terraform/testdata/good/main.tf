# A module that makes nothing but keeps the contract. "flags" is a directory by which tests steer it:
# a file fail-<guest> makes the creation of that guest fail, hang-<guest> makes it hang until the file
# is gone.
variable "guests" {
  type = map(object({ incarnation = number, user_data = string }))
}

variable "pool" {
  type = string
}

variable "ssh_authorized_keys" {
  type = list(string)
}

variable "flags" {
  type    = string
  default = "/nonexistent"
}

variable "password" {
  type      = string
  default   = ""
  sensitive = true
}

resource "terraform_data" "net" {
  input = var.pool
}

resource "terraform_data" "guest" {
  for_each = var.guests
  input = {
    id   = "${var.pool}/${each.key}/${each.value.incarnation}"
    keys = length(var.ssh_authorized_keys)
  }
  triggers_replace = [each.value.incarnation]

  provisioner "local-exec" {
    environment = { FLAGS = var.flags, GUEST = each.key, PASSWORD = var.password }
    command     = <<-EOT
      echo "$GUEST" >> "$FLAGS/made-$GUEST"
      while [ -e "$FLAGS/hang-$GUEST" ]; do sleep 0.05; done
      [ ! -e "$FLAGS/fail-$GUEST" ]
    EOT
  }
}

output "guests" {
  value = {
    for name, guest in terraform_data.guest : name => {
      id         = guest.output.id
      host       = "127.0.0.1"
      port       = 22
      user       = "root"
      host_key   = "ssh-ed25519 AAAA"
      attributes = { net = terraform_data.net.output }
    }
  }
}
