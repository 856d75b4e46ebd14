variable "name" {
  description = "Name of the deployment; everything is named after it."
  type        = string
}

variable "region" {
  description = "Region of AWS."
  type        = string
}

variable "vpc_id" {
  description = "Id of the VPC, in which the names of the servers are known."
  type        = string
}

variable "domain" {
  description = "Private domain of the servers' names, such as livefeed.internal."
  type        = string
}

variable "nodes" {
  description = "The three servers by name, each in a zone of its own: its zone, subnet, fixed address, and compressed user data in base64."
  type = map(object({
    zone             = string
    subnet_id        = string
    private_ip       = string
    user_data_base64 = string
  }))

  validation {
    condition     = length(var.nodes) == 3 && length(distinct([for node in values(var.nodes) : node.zone])) == 3
    error_message = "There are three servers in three zones: a stream of three copies survives the loss of any one."
  }
}

variable "ami_id" {
  description = "Image of the instances: Amazon Linux 2023, of the architecture of instance_type."
  type        = string
}

variable "instance_profile" {
  description = "Name of the instance profile."
  type        = string
}

variable "security_group_id" {
  description = "Id of the servers' security group."
  type        = string
}

variable "kms_key_arn" {
  description = "Key that disks are encrypted with."
  type        = string
}

variable "alarm_topic_arn" {
  description = "SNS topic that alarms are sent to."
  type        = string
}

variable "metrics_namespace" {
  description = "CloudWatch namespace into which the collectors write disk_used_percent."
  type        = string
}

variable "disk_used_percent_max" {
  description = "Above this share of a disk with streams, in percent, people are told."
  type        = number
  default     = 80

  validation {
    condition     = var.disk_used_percent_max > 0 && var.disk_used_percent_max < 100
    error_message = "People are told before a disk is full: 1 to 99."
  }
}

variable "instance_type" {
  description = "Type of the instances, never on spot."
  type        = string
  default     = "m7g.large"
}

variable "volume" {
  description = "The volume with the streams: GiB, IOPS, and MiB/s. Each acknowledgement waits for it."
  type = object({
    size       = optional(number, 100)
    iops       = optional(number, 6000)
    throughput = optional(number, 250)
  })
  default  = {}
  nullable = false
}

variable "termination_protection" {
  description = "Whether instances cannot be ended by a call, and volumes stay when they are not wanted any more."
  type        = bool
  default     = true
}

variable "detailed_monitoring" {
  description = "Whether figures of the instances come each minute, and not every five."
  type        = bool
  default     = true
}
