variable "name" {
  description = "Name of the deployment; roles are named after it."
  type        = string
}

variable "region" {
  description = "Region of AWS."
  type        = string
}

variable "kms_key_arn" {
  description = "Key that secrets and disks are encrypted with."
  type        = string
}

variable "tiers" {
  description = "What each kind of instance may do: which secrets it reads, which groups' ends it may complete, and the namespaces it writes metrics into."
  type = map(object({
    secrets            = list(string)
    autoscaling_groups = optional(list(string), [])
    metric_namespaces  = list(string)
    log_group          = string
  }))
}

variable "repository_arns" {
  description = "ARNs of the ECR repositories that images are pulled from; none where they come from elsewhere."
  type        = list(string)
  default     = []
}
