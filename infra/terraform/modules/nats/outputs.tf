output "url" {
  description = "URLs of all servers, as LIVEFEED_NATS_URL wants them."
  value       = join(",", [for name in keys(var.nodes) : "tls://${name}.${var.domain}:4222"])
}

output "instance_ids" {
  description = "Ids of the instances by name."
  value       = { for name, instance in aws_instance.this : name => instance.id }
}

output "volume_arns" {
  description = "ARNs of the volumes with the streams."
  value       = [for volume in aws_ebs_volume.streams : volume.arn]
}

output "alarm_arns" {
  description = "ARNs of the alarms by name."
  value = merge(
    { for name, alarm in aws_cloudwatch_metric_alarm.recover : "${name}-recover" => alarm.arn },
    { for name, alarm in aws_cloudwatch_metric_alarm.reboot : "${name}-reboot" => alarm.arn },
    { for name, alarm in aws_cloudwatch_metric_alarm.volume : "${name}-volume" => alarm.arn },
  )
}
