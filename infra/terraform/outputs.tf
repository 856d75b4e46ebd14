output "address" {
  description = "Name of the balancer; your domain's record is an alias of it."
  value       = module.gateway.address
}

output "zone_id" {
  description = "Zone of that name, for an alias."
  value       = module.gateway.zone_id
}

output "nats_url" {
  description = "URLs of the NATS servers, for publishers inside the VPC."
  value       = local.nats_url
}

output "nats_instance_ids" {
  description = "Ids of the NATS servers' instances by name; a person's session goes to one of them."
  value       = module.nats.instance_ids
}

output "database_host" {
  description = "Name of the primary."
  value       = module.postgres.host

  precondition {
    condition     = local.database_connections + local.database_connections_reserved <= var.postgres.connections
    error_message = "At their most gateways and workers may open ${local.database_connections} connections to Postgres, which keeps ${local.database_connections_reserved} for itself, and postgres.connections is ${var.postgres.connections}: raise it (with a class that has the memory), or lower size.max, processes or LIVEFEED_DATABASE_POOL_CONNECTIONS."
  }
}

output "database_master_secret_arn" {
  description = "ARN of the secret with the master password, which RDS makes and rotates."
  value       = module.postgres.master_secret_arn
}

output "secret_arns" {
  description = "ARNs of the secrets by name; those below nats/ a person puts values into, once."
  value       = module.secrets.arns
}

output "autoscaling_groups" {
  description = "Names of the autoscaling groups: gateway and workers."
  value       = local.group
}

output "nats_security_group_id" {
  description = "Security group of the NATS servers."
  value       = module.security.security_group_ids["nats"]
}

output "alarm_topic_arn" {
  description = "SNS topic that alarms are sent to."
  value       = module.observability.alarm_topic_arn
}

output "dashboard" {
  description = "Name of the dashboard in CloudWatch; null where there is none."
  value       = module.observability.dashboard
}
