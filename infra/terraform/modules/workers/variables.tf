variable "name" {
  description = "Name of the deployment; the group is NAME-workers."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets of the workers, one a zone."
  type        = list(string)
}

variable "launch_template" {
  description = "Template of the instances: its id, and the version to use."
  type = object({
    id      = string
    version = number
  })
}

variable "alarm_topic_arn" {
  description = "SNS topic that alarms are sent to."
  type        = string
}

variable "lag" {
  description = "The metric of what waits for workers, which the agents of the NATS servers write each minute or more often."
  type = object({
    namespace  = string
    metric     = string
    dimensions = optional(map(string), {})
  })
}

variable "lifecycle_hook" {
  description = "Name of the hook that holds an instance back until its agent has had the workers settle."
  type        = string
}

variable "heartbeat_seconds" {
  description = "How often the agent keeps the hook waiting meanwhile; the hook waits twice as long, or longer."
  type        = number
}

variable "deadline_seconds" {
  description = "When workers of an instance that ends have to be gone."
  type        = number

  validation {
    condition     = var.deadline_seconds >= 20 && var.deadline_seconds <= 110
    error_message = "A spot instance is told two minutes ahead, and workers need some seconds to settle: 20 to 110."
  }
}

variable "instance_types" {
  description = "Types of the instances, all of one architecture; with spot, the more there are the fewer are taken away."
  type        = list(string)
  default     = ["c7g.large", "c6g.large", "m7g.large", "m6g.large"]
}

variable "capacity_mode" {
  description = "spot, or on_demand. Work that an instance leaves undone is delivered again to another one."
  type        = string
  default     = "spot"

  validation {
    condition     = contains(["spot", "on_demand"], var.capacity_mode)
    error_message = "The capacity mode is spot or on_demand."
  }

  validation {
    condition     = var.capacity_mode != "spot" || length(var.instance_types) >= 4
    error_message = "On spot name at least 4 types: of one alone there is often none."
  }
}

variable "size" {
  description = "Fewest and most instances; with min = 0 none runs while nothing is published."
  type = object({
    min = optional(number, 0)
    max = optional(number, 20)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.size.min >= 0 && var.size.max >= max(var.size.min, 1)
    error_message = "The most is at least 1, and no less than the fewest."
  }
}

variable "scaling" {
  description = "Messages that may wait for each instance (acceptable delay in seconds × messages a second of one instance), and minutes without any after which none stays."
  type = object({
    backlog_each      = optional(number, 20000)
    idle_minutes      = optional(number, 10)
    in_seconds        = optional(number, 600)
    warmup_seconds    = optional(number, 120)
    activation        = optional(number, 0)
    lag_alarm         = optional(number, 500000)
    lag_alarm_minutes = optional(number, 10)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.scaling.backlog_each > 0 && var.scaling.activation >= 0
    error_message = "The backlog of an instance is above 0."
  }
}
