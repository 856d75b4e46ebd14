output "autoscaling_group" {
  description = "Name of the autoscaling group."
  value       = aws_autoscaling_group.this.name
}

output "alarm_arns" {
  description = "ARNs of the alarms by name; those that scale are not among them."
  value = {
    silent  = aws_cloudwatch_metric_alarm.silent.arn
    lag     = aws_cloudwatch_metric_alarm.lag.arn
    at-most = aws_cloudwatch_metric_alarm.full.arn
  }
}
