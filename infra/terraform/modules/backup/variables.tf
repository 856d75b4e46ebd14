variable "name" {
  description = "Name of the deployment; what has the tag Backup = NAME is backed up daily, what has BackupHourly = NAME hourly."
  type        = string
}

variable "kms_key_arn" {
  description = "Key that recovery points are encrypted with."
  type        = string
}

variable "alarm_topic_arn" {
  description = "SNS topic that is told when a backup fails."
  type        = string
}

variable "daily_days" {
  description = "Days that the daily recovery points are kept."
  type        = number
  default     = 35
}

variable "hourly_days" {
  description = "Days that the hourly ones are kept, which are of the volumes with the streams."
  type        = number
  default     = 2
}

variable "restore_test" {
  description = "Whether a recovery point is restored each week, and thrown away, to see that it can be."
  type        = bool
  default     = true
}
