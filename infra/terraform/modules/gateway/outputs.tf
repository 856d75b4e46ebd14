output "address" {
  description = "Name of the balancer; your domain's record is an alias of it."
  value       = aws_lb.this.dns_name
}

output "zone_id" {
  description = "Zone of that name, for an alias."
  value       = aws_lb.this.zone_id
}

output "balancer" {
  description = "The balancer, as CloudWatch names it."
  value       = aws_lb.this.arn_suffix
}

output "autoscaling_group" {
  description = "Name of the autoscaling group."
  value       = aws_autoscaling_group.this.name
}

output "alarm_arns" {
  description = "ARNs of the alarms by name."
  value = merge(
    { for name, alarm in aws_cloudwatch_metric_alarm.this : name => alarm.arn },
    { silent = aws_cloudwatch_metric_alarm.silent.arn },
    { at-most = aws_cloudwatch_metric_alarm.full.arn },
  )
}
