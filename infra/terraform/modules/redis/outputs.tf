output "host" {
  description = "Name of the primary node, for writes and reads."
  value       = aws_elasticache_replication_group.this.primary_endpoint_address
}

output "alarm_arns" {
  description = "ARNs of the alarms by name."
  value       = { for index, alarm in aws_cloudwatch_metric_alarm.memory : "redis-${index + 1}-memory" => alarm.arn }
}
