variable "name" {
  description = "Name of the deployment; log groups are below /NAME/."
  type        = string
}

variable "region" {
  description = "Region of AWS."
  type        = string
}

variable "kms_key_arn" {
  description = "Key that logs and messages are encrypted with."
  type        = string
}

variable "log_groups" {
  description = "Parts with a log group each."
  type        = set(string)
}

variable "log_days" {
  description = "Days that logs are kept."
  type        = number
  default     = 365
}

variable "alarm_emails" {
  description = "Addresses that alarms are sent to; each has to confirm once."
  type        = set(string)
  default     = []
}

variable "access_logs" {
  description = "Whether to make a bucket for the balancer's access logs."
  type        = bool
  default     = true
}

variable "budget" {
  description = "Most that a month may cost, in USD; told at 80 % and 100 %, and when the forecast is above. Null has none."
  type        = number
  default     = null
}

variable "watched" {
  description = "What the dashboard shows, and the composite alarm speaks of: the balancer, groups, servers of Postgres, the lag's metric, and the names of alarms that clients notice."
  type = object({
    balancer    = string
    groups      = map(string)
    postgres    = map(string)
    lag         = object({ namespace = string, metric = string, dimensions = map(string) })
    namespace   = string
    alarm_names = list(string)
  })
  default = null
}
