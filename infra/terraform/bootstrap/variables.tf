variable "name" {
  description = "Name of the deployments' state and roles, such as livefeed."
  type        = string
  default     = "livefeed"
}

variable "region" {
  description = "Region of AWS of the state."
  type        = string
}

variable "repository" {
  description = "The GitHub repository whose workflows plan and apply: OWNER/NAME."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$", var.repository))
    error_message = "The repository is OWNER/NAME, without a pattern in it."
  }
}

variable "environments" {
  description = "The repository's environments whose jobs may apply; each should have reviewers."
  type        = set(string)
  default     = ["staging", "prod"]
}

variable "apply_policy_arns" {
  description = "Policies of the role that applies: what it may make. AdministratorAccess makes everything; bound it with a permissions boundary where you have one."
  type        = set(string)
  default     = ["arn:aws:iam::aws:policy/AdministratorAccess"]
}

variable "permissions_boundary_arn" {
  description = "Permissions boundary of both roles; null for none."
  type        = string
  default     = null
}
