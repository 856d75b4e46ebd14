variable "name" {
  description = "Name of the deployment, such as livefeed-prod; everything is named after it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "The name has 3 to 24 lower-case letters, digits and hyphens, and begins with a letter."
  }
}

variable "region" {
  description = "Region of AWS, such as eu-west-1."
  type        = string
}

variable "image" {
  description = "Container image of livefeed that instances run; name it by its digest, REPOSITORY@sha256:…."
  type        = string
}

variable "nats_public_keys" {
  description = "Public key of the NKEY of each role in NATS (U…), by role. make_access.py makes them with their seeds."
  type        = map(string)

  validation {
    condition = toset(keys(var.nats_public_keys)) == toset([
      for role in jsondecode(file("${path.module}/contract.json")).nats.roles : role.name
    ])
    error_message = "Each role needs a public key: publisher, observer, gateway, worker, admin."
  }
}

variable "nats_previous_public_keys" {
  description = "While a role's key is changed: its public key of before, by role, which servers let in as well."
  type        = map(string)
  default     = {}

  validation {
    condition     = length(setsubtract(keys(var.nats_previous_public_keys), keys(var.nats_public_keys))) == 0
    error_message = "Only roles that have a public key have had one before: publisher, observer, gateway, worker, admin."
  }
}

variable "nats_ca_certificate" {
  description = "Certificate (PEM, public) that those of the NATS servers are signed by."
  type        = string

  validation {
    condition     = startswith(trimspace(var.nats_ca_certificate), "-----BEGIN CERTIFICATE-----")
    error_message = "It is a certificate in PEM; a key must not come here."
  }
}

variable "access" {
  description = "Who may connect: where the public keys of tokens are, what tokens must say, and which pages may connect."
  type = object({
    jwks_url        = string
    algorithm       = optional(string, "RS256")
    audience        = optional(string)
    issuer          = optional(string)
    allowed_origins = optional(list(string), [])
  })

  validation {
    condition     = startswith(var.access.jwks_url, "https://") && contains(["RS256", "EdDSA"], var.access.algorithm)
    error_message = "jwks_url begins with https://, and the algorithm is RS256 or EdDSA."
  }
}

variable "certificate_arn" {
  description = "Certificate (ACM) of the name that clients connect to; null serves plain http, on trial."
  type        = string
  default     = null
}

variable "zones" {
  description = "Three availability zones; null takes the first three of the region."
  type        = list(string)
  default     = null
}

variable "tags" {
  description = "Tags of everything, beside Project and ManagedBy."
  type        = map(string)
  default     = {}
}

variable "ami_id" {
  description = "Image of all instances: Amazon Linux 2023; null takes the newest for the architecture."
  type        = string
  default     = null
}

variable "architecture" {
  description = "Architecture of all instances: arm64 (a fifth cheaper for the same work) or x86_64."
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "The architecture is arm64 or x86_64."
  }
}

variable "collector_image" {
  description = "Container image of the OpenTelemetry collector (contrib)."
  type        = string
  default     = "otel/opentelemetry-collector-contrib:0.120.0"
}

variable "repository_arns" {
  description = "ARNs of the ECR repositories of the images, of which instances may pull; none where they come from elsewhere."
  type        = list(string)
  default     = []

  validation {
    condition = alltrue([
      for image in [var.image, var.collector_image] : length(var.repository_arns) > 0 if strcontains(image, ".dkr.ecr.")
    ])
    error_message = "An image is in ECR: repository_arns has to name its repository, or instances may not pull it."
  }
}

variable "production" {
  description = "Whether what holds data, and the balancer, cannot be deleted by a call, and NATS servers are watched each minute; false on trial."
  type        = bool
  default     = true
}

variable "network" {
  description = "The VPC: its addresses, NAT gateways (1 or 3), endpoints of AWS inside it, and days of flow logs (null for none)."
  type = object({
    cidr                = optional(string, "10.20.0.0/16")
    nat_gateways        = optional(number, 3)
    interface_endpoints = optional(set(string), [])
    flow_log_days       = optional(number, 365)
    client_cidrs        = optional(list(string), ["0.0.0.0/0"])
    publishers          = optional(map(string), {})
    domain              = optional(string, "livefeed.internal")
  })
  default  = {}
  nullable = false
}

