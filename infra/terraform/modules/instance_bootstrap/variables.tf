variable "name" {
  description = "Name of the deployment; log groups and metrics are below it."
  type        = string
}

variable "role" {
  description = "What runs on the instance: gateway, workers or nats."
  type        = string

  validation {
    condition     = contains(["gateway", "workers", "nats"], var.role)
    error_message = "The role is gateway, workers or nats."
  }
}

variable "region" {
  description = "Region of AWS that the instance calls."
  type        = string
}

variable "image" {
  description = "Container image of livefeed, with its digest in production."
  type        = string
}

variable "collector_image" {
  description = "Container image of the OpenTelemetry collector (contrib), with its digest in production."
  type        = string
}

variable "log_group" {
  description = "CloudWatch log group of everything on the instance."
  type        = string
}

variable "metrics_namespace" {
  description = "CloudWatch namespace of the instance's metrics."
  type        = string
}

variable "environment" {
  description = "Settings of livefeed by variable name (LIVEFEED_…); none of them secret."
  type        = map(string)

  validation {
    condition     = alltrue([for name in keys(var.environment) : startswith(name, "LIVEFEED_")])
    error_message = "Every variable's name begins with LIVEFEED_."
  }

  validation {
    condition     = alltrue([for text in values(var.environment) : !strcontains(text, "\n")])
    error_message = "A setting is one line: the file of settings has one a line."
  }

  validation {
    condition = length(setintersection(keys(var.environment), [
      "LIVEFEED_DATABASE_URL", "LIVEFEED_REPLICA_URLS", "LIVEFEED_NATS_NKEY_SEED",
      "LIVEFEED_JWT_SECRET", "LIVEFEED_JWT_PRIVATE_KEY", "LIVEFEED_REDIS_URL",
    ])) == 0
    error_message = "A setting that may hold a secret is read from Secrets Manager, never from user data."
  }
}

variable "node_agent" {
  description = "Settings of livefeed node-agent by variable name (LIVEFEED_NODE_…); it drains the instance before it ends."
  type        = map(string)

  validation {
    condition     = alltrue([for name in keys(var.node_agent) : startswith(name, "LIVEFEED_NODE_")])
    error_message = "Every variable's name begins with LIVEFEED_NODE_."
  }
}

variable "nkey_seed_secret" {
  description = "ARN of the secret that holds the NKEY seed with which livefeed enters NATS."
  type        = string
}

variable "nats_ca_certificate" {
  description = "Certificate (PEM, public) that those of the NATS servers are signed by."
  type        = string
}

variable "stop_seconds" {
  description = "How long systemd waits for a service to drain before it kills it."
  type        = number
  default     = 30
}

variable "database" {
  description = "Where Postgres is, and the ARN of the secret with username and password; null where none is used."
  type = object({
    secret        = string
    host          = string
    port          = optional(number, 5432)
    database      = optional(string, "livefeed")
    replica_hosts = optional(list(string), [])
    ca_url        = optional(string)
  })
  default = null
}

variable "redis_host" {
  description = "Host of the Redis that gateways share pages in, over TLS; null for NATS."
  type        = string
  default     = null
}

variable "nats_server" {
  description = "The NATS server of this node; needed for the role nats, null for others."
  type = object({
    name        = string
    zone        = string
    cluster     = string
    routes      = list(string)
    tls_secret  = string
    public_keys = map(string)
    # Of a role whose key is being changed: both let it in.
    previous_public_keys = optional(map(string), {})
    file_bytes_max       = number
    memory_bytes         = number
    data_device          = optional(string, "/dev/sdf")
    payload_bytes        = number
    pending_bytes        = optional(number, 67108864)
    client_port          = number
    route_port           = optional(number, 6222)
    monitor_port         = optional(number, 8222)
    streams_max          = number
    consumers_max        = number
    lame_duck_grace      = optional(number, 10)
    lame_duck            = optional(number, 30)
    roles = list(object({
      name      = string
      publish   = list(string)
      subscribe = list(string)
    }))
  })
  default = null

  validation {
    condition = var.nats_server == null ? true : alltrue([
      for role in var.nats_server.roles : contains(keys(var.nats_server.public_keys), role.name)
    ])
    error_message = "Each role needs the public key of its NKEY in public_keys."
  }

  validation {
    condition = var.nats_server == null ? true : alltrue([
      for key in concat(values(var.nats_server.public_keys), values(var.nats_server.previous_public_keys)) : can(regex("^U[A-Z2-7]{55}$", key))
    ])
    error_message = "A public key of a user begins with U and has 56 characters; a seed (SU…) must not come here."
  }
  validation {
    condition     = var.nats_server == null ? true : length(distinct(concat(values(var.nats_server.public_keys), values(var.nats_server.previous_public_keys)))) == length(concat(values(var.nats_server.public_keys), values(var.nats_server.previous_public_keys)))
    error_message = "Each public key is of one role, and a previous one is another than today's: servers refuse a user that is there twice."
  }
}
