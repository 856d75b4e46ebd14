variable "name" {
  description = "Name of the deployment; everything is named after it."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets of the servers, one a zone."
  type        = list(string)
}

variable "security_group_id" {
  description = "Id of the servers' security group."
  type        = string
}

variable "kms_key_arn" {
  description = "Key that storage, insights and the master password are encrypted with."
  type        = string
}

variable "alarm_topic_arn" {
  description = "SNS topic that alarms are sent to."
  type        = string
}

variable "port" {
  description = "Port of the servers."
  type        = number
  default     = 5432
}

variable "engine_version" {
  description = "Version of Postgres; minor versions come by themselves in the maintenance window."
  type        = string
  default     = "17"
}

variable "instance_class" {
  description = "Class of the primary and of the replicas."
  type        = string
  default     = "db.m7g.large"
}

variable "storage" {
  description = "GiB at the start, and the most that it grows to by itself."
  type = object({
    size = optional(number, 100)
    max  = optional(number, 1000)
  })
  default  = {}
  nullable = false
}

variable "multi_az" {
  description = "Whether the primary has a standby in another zone, which takes its place with nothing lost."
  type        = bool
  default     = true
}

variable "replicas" {
  description = "Streaming replicas that gateways read: 1 to 5; none only on trial, without a standby."
  type        = number
  default     = 2

  validation {
    condition     = var.replicas <= 5 && var.replicas >= (var.multi_az ? 1 : 0) && floor(var.replicas) == var.replicas
    error_message = "There are 1 to 5 replicas; 0 only where multi_az is false."
  }
}

variable "backup_days" {
  description = "Days to any moment of which the primary can be restored."
  type        = number
  default     = 14

  validation {
    condition     = var.backup_days >= 1 && var.backup_days <= 35
    error_message = "RDS keeps 1 to 35 days; replicas need at least one."
  }
}

variable "deletion_protection" {
  description = "Whether servers cannot be deleted by a call, and the last state is kept when they are."
  type        = bool
  default     = true
}

variable "connections" {
  description = "max_connections of each server: for the pools of all processes of all instances, which the root module counts."
  type        = number
  default     = 1400
}

variable "lag_alarm_seconds" {
  description = "How far a replica may be behind, for five minutes."
  type        = number
  default     = 10
}

variable "free_storage_alarm_share" {
  description = "Share of the storage that has to be free."
  type        = number
  default     = 0.15
}
