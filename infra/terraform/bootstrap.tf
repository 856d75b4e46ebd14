locals {
  # What is computed here, and what it is computed from: given as a setting it would be one thing in a
  # process and another in the balancer, the groups and the firewall.
  reserved_settings = {
    LIVEFEED_NATS_URL             = "network.domain"
    LIVEFEED_NATS_REPLICAS        = "nothing, each of three servers has a copy"
    LIVEFEED_NATS_INBOX_PREFIX    = "nothing, it belongs to the role in NATS"
    LIVEFEED_NATS_CA_FILE         = "nats_ca_certificate"
    LIVEFEED_GATEWAY_HOST         = "network.client_cidrs"
    LIVEFEED_GATEWAY_PORT         = "nothing, contract.json has the ports"
    LIVEFEED_OPS_HOST             = "nothing, security groups say who may ask"
    LIVEFEED_OPS_PORT             = "nothing, contract.json has the ports"
    LIVEFEED_GATEWAY_WORKERS      = "gateway.processes"
    LIVEFEED_TRUSTED_PROXIES      = "network.cidr"
    LIVEFEED_DRAIN_WAIT_SECONDS   = "nothing, it follows from the balancer's health check"
    LIVEFEED_DRAIN_SECONDS        = "gateway.drain_seconds"
    LIVEFEED_JWT_ALGORITHM        = "access.algorithm"
    LIVEFEED_JWKS_URL             = "access.jwks_url"
    LIVEFEED_JWT_AUDIENCE         = "access.audience"
    LIVEFEED_JWT_ISSUER           = "access.issuer"
    LIVEFEED_ALLOWED_ORIGINS      = "access.allowed_origins"
    LIVEFEED_WORKER_PROCESSES_MAX = "workers.processes"
    LIVEFEED_NODE_                = "gateway.drain_seconds, the agent follows"
  }
}

locals {
  database = {
    secret        = module.secrets.arns["database"]
    host          = module.postgres.host
    port          = module.postgres.port
    replica_hosts = module.postgres.replica_hosts
  }

  nats_environment = {
    LIVEFEED_NATS_URL      = local.nats_url
    LIVEFEED_NATS_REPLICAS = tostring(length(local.nodes))
  }

  gateway_environment = merge(
    {
      LIVEFEED_GATEWAY_HOST       = "0.0.0.0"
      LIVEFEED_GATEWAY_PORT       = tostring(local.ports.gateway)
      LIVEFEED_OPS_HOST           = "0.0.0.0"
      LIVEFEED_OPS_PORT           = tostring(local.ports.ops)
      LIVEFEED_GATEWAY_WORKERS    = tostring(var.gateway.processes)
      LIVEFEED_TRUSTED_PROXIES    = jsonencode(module.network.subnet_cidrs.public)
      LIVEFEED_DRAIN_WAIT_SECONDS = tostring(local.drain.wait)
      LIVEFEED_DRAIN_SECONDS      = tostring(local.drain.spread)
      LIVEFEED_JWT_ALGORITHM      = var.access.algorithm
      LIVEFEED_JWKS_URL           = var.access.jwks_url
      LIVEFEED_ALLOWED_ORIGINS    = jsonencode(var.access.allowed_origins)
    },
    var.access.audience == null ? {} : { LIVEFEED_JWT_AUDIENCE = var.access.audience },
    var.access.issuer == null ? {} : { LIVEFEED_JWT_ISSUER = var.access.issuer },
  )
}

module "gateway_bootstrap" {
  source = "./modules/instance_bootstrap"

