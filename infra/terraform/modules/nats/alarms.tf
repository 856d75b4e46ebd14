# Broken hardware: the same instance, with its address and its volume, starts on other hardware.
resource "aws_cloudwatch_metric_alarm" "recover" {
  for_each = var.nodes

  alarm_name          = "${var.name}-${each.key}-recover"
  alarm_description   = "The computer below ${each.key} fails: it is started on another one."
  namespace           = "AWS/EC2"
  metric_name         = "StatusCheckFailed_System"
  dimensions          = { InstanceId = aws_instance.this[each.key].id }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 2
  threshold           = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  alarm_actions       = ["arn:aws:automate:${var.region}:ec2:recover", var.alarm_topic_arn]
  ok_actions          = [var.alarm_topic_arn]
}

# A system that hangs: a restart keeps everything.
resource "aws_cloudwatch_metric_alarm" "reboot" {
  for_each = var.nodes

  alarm_name          = "${var.name}-${each.key}-reboot"
  alarm_description   = "${each.key} does not answer its own checks: it is restarted."
  namespace           = "AWS/EC2"
  metric_name         = "StatusCheckFailed_Instance"
  dimensions          = { InstanceId = aws_instance.this[each.key].id }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 3
  threshold           = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  alarm_actions       = ["arn:aws:automate:${var.region}:ec2:reboot", var.alarm_topic_arn]
  ok_actions          = [var.alarm_topic_arn]
}

resource "aws_cloudwatch_metric_alarm" "volume" {
  for_each = var.nodes

  alarm_name          = "${var.name}-${each.key}-volume-stalled"
  alarm_description   = "Writes of ${each.key} to its streams do not get on: publishers wait for them."
  namespace           = "AWS/EBS"
  metric_name         = "VolumeStalledIOCheck"
  dimensions          = { VolumeId = aws_ebs_volume.streams[each.key].id }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 2
  threshold           = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  alarm_actions       = [var.alarm_topic_arn]
  ok_actions          = [var.alarm_topic_arn]
}

# What is full takes no update more, and all three fill alike: each has a copy of every stream.
resource "aws_cloudwatch_metric_alarm" "disk" {
  alarm_name          = "${var.name}-nats-disk"
  alarm_description   = "A disk with streams is nearly full, or no collector says how full it is: publishers are refused at the streams' bounds, and nothing at all is taken beyond the disk's. Workers may have stopped; else enlarge nats.volume."
  namespace           = var.metrics_namespace
  metric_name         = "disk_used_percent"
  dimensions          = { "service.name" = "nats", mountpoint = "/var/lib/livefeed-nats" }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 10
  threshold           = var.disk_used_percent_max
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "breaching"
  alarm_actions       = [var.alarm_topic_arn]
  ok_actions          = [var.alarm_topic_arn]
}
