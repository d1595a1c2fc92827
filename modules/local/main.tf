locals {
  # A relative directory is one in GREENROOM_GUESTS_DIR; the greenroom binary resolves it.
  directories = {
    for name, guest in var.guests :
    name => join("/", compact([trimsuffix(var.directory, "/"), "${name}.${guest.incarnation}"]))
  }

  # Where a starting guest leaves its facts for the same run to read.
  reports = {
    for name, guest in var.guests : name => "${path.root}/.guests/${name}.${guest.incarnation}.json"
  }
}

# A guest. Its input is what it was born with and what it needs to be destroyed; later changes of
# the variables leave it alone, and another incarnation replaces it.
resource "terraform_data" "guest" {
  for_each         = var.guests
  triggers_replace = each.value.incarnation
  input = {
    pool      = var.pool
    directory = local.directories[each.key]
  }

  lifecycle {
    ignore_changes = [input]
  }

  # Values go by environment: no shell reads them as code, and none shows in a process list.
  provisioner "local-exec" {
    command = <<-EOT
      set -eu
      mkdir -p "$(dirname "$REPORT")"
      "$${GREENROOM_BINARY:?set it to the path of the greenroom binary}" guestd start --dir "$DIRECTORY" --name "$NAME" --isolation "$ISOLATION" > "$REPORT"
    EOT
    environment = {
      NAME                      = each.key
      DIRECTORY                 = local.directories[each.key]
      ISOLATION                 = var.isolation
      REPORT                    = local.reports[each.key]
      GREENROOM_INCARNATION     = each.value.incarnation
      GREENROOM_USER_DATA       = each.value.user_data
      GREENROOM_AUTHORIZED_KEYS = join("\n", var.ssh_authorized_keys)
      GOGC                      = "" # a guest lives long: nothing of what makes a short Terraform faster is for it
      GOMEMLIMIT                = ""
      GOMAXPROCS                = ""
    }
  }

  provisioner "local-exec" {
    when    = destroy
    command = "\"$${GREENROOM_BINARY:?set it to the path of the greenroom binary}\" guestd stop --dir \"$DIRECTORY\""
    environment = {
      DIRECTORY  = self.input.directory
      GOGC       = ""
      GOMEMLIMIT = ""
      GOMAXPROCS = ""
    }
  }
}

# What a guest said of itself at birth, kept in the state: it stays known when the guest is dead
# and its files are gone. A guest without a report keeps its entry, with a port that no probe can
# reach, so that it is found dead and replaced.
resource "terraform_data" "facts" {
  for_each         = var.guests
  triggers_replace = terraform_data.guest[each.key].id
  input = try(
    {
      for key, value in jsondecode(file(terraform_data.guest[each.key].id == "" ? "" : local.reports[each.key])) :
      key => value if contains(["id", "host", "port", "user", "host_key", "attributes"], key)
    },
    {
      id         = "${each.key}.${each.value.incarnation}"
      host       = "127.0.0.1"
      port       = 0
      user       = ""
      host_key   = ""
      attributes = {}
    },
  )

  lifecycle {
    ignore_changes = [input]
  }
}