variable "nats" {
  description = "The three NATS servers: their type, and the volume with the streams of each."
  type = object({
    instance_type = optional(string, "m7g.large")
    volume = optional(object({
      size       = optional(number, 100)
      iops       = optional(number, 6000)
      throughput = optional(number, 250)
    }), {})
  })
  default  = {}
  nullable = false
}

variable "gateway" {
  description = "The gateways: types, fewest and most, spot, scaling, processes of each, and further settings (LIVEFEED_…)."
  type = object({
    instance_types = optional(list(string), ["c7g.large", "c6g.large", "m7g.large", "m6g.large"])
    size           = optional(object({ min = optional(number, 2), max = optional(number, 20) }), {})
    on_demand      = optional(object({ base = optional(number, 2), percentage_above = optional(number, 100) }), {})
    scaling = optional(object({
      cpu         = optional(number, 70)
      memory      = optional(number, 80)
      connections = optional(number)
      out_seconds = optional(number, 300)
      in_seconds  = optional(number, 600)
    }), {})
    processes     = optional(number, 2)
    drain_seconds = optional(number, 45)
    settings      = optional(map(string), {})
    web_acl_arn   = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition = alltrue([
      for name in keys(var.gateway.settings) : !contains(keys(local.reserved_settings), startswith(name, "LIVEFEED_NODE_") ? "LIVEFEED_NODE_" : name)
    ])
    error_message = "What Terraform computes is not a setting. Instead: ${join("; ", [
      for name in keys(var.gateway.settings) : "${name}: ${lookup(local.reserved_settings, startswith(name, "LIVEFEED_NODE_") ? "LIVEFEED_NODE_" : name, "as it is")}"
    ])}."
  }
}

variable "workers" {
  description = "The workers: types, fewest and most, spot or on_demand, scaling, processes of each, and further settings (LIVEFEED_…)."
  type = object({
    instance_types = optional(list(string), ["c7g.large", "c6g.large", "m7g.large", "m6g.large"])
    size           = optional(object({ min = optional(number, 0), max = optional(number, 20) }), {})
    capacity_mode  = optional(string, "spot")
    scaling = optional(object({
      backlog_each = optional(number, 20000)
      idle_minutes = optional(number, 10)
    }), {})
    processes = optional(number, 1)
    settings  = optional(map(string), {})
  })
  default  = {}
  nullable = false

  validation {
    condition = alltrue([
      for name in keys(var.workers.settings) : !contains(keys(local.reserved_settings), startswith(name, "LIVEFEED_NODE_") ? "LIVEFEED_NODE_" : name)
    ])
    error_message = "What Terraform computes is not a setting. Instead: ${join("; ", [
      for name in keys(var.workers.settings) : "${name}: ${lookup(local.reserved_settings, startswith(name, "LIVEFEED_NODE_") ? "LIVEFEED_NODE_" : name, "as it is")}"
    ])}."
  }
}

variable "postgres" {
  description = "The database: class, GiB, standby, replicas, and days to any moment of which it can be restored."
  type = object({
    instance_class = optional(string, "db.m7g.large")
    storage        = optional(object({ size = optional(number, 100), max = optional(number, 1000) }), {})
    multi_az       = optional(bool, true)
    replicas       = optional(number, 2)
    backup_days    = optional(number, 14)
    # For the groups at their most; not all of it is open at once, or 8 GiB would be few.
    connections = optional(number, 1400)
  })
  default  = {}
  nullable = false
}

variable "redis" {
  description = "A Redis that gateways share pages in; null shares them in NATS, which costs nothing more."
  type = object({
    node_type = optional(string, "cache.t4g.small")
    nodes     = optional(number, 2)
  })
  default = null
}

variable "observability" {
  description = "Days of logs, who is told of alarms, the month's budget in USD, and whether there are access logs, a dashboard and a composite alarm."
  type = object({
    log_days     = optional(number, 365)
    alarm_emails = optional(set(string), [])
    budget       = optional(number)
    access_logs  = optional(bool, true)
    dashboard    = optional(bool, true)
  })
  default  = {}
  nullable = false
}

variable "backup" {
  description = "Days that recovery points of the streams and of the database are kept; null makes none beside RDS's own."
  type = object({
    daily_days   = optional(number, 35)
    hourly_days  = optional(number, 2)
    restore_test = optional(bool, true)
  })
  default = {}
}
