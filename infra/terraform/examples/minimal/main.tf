# The least that is livefeed: to try it out, without a certificate, and to be thrown away.
module "livefeed" {
  source = "../.."

  name                = var.name
  region              = var.region
  image               = var.image
  repository_arns     = var.repository_arns
  nats_public_keys    = var.nats_public_keys
  nats_ca_certificate = var.nats_ca_certificate
  access              = { jwks_url = var.jwks_url }
  production          = false

  network = {
    nat_gateways  = 1
    flow_log_days = null
  }
  nats = {
    instance_type = "t4g.medium"
    volume        = { size = 20, iops = 3000, throughput = 125 }
  }
  gateway  = { instance_types = ["t4g.small"] }
  workers  = { instance_types = ["t4g.small"], capacity_mode = "on_demand", size = { max = 2 } }
  postgres = { instance_class = "db.t4g.medium", multi_az = false, replicas = 0, storage = { size = 20, max = 50 }, backup_days = 1 }
  backup   = null

  observability = { log_days = 7, access_logs = false, dashboard = false }
}
