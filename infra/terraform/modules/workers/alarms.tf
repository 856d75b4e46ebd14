resource "aws_cloudwatch_metric_alarm" "silent" {
  alarm_name          = "${local.group}-lag-unknown"
  alarm_description   = "No NATS server says how much waits: workers are neither started nor ended. See livefeed-node-agent there."
  namespace           = var.lag.namespace
  metric_name         = var.lag.metric
  dimensions          = var.lag.dimensions
  statistic           = "SampleCount"
  period              = 60
  evaluation_periods  = 5
  threshold           = 1
  comparison_operator = "LessThanThreshold"
  # It tells people, and never scales.
  treat_missing_data = "breaching"
  alarm_actions      = [var.alarm_topic_arn]
  ok_actions         = [var.alarm_topic_arn]
}

resource "aws_cloudwatch_metric_alarm" "lag" {
  alarm_name          = "${local.group}-lag"
  alarm_description   = "Much waits for long: workers do not get on, or there are as many as there may be."
  namespace           = var.lag.namespace
  metric_name         = var.lag.metric
  dimensions          = var.lag.dimensions
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = var.scaling.lag_alarm_minutes
  threshold           = var.scaling.lag_alarm
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.alarm_topic_arn]
  ok_actions          = [var.alarm_topic_arn]
}

resource "aws_cloudwatch_metric_alarm" "full" {
  alarm_name          = "${local.group}-at-most"
  alarm_description   = "There are as many instances as there may be, for long."
  namespace           = "AWS/AutoScaling"
  metric_name         = "GroupDesiredCapacity"
  dimensions          = { AutoScalingGroupName = aws_autoscaling_group.this.name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 15
  threshold           = var.size.max
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.alarm_topic_arn]
  ok_actions          = [var.alarm_topic_arn]
}
