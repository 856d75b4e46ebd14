# Everything, as for production: three zones that can be lost one at a time, and all that is optional.
module "livefeed" {
  source = "../.."

  name                = var.name
  region              = var.region
  image               = var.image
  repository_arns     = var.repository_arns
  certificate_arn     = var.certificate_arn
  nats_public_keys    = var.nats_public_keys
  nats_ca_certificate = var.nats_ca_certificate

  access = {
    jwks_url        = var.jwks_url
    audience        = "livefeed"
    issuer          = "https://login.example.com/"
    allowed_origins = ["https://app.example.com"]
  }

  network = {
    interface_endpoints = ["autoscaling", "ecr.api", "ecr.dkr", "logs", "monitoring", "secretsmanager", "ssm", "ssmmessages"]
    publishers          = {}
  }

  gateway = {
    settings = { LIVEFEED_CONNECTIONS_PER_USER_MAX = "10" }
  }

  redis = {}

  observability = {
    alarm_emails = ["on-call@example.com"]
    budget       = 2000
  }

  tags = { Environment = "example" }
}
