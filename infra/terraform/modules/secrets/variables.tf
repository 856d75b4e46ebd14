variable "name" {
  description = "Name of the deployment; secrets and parameters are below it."
  type        = string
}

variable "kms_key_arn" {
  description = "Key that secrets are encrypted with."
  type        = string
}

variable "nats_roles" {
  description = "Roles in NATS; each has a secret for its seed."
  type        = set(string)
}

variable "recovery_days" {
  description = "Days in which a deleted secret can be brought back; 0 deletes at once."
  type        = number
  default     = 30

  validation {
    condition     = var.recovery_days == 0 || (var.recovery_days >= 7 && var.recovery_days <= 30)
    error_message = "Secrets Manager keeps a deleted secret for 7 to 30 days, or not at all (0)."
  }
}

variable "parameters" {
  description = "What a person or a pipeline may want to know of the deployment, by name; none of it secret."
  type        = map(string)
  default     = {}
}
