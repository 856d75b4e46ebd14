# Production: the defaults are meant for it.
# Beside it: prod.nats.tfvars.json of make_access.py (public keys and certificate, no secret).
name   = "livefeed-prod"
region = "eu-west-1"
# By its digest: which code runs is then a line of this file's history.
image = "ACCOUNT.dkr.ecr.eu-west-1.amazonaws.com/livefeed@sha256:DIGEST"

access = {
  jwks_url        = "https://login.example.com/.well-known/jwks.json"
  allowed_origins = ["https://app.example.com"]
}

certificate_arn = "arn:aws:acm:eu-west-1:ACCOUNT:certificate/ID"
repository_arns = ["arn:aws:ecr:eu-west-1:ACCOUNT:repository/livefeed"]

network = {
  interface_endpoints = ["ecr.api", "ecr.dkr", "logs", "secretsmanager"]
}

observability = {
  alarm_emails = ["on-call@example.com"]
  budget       = 3000
}
