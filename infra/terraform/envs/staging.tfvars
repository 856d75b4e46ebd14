# Staging: as production, smaller; what is not shown here cannot be relied on there.
# Beside it: staging.nats.tfvars.json of make_access.py (public keys and certificate, no secret).
name   = "livefeed-staging"
region = "eu-west-1"
# By its digest: which code runs is then a line of this file's history.
image = "ACCOUNT.dkr.ecr.eu-west-1.amazonaws.com/livefeed@sha256:DIGEST"

access = {
  jwks_url        = "https://login.example.com/.well-known/jwks.json"
  allowed_origins = ["https://app.example.com"]
}

certificate_arn = "arn:aws:acm:eu-west-1:ACCOUNT:certificate/ID"
repository_arns = ["arn:aws:ecr:eu-west-1:ACCOUNT:repository/livefeed"]
gateway         = { size = { max = 6 } }
workers         = { size = { max = 6 } }
postgres        = { instance_class = "db.t4g.large", backup_days = 3 }

observability = { log_days = 90, budget = 1500 }
