variable "name" {
  description = "Name of the deployment; everything is named after it."
  type        = string
}

variable "region" {
  description = "Region of AWS."
  type        = string
}

variable "zones" {
  description = "Three availability zones of the region."
  type        = list(string)

  validation {
    condition     = length(var.zones) == 3 && length(distinct(var.zones)) == 3
    error_message = "Name three different zones: NATS has a node in each, and loses none of its streams with one."
  }
}

variable "cidr" {
  description = "Addresses of the VPC; nine subnets are cut from it."
  type        = string
  default     = "10.20.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.cidr)) && try(tonumber(split("/", var.cidr)[1]), 32) <= 20
    error_message = "The VPC needs an IPv4 network of /20 or larger."
  }
}

variable "nat_gateways" {
  description = "NAT gateways: 3, one a zone, or 1 where the loss of its zone may cut the others off."
  type        = number
  default     = 3

  validation {
    condition     = contains([1, 3], var.nat_gateways)
    error_message = "There is 1 NAT gateway, or one in each of the 3 zones."
  }
}

variable "interface_endpoints" {
  description = "Services of AWS that are reached inside the VPC, such as secretsmanager; others go through NAT."
  type        = set(string)
  default     = []
}

variable "endpoint_security_group" {
  description = "Whether to make a security group for the endpoints, open to the VPC on 443; false needs no endpoints."
  type        = bool
  default     = true
}

variable "flow_log_days" {
  description = "Days that flow logs are kept; null writes none."
  type        = number
  default     = 365
}

variable "kms_key_arn" {
  description = "Key that flow logs are encrypted with."
  type        = string
  default     = null
}
