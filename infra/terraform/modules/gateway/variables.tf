variable "name" {
  description = "Name of the deployment; the group is NAME-gateway."
  type        = string
}

variable "vpc_id" {
  description = "Id of the VPC."
  type        = string
}

variable "balancer_subnet_ids" {
  description = "Subnets of the balancer, one a zone."
  type        = list(string)
}

variable "subnet_ids" {
  description = "Subnets of the gateways, one a zone."
  type        = list(string)
}

variable "balancer_security_group_id" {
  description = "Id of the balancer's security group."
  type        = string
}

variable "certificate_arn" {
  description = "Certificate (ACM) of the name that clients connect to; null serves plain http on 80, for a trial."
  type        = string
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

variable "metrics" {
  description = "The metric of connections that agents write, its dimension that names the group, and the CloudWatch namespace of both it and the collectors' mem_used_percent."
  type = object({
    namespace   = string
    connections = string
    group       = string
  })
}

variable "ports" {
  description = "Ports of a gateway: for clients, and for its health."
  type = object({
    gateway = number
    ops     = number
  })
}

variable "health_path" {
  description = "Path on the ops port that is 200 while clients may come."
  type        = string
}

variable "heartbeat_seconds" {
  description = "How often a gateway pings a quiet connection; the balancer's idle timeout is longer."
  type        = number
}

variable "agent_heartbeat_seconds" {
  description = "How often the agent keeps the hook waiting while its gateway drains; the hook waits twice as long, or longer."
  type        = number
}

variable "idle_timeout" {
  description = "Seconds of silence after which the balancer cuts a connection."
  type        = number
  default     = 120

  validation {
    condition     = var.idle_timeout > 2 * var.heartbeat_seconds
    error_message = "The balancer must not cut a connection between two pings: idle_timeout is more than twice the heartbeat."
  }
}

variable "drain" {
  description = "How long a gateway that leaves is not ready, over how long it sends its clients away, how long it then takes to end, and when it has to be gone; seconds."
  type = object({
    wait     = number
    spread   = number
    leave    = number
    deadline = number
  })

  validation {
    condition     = var.drain.wait + var.drain.spread + var.drain.leave <= var.drain.deadline
    error_message = "A gateway needs wait + spread, and some seconds to end, before its deadline."
  }
}

variable "lifecycle_hook" {
  description = "Name of the hook that holds an instance back until its agent has drained it."
  type        = string
}

variable "health_check" {
  description = "How the balancer looks: every interval seconds, waiting timeout seconds; away after `unhealthy` failures, back after `healthy` successes."
  type = object({
    interval  = optional(number, 15)
    timeout   = optional(number, 5)
    unhealthy = optional(number, 3)
    healthy   = optional(number, 2)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.drain.wait >= var.health_check.interval * var.health_check.unhealthy
    error_message = "A gateway that leaves waits until the balancer has noticed: drain.wait is at least interval × unhealthy."
  }
}

variable "instance_types" {
  description = "Types of the instances, the preferred one first; all of one architecture."
  type        = list(string)
  default     = ["c7g.large", "c6g.large", "m7g.large", "m6g.large"]
}

variable "size" {
  description = "Fewest and most gateways."
  type = object({
    min = optional(number, 2)
    max = optional(number, 20)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.size.min >= 2 && var.size.max >= var.size.min
    error_message = "There are at least 2 gateways, in different zones."
  }
}

variable "on_demand" {
  description = "So many gateways are never on spot, and this share (percent) of those above."
  type = object({
    base             = optional(number, 2)
    percentage_above = optional(number, 100)
  })
  default  = {}
  nullable = false
}

variable "scaling" {
  description = "Out above CPU or memory percent, or connections a node, counting a newcomer's part after out_seconds; in, one at a time every in_seconds, when CPU and memory are below in_cpu and in_memory, and connections below 60 % of theirs."
  type = object({
    cpu         = optional(number, 70)
    memory      = optional(number, 80)
    connections = optional(number, 14000)
    out_seconds = optional(number, 300)
    in_seconds  = optional(number, 600)
    in_cpu      = optional(number, 50)
    in_memory   = optional(number, 60)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.scaling.in_cpu < var.scaling.cpu && var.scaling.in_memory < var.scaling.memory
    error_message = "Scaling in begins below where scaling out does, or the group would swing."
  }
}

variable "access_logs_bucket" {
  description = "Bucket for the balancer's access logs; null writes none."
  type        = string
  default     = null
}

variable "deletion_protection" {
  description = "Whether the balancer cannot be deleted by a call."
  type        = bool
  default     = true
}

variable "web_acl_arn" {
  description = "Web ACL (WAF) in front of the balancer; null for none. livefeed has its own limits of rate and size."
  type        = string
  default     = null
}