  name                = var.name
  role                = "gateway"
  region              = var.region
  image               = var.image
  collector_image     = var.collector_image
  log_group           = module.observability.log_groups["gateway"]
  metrics_namespace   = local.namespace
  nkey_seed_secret    = module.secrets.arns["nats/gateway"]
  nats_ca_certificate = var.nats_ca_certificate
  database            = local.database
  redis_host          = one(module.redis[*].host)
  stop_seconds        = local.drain.deadline
  environment = merge(
    local.nats_environment,
    { LIVEFEED_NATS_INBOX_PREFIX = "_INBOX_gateway" },
    local.gateway_environment,
    var.gateway.settings,
  )
  node_agent = {
    LIVEFEED_NODE_ROLE              = "gateway"
    LIVEFEED_NODE_LIFECYCLE_HOOK    = local.hook
    LIVEFEED_NODE_AUTOSCALING_GROUP = local.group.gateway
    LIVEFEED_NODE_DEADLINE_SECONDS  = tostring(local.drain.deadline)
    LIVEFEED_NODE_HEARTBEAT_SECONDS = tostring(local.agent.heartbeat_seconds)
    LIVEFEED_NODE_LAG_NAMESPACE     = local.namespace
  }
}

module "workers_bootstrap" {
  source = "./modules/instance_bootstrap"

  name                = var.name
  role                = "workers"
  region              = var.region
  image               = var.image
  collector_image     = var.collector_image
  log_group           = module.observability.log_groups["workers"]
  metrics_namespace   = local.namespace
  nkey_seed_secret    = module.secrets.arns["nats/worker"]
  nats_ca_certificate = var.nats_ca_certificate
  database            = local.database
  stop_seconds        = local.workers_deadline
  environment = merge(
    local.nats_environment,
    {
      LIVEFEED_NATS_INBOX_PREFIX    = "_INBOX_worker"
      LIVEFEED_WORKER_PROCESSES_MAX = tostring(var.workers.processes)
    },
    var.workers.settings,
  )
  node_agent = {
    LIVEFEED_NODE_ROLE              = "workers"
    LIVEFEED_NODE_LIFECYCLE_HOOK    = local.hook
    LIVEFEED_NODE_AUTOSCALING_GROUP = local.group.workers
    LIVEFEED_NODE_DEADLINE_SECONDS  = tostring(local.workers_deadline)
    LIVEFEED_NODE_HEARTBEAT_SECONDS = tostring(local.agent.heartbeat_seconds)
  }
}

module "nats_bootstrap" {
  source   = "./modules/instance_bootstrap"
  for_each = local.nodes

  name                = var.name
  role                = "nats"
  region              = var.region
  image               = var.image
  collector_image     = var.collector_image
  log_group           = module.observability.log_groups["nats"]
  metrics_namespace   = local.namespace
  nkey_seed_secret    = module.secrets.arns["nats/observer"]
  nats_ca_certificate = var.nats_ca_certificate
  stop_seconds        = 60
  environment = merge(local.nats_environment, {
    LIVEFEED_NATS_URL          = "tls://${local.nats_hosts[each.key]}:${local.ports.nats}"
    LIVEFEED_NATS_INBOX_PREFIX = "_INBOX_observer"
  })
  node_agent = {
    LIVEFEED_NODE_ROLE          = "nats"
    LIVEFEED_NODE_LAG_NAMESPACE = local.namespace
  }
  nats_server = {
    name                 = each.key
    zone                 = each.value.zone
    cluster              = var.name
    routes               = values(local.nats_hosts)
    tls_secret           = module.secrets.arns["nats/tls"]
    public_keys          = var.nats_public_keys
    previous_public_keys = var.nats_previous_public_keys
    client_port          = local.ports.nats
    route_port           = local.ports.nats_routes
    payload_bytes        = local.contract.nats.payload_bytes
    # Nine tenths of the volume: the rest is for what is being written anew.
    file_bytes_max = floor(0.9 * var.nats.volume.size * 1024 * 1024 * 1024)
    memory_bytes   = 2 * local.contract.nats.cache_bytes
    streams_max    = local.contract.nats.streams_max
    consumers_max  = local.contract.nats.consumers_max
    roles          = local.contract.nats.roles
  }
}
