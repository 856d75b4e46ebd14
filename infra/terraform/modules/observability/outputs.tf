output "alarm_topic_arn" {
  description = "ARN of the SNS topic that alarms are sent to."
  value       = aws_sns_topic.alarms.arn
}

output "log_groups" {
  description = "Names of the log groups by part."
  value       = { for part, group in aws_cloudwatch_log_group.this : part => group.name }
}

output "access_logs_bucket" {
  description = "Bucket of the balancer's access logs; null where there is none."
  value       = one(aws_s3_bucket_policy.access[*].bucket)
}

output "dashboard" {
  description = "Name of the dashboard; null where there is none."
  value       = one(aws_cloudwatch_dashboard.this[*].dashboard_name)
}
