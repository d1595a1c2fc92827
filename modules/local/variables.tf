variable "guests" {
  description = "The guests to have, by name. Another incarnation is another machine: the old one is destroyed."
  type = map(object({
    incarnation = number
    user_data   = string
  }))
  nullable = false

  validation {
    condition     = alltrue([for name in keys(var.guests) : can(regex("^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$", name))])
    error_message = "Guest names are 1 to 63 letters, digits, - and _, and begin with a letter or digit."
  }

  validation {
    condition     = alltrue([for guest in values(var.guests) : guest.incarnation >= 1 && floor(guest.incarnation) == guest.incarnation])
    error_message = "The incarnation of a guest is a whole number from 1."
  }

  # It travels in the environment of one command, which the kernel bounds (MAX_ARG_STRLEN).
  validation {
    condition     = alltrue([for guest in values(var.guests) : try(length(guest.user_data), 0) <= 65536])
    error_message = "The user data of a guest has at most 64 KiB; let it fetch what is larger."
  }
}

variable "pool" {
  description = "The pool that the guests belong to."
  type        = string
  nullable    = false
}

variable "ssh_authorized_keys" {
  description = "Who may log in, as lines of authorized_keys format: plain keys, and authorities with the option cert-authority. Changing them replaces nothing: a guest keeps the keys it was born with."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for line in var.ssh_authorized_keys : !strcontains(line, "\n")])
    error_message = "Each of ssh_authorized_keys is one line."
  }
}

variable "isolation" {
  description = "How a guest is kept apart from its host: \"process\" (own session and directory) or \"namespaces\" (own pid, mount and uts namespaces too, where the user may)."
  type        = string
  default     = "process"
  nullable    = false

  validation {
    condition     = contains(["process", "namespaces"], var.isolation)
    error_message = "Allowed for isolation are \"process\" and \"namespaces\"."
  }
}

variable "directory" {
  description = "Absolute path under which the guests' directories are made. Empty means the environment's GREENROOM_GUESTS_DIR, which Greenroom sets."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = var.directory == "" || startswith(var.directory, "/")
    error_message = "The directory is an absolute path, or empty."
  }
}
