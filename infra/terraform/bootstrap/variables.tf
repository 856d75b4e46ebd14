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

variable "deployments" {
  description = "Names of the deployments, as their own input name has them; the role that plans reads their parameters, which are addresses."
  type        = set(string)
  default     = ["livefeed-dev", "livefeed-staging", "livefeed-prod"]

  validation {
    condition     = alltrue([for name in var.deployments : can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", name))])
    error_message = "A deployment's name has 3 to 24 lower-case letters, digits and hyphens, and no pattern."
  }
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
