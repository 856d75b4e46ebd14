output "host" {
  description = "Name of the primary node, for writes and reads."
  value       = aws_elasticache_replication_group.this.primary_endpoint_address
}

output "alarm_arns" {
  description = "ARNs of the alarms by name."
  value       = { memory = aws_cloudwatch_metric_alarm.memory.arn }
}
