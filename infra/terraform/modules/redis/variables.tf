variable "name" {
  description = "Name of the deployment; everything is named after it."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets of the nodes, one a zone."
  type        = list(string)
}

variable "security_group_id" {
  description = "Id of the nodes' security group: who may connect is decided there."
  type        = string
}

variable "kms_key_arn" {
  description = "Key that what is stored is encrypted with."
  type        = string
}

variable "alarm_topic_arn" {
  description = "SNS topic that alarms are sent to."
  type        = string
}

variable "port" {
  description = "Port of the nodes."
  type        = number
  default     = 6379
}

variable "node_type" {
  description = "Type of the nodes."
  type        = string
  default     = "cache.t4g.small"
}

variable "nodes" {
  description = "Nodes in different zones: 2 or more have a failover."
  type        = number
  default     = 2

  validation {
    condition     = var.nodes >= 1 && var.nodes <= 3
    error_message = "There are 1 to 3 nodes, in the three zones."
  }
}
