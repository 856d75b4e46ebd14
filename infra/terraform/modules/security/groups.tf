locals {
  groups = {
    balancer = "Balancer in front of the gateways"
    gateway  = "Gateways"
    workers  = "Workers"
    nats     = "NATS servers"
    postgres = "Postgres, primary and replicas"
    redis    = "Redis that gateways share pages in"
  }
  listeners = var.plain_http ? { http = 80 } : { http = 80, https = 443 }

  # Who may connect where: from, to, port, why.
  inner_rules = {
    balancer-gateway = { from = "balancer", to = "gateway", port = var.ports.gateway, why = "Clients' connections" }
    balancer-ops     = { from = "balancer", to = "gateway", port = var.ports.ops, why = "Health checks" }
    gateway-nats     = { from = "gateway", to = "nats", port = var.ports.nats, why = "Live updates" }
    workers-nats     = { from = "workers", to = "nats", port = var.ports.nats, why = "Streams" }
    nats-nats        = { from = "nats", to = "nats", port = var.ports.nats_routes, why = "Routes of the cluster" }
    nats-nats-client = { from = "nats", to = "nats", port = var.ports.nats, why = "Its agent, and commands of a person" }
    gateway-postgres = { from = "gateway", to = "postgres", port = var.ports.postgres, why = "Catch-up and snapshots" }
    workers-postgres = { from = "workers", to = "postgres", port = var.ports.postgres, why = "The log" }
    nats-postgres    = { from = "nats", to = "postgres", port = var.ports.postgres, why = "Migrations, by a person" }
    gateway-redis    = { from = "gateway", to = "redis", port = var.ports.redis, why = "Shared pages" }
  }
}

resource "aws_security_group" "this" {
  #checkov:skip=CKV2_AWS_5:they are attached by the modules that get their ids
  for_each = local.groups

  name_prefix = "${var.name}-${each.key}-"
  description = each.value
  vpc_id      = var.vpc_id

  tags = { Name = "${var.name}-${each.key}" }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "inner" {
  for_each = local.inner_rules

  security_group_id            = aws_security_group.this[each.value.to].id
  referenced_security_group_id = aws_security_group.this[each.value.from].id
  description                  = each.value.why
  from_port                    = each.value.port
  to_port                      = each.value.port
  ip_protocol                  = "tcp"
}

resource "aws_vpc_security_group_egress_rule" "inner" {
  for_each = local.inner_rules

  security_group_id            = aws_security_group.this[each.value.from].id
  referenced_security_group_id = aws_security_group.this[each.value.to].id
  description                  = each.value.why
  from_port                    = each.value.port
  to_port                      = each.value.port
  ip_protocol                  = "tcp"
}

# Services of AWS, packages, images, and keys of tokens are reached over https.
resource "aws_vpc_security_group_egress_rule" "https" {
  for_each = toset(["gateway", "workers", "nats"])

  security_group_id = aws_security_group.this[each.key].id
  description       = "Services of AWS, packages and images"
  cidr_ipv4         = "0.0.0.0/0"
  from_port         = 443
  to_port           = 443
  ip_protocol       = "tcp"
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  #checkov:skip=CKV_AWS_260:80 only redirects to https, but in a trial without a certificate
  for_each = merge([
    for name, port in local.listeners : {
      for cidr in var.client_cidrs : "${name}-${cidr}" => { port = port, cidr = cidr }
    }
  ]...)

  security_group_id = aws_security_group.this["balancer"].id
  description       = "Clients"
  cidr_ipv4         = each.value.cidr
  from_port         = each.value.port
  to_port           = each.value.port
  ip_protocol       = "tcp"
}

resource "aws_vpc_security_group_ingress_rule" "publishers" {
  for_each = var.publisher_security_groups

  security_group_id            = aws_security_group.this["nats"].id
  referenced_security_group_id = each.value
  description                  = "Publisher ${each.key}"
  from_port                    = var.ports.nats
  to_port                      = var.ports.nats
  ip_protocol                  = "tcp"
}
