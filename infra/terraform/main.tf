data "aws_availability_zones" "this" {
  count = var.zones == null ? 1 : 0

  state = "available"

  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

data "aws_ssm_parameter" "ami" {
  count = var.ami_id == null ? 1 : 0

  name = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-${var.architecture}"
}

locals {
  # What has to be equal to livefeed's code; docs/generate.py writes it from there.
  contract = jsondecode(file("${path.module}/contract.json"))
  ports    = local.contract.ports

  zones  = coalesce(var.zones, try(slice(data.aws_availability_zones.this[0].names, 0, 3), null))
  ami_id = coalesce(var.ami_id, try(nonsensitive(data.aws_ssm_parameter.ami[0].value), null))

  nodes = { for index, zone in local.zones : "nats-${index + 1}" => {
    zone       = zone
    subnet_id  = module.network.subnet_ids.data[index]
    private_ip = cidrhost(module.network.subnet_cidrs.data[index], 10)
  } }
  nats_hosts = { for name in keys(local.nodes) : name => "${name}.${var.network.domain}" }
  nats_url   = join(",", [for host in values(local.nats_hosts) : "tls://${host}:${local.ports.nats}"])

  namespace = "livefeed/${var.name}"
  agent     = local.contract.node_agent
  lag       = { namespace = local.namespace, metric = local.agent.lag, dimensions = {} }
  hook      = "drain"
  group     = { gateway = "${var.name}-gateway", workers = "${var.name}-workers" }

  # Seven tenths of what a gateway's processes take.
  connections_max    = tonumber(lookup(var.gateway.settings, "LIVEFEED_CONNECTIONS_MAX", local.contract.connections_max))
  connections_wanted = floor(0.7 * local.connections_max * var.gateway.processes)

  # A gateway that leaves: the balancer notices, its clients go, and it is gone before the two
  # minutes are over that a spot instance has.
  health_check = { interval = 15, timeout = 5, unhealthy = 3, healthy = 2 }
  drain = {
    wait     = local.health_check.interval * local.health_check.unhealthy + 5
    spread   = var.gateway.drain_seconds
    leave    = local.agent.leaving_seconds
    deadline = 110
  }
  # What all processes of the largest groups may open to the primary, as livefeed doctor counts it.
  pools = {
    for tier, settings in { gateway = var.gateway.settings, workers = var.workers.settings } :
    tier => tonumber(lookup(settings, "LIVEFEED_DATABASE_POOL_CONNECTIONS", local.contract.database_pool_connections))
  }
  opened = local.contract.database_connections
  database_connections = sum([
    var.gateway.size.max * var.gateway.processes * local.pools.gateway * local.opened.gateway_process,
    contains(keys(var.gateway.settings), "LIVEFEED_FEED_SOURCE") ? var.gateway.size.max * var.gateway.processes * local.pools.gateway * local.opened.gateway_source : 0,
    var.postgres.replicas > 0 ? var.gateway.size.max * var.gateway.processes * local.opened.gateway_look : 0,
    var.workers.size.max * local.pools.workers * (var.workers.processes * local.opened.worker_process + local.opened.workers_beside),
  ])
  # Of Postgres and of RDS for themselves, and a person's.
  database_connections_reserved = 20

  workers_deadline = max(20, ceil(2 * local.contract.worker_settle_seconds + local.agent.leaving_seconds))
}

module "network" {
  source = "./modules/network"

  name                = var.name
  region              = var.region
  zones               = local.zones
  cidr                = var.network.cidr
  nat_gateways        = var.network.nat_gateways
  interface_endpoints = var.network.interface_endpoints
  flow_log_days       = var.network.flow_log_days
  kms_key_arn         = module.security.kms_key_arn
}

module "security" {
  source = "./modules/security"

  name                      = var.name
  region                    = var.region
  vpc_id                    = module.network.vpc_id
  ports                     = local.ports
  client_cidrs              = var.network.client_cidrs
  publisher_security_groups = var.network.publishers
  plain_http                = var.certificate_arn == null
}

module "secrets" {
  source = "./modules/secrets"

  name          = var.name
  kms_key_arn   = module.security.kms_key_arn
  nats_roles    = [for role in local.contract.nats.roles : role.name]
  recovery_days = var.production ? 30 : 0
  parameters = {
    "nats/url"      = local.nats_url
    "database/host" = module.postgres.host
    "balancer"      = module.gateway.address
  }
}

module "observability" {
  source = "./modules/observability"

  name         = var.name
  region       = var.region
  kms_key_arn  = module.security.kms_key_arn
  log_groups   = ["gateway", "workers", "nats"]
  log_days     = var.observability.log_days
  alarm_emails = var.observability.alarm_emails
  access_logs  = var.observability.access_logs
  budget       = var.observability.budget
  watched = var.observability.dashboard ? {
    balancer  = module.gateway.balancer
    groups    = { gateway = module.gateway.autoscaling_group, workers = module.workers.autoscaling_group }
    postgres  = module.postgres.identifiers
    lag       = local.lag
    namespace = local.namespace
    alarm_names = concat(
      [for name in ["too-few", "errors", "refused", "at-most"] : "${local.group.gateway}-${name}"],
      [for name in ["lag", "lag-unknown"] : "${local.group.workers}-${name}"],
    )
  } : null
}

module "identity" {
  source = "./modules/identity"

  name            = var.name
  region          = var.region
  kms_key_arn     = module.security.kms_key_arn
  repository_arns = var.repository_arns
  tiers = {
    gateway = {
      secrets            = [module.secrets.arns["database"], module.secrets.arns["nats/gateway"]]
      autoscaling_groups = [local.group.gateway]
      metric_namespaces  = [local.namespace]
      log_group          = module.observability.log_groups["gateway"]
    }
    workers = {
      secrets            = [module.secrets.arns["database"], module.secrets.arns["nats/worker"]]
      autoscaling_groups = [local.group.workers]
      metric_namespaces  = [local.namespace]
      log_group          = module.observability.log_groups["workers"]
    }
    nats = {
      secrets           = [module.secrets.arns["nats/observer"], module.secrets.arns["nats/tls"]]
      metric_namespaces = [local.namespace]
      log_group         = module.observability.log_groups["nats"]
    }
  }
}

module "nats" {
  source = "./modules/nats"

  name                   = var.name
  region                 = var.region
  vpc_id                 = module.network.vpc_id
  domain                 = var.network.domain
  ami_id                 = local.ami_id
  instance_type          = var.nats.instance_type
  volume                 = var.nats.volume
  instance_profile       = module.identity.instance_profiles["nats"]
  security_group_id      = module.security.security_group_ids["nats"]
  kms_key_arn            = module.security.kms_key_arn
  alarm_topic_arn        = module.observability.alarm_topic_arn
  metrics_namespace      = local.namespace
  termination_protection = var.production
  detailed_monitoring    = var.production
  nodes = {
    for name, node in local.nodes : name => merge(node, {
      user_data_base64 = module.nats_bootstrap[name].user_data_base64
    })
  }
}

module "launch_template" {
  source = "./modules/launch_template"
  for_each = {
    gateway = {
      description      = "A gateway of ${var.name}"
      instance_type    = var.gateway.instance_types[0]
      user_data_base64 = module.gateway_bootstrap.user_data_base64
    }
    workers = {
      description      = "A pool of workers of ${var.name}"
      instance_type    = var.workers.instance_types[0]
      user_data_base64 = module.workers_bootstrap.user_data_base64
    }
  }

  group             = local.group[each.key]
  role              = each.key
  description       = each.value.description
  instance_type     = each.value.instance_type
  security_group_id = module.security.security_group_ids[each.key]
  ami_id            = local.ami_id
  instance_profile  = module.identity.instance_profiles[each.key]
  user_data_base64  = each.value.user_data_base64
  kms_key_arn       = module.security.kms_key_arn
}

module "gateway" {
  source = "./modules/gateway"

  name                       = var.name
  vpc_id                     = module.network.vpc_id
  balancer_subnet_ids        = module.network.subnet_ids.public
  subnet_ids                 = module.network.subnet_ids.private
  balancer_security_group_id = module.security.security_group_ids["balancer"]
  certificate_arn            = var.certificate_arn
  launch_template            = module.launch_template["gateway"].launch_template
  alarm_topic_arn            = module.observability.alarm_topic_arn
  metrics                    = { namespace = local.namespace, connections = local.agent.connections, group = local.agent.group }
  ports                      = { gateway = local.ports.gateway, ops = local.ports.ops }
  health_path                = local.contract.paths.ready
  heartbeat_seconds          = local.contract.heartbeat_seconds
  agent_heartbeat_seconds    = local.agent.heartbeat_seconds
  health_check               = local.health_check
  drain                      = local.drain
  lifecycle_hook             = local.hook
  instance_types             = var.gateway.instance_types
  size                       = var.gateway.size
  on_demand                  = var.gateway.on_demand
  scaling = merge(var.gateway.scaling, {
    # Each of its processes refuses what is above its most.
    connections = coalesce(var.gateway.scaling.connections, local.connections_wanted)
  })
  access_logs_bucket  = module.observability.access_logs_bucket
  deletion_protection = var.production
  web_acl_arn         = var.gateway.web_acl_arn
}

module "workers" {
  source = "./modules/workers"

  name              = var.name
  subnet_ids        = module.network.subnet_ids.private
  launch_template   = module.launch_template["workers"].launch_template
  alarm_topic_arn   = module.observability.alarm_topic_arn
  lag               = local.lag
  lifecycle_hook    = local.hook
  heartbeat_seconds = local.agent.heartbeat_seconds
  deadline_seconds  = local.workers_deadline
  instance_types    = var.workers.instance_types
  capacity_mode     = var.workers.capacity_mode
  size              = var.workers.size
  scaling           = var.workers.scaling
}

module "postgres" {
  source = "./modules/postgres"

  name                = var.name
  subnet_ids          = module.network.subnet_ids.data
  security_group_id   = module.security.security_group_ids["postgres"]
  kms_key_arn         = module.security.kms_key_arn
  alarm_topic_arn     = module.observability.alarm_topic_arn
  port                = local.ports.postgres
  instance_class      = var.postgres.instance_class
  storage             = var.postgres.storage
  multi_az            = var.postgres.multi_az
  replicas            = var.postgres.replicas
  backup_days         = var.postgres.backup_days
  connections         = var.postgres.connections
  deletion_protection = var.production
}

module "redis" {
  source = "./modules/redis"
  count  = var.redis == null ? 0 : 1

  name              = var.name
  subnet_ids        = module.network.subnet_ids.data
  security_group_id = module.security.security_group_ids["redis"]
  kms_key_arn       = module.security.kms_key_arn
  alarm_topic_arn   = module.observability.alarm_topic_arn
  port              = local.ports.redis
  node_type         = var.redis.node_type
  nodes             = var.redis.nodes
}

module "backup" {
  source = "./modules/backup"
  count  = var.backup == null ? 0 : 1

  name            = var.name
  kms_key_arn     = module.security.kms_key_arn
  alarm_topic_arn = module.observability.alarm_topic_arn
  daily_days      = var.backup.daily_days
  hourly_days     = var.backup.hourly_days
  restore_test    = var.backup.restore_test
}
