output "host" {
  description = "Name of the primary; after a failover it is the standby's."
  value       = aws_db_instance.primary.address
}

output "replica_hosts" {
  description = "Names of the replicas."
  value       = aws_db_instance.replica[*].address
}

output "port" {
  description = "Port of the servers."
  value       = var.port
}

output "identifiers" {
  description = "Identifiers of the servers by name: primary, replica-1 and so on."
  value       = local.servers
}

output "primary_arn" {
  description = "ARN of the primary."
  value       = aws_db_instance.primary.arn
}

output "master_secret_arn" {
  description = "ARN of the secret with the master password, which RDS makes and rotates."
  value       = try(aws_db_instance.primary.master_user_secret[0].secret_arn, null)
}

output "alarm_arns" {
  description = "ARNs of the alarms by name."
  value = merge(
    { for index, alarm in aws_cloudwatch_metric_alarm.lag : "replica-${index + 1}-lag" => alarm.arn },
    { for name, alarm in aws_cloudwatch_metric_alarm.storage : "${name}-storage" => alarm.arn },
    { for name, alarm in aws_cloudwatch_metric_alarm.cpu : "${name}-cpu" => alarm.arn },
    { for name, alarm in aws_cloudwatch_metric_alarm.connections : "${name}-connections" => alarm.arn },
  )
}
