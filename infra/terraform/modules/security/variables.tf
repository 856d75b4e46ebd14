variable "name" {
  description = "Name of the deployment; everything is named after it."
  type        = string
}

variable "region" {
  description = "Region of AWS."
  type        = string
}

variable "vpc_id" {
  description = "Id of the VPC that the security groups are in."
  type        = string
}

variable "ports" {
  description = "Ports on which each part listens."
  type = object({
    gateway     = number
    ops         = number
    nats        = number
    nats_routes = number
    postgres    = number
    redis       = number
  })
}

variable "client_cidrs" {
  description = "Networks from which clients may connect to the balancer."
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

variable "publisher_security_groups" {
  description = "Security groups of your publishers: they may connect to NATS. By name, for the rules' descriptions."
  type        = map(string)
  default     = {}
}

variable "plain_http" {
  description = "Whether the balancer's listener is on 80 alone, for a trial without a certificate."
  type        = bool
  default     = false
}
