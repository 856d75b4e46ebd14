# Development: small, one NAT gateway, nothing that a call could not delete.
# Beside it: dev.nats.tfvars.json of make_access.py (public keys and certificate, no secret).
name   = "livefeed-dev"
region = "eu-west-1"
# By its digest: which code runs is then a line of this file's history.
image = "ACCOUNT.dkr.ecr.eu-west-1.amazonaws.com/livefeed@sha256:DIGEST"

access = {
  jwks_url        = "https://login.example.com/.well-known/jwks.json"
  allowed_origins = ["https://app.example.com"]
}

repository_arns = ["arn:aws:ecr:eu-west-1:ACCOUNT:repository/livefeed"]

production = false
network    = { nat_gateways = 1, flow_log_days = 7 }
nats       = { instance_type = "t4g.medium", volume = { size = 20, iops = 3000, throughput = 125 } }
gateway    = { instance_types = ["t4g.small"], size = { max = 4 } }
workers    = { instance_types = ["t4g.small"], capacity_mode = "on_demand", size = { max = 2 } }
postgres   = { instance_class = "db.t4g.medium", multi_az = false, replicas = 1, storage = { size = 20, max = 50 }, backup_days = 1 }
backup     = null

observability = { log_days = 14, access_logs = false, budget = 400 }
