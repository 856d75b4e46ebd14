variable "name" {
  description = "Name of the deployment."
  type        = string
  default     = "livefeed-trial"
}

variable "region" {
  description = "Region of AWS."
  type        = string
  default     = "eu-west-1"
}

variable "image" {
  description = "Container image of livefeed."
  type        = string
}

variable "repository_arns" {
  description = "ARNs of the ECR repositories of the image; none where it comes from elsewhere."
  type        = list(string)
  default     = []
}

variable "jwks_url" {
  description = "Where the public keys of tokens are."
  type        = string
}

variable "nats_public_keys" {
  description = "Public key of the NKEY of each role in NATS."
  type        = map(string)
}

variable "nats_ca_certificate" {
  description = "Certificate that those of the NATS servers are signed by."
  type        = string
}
