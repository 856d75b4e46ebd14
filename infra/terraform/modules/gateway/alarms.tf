locals {
  balancer = aws_lb.this.arn_suffix
  target   = aws_lb_target_group.this.arn_suffix

  alarms = {
    unhealthy = {
      text = "A gateway is not ready for minutes: see its logs, and /readyz on its ops port for the reason."
      name = "UnHealthyHostCount", statistic = "Maximum", threshold = 0, periods = 10, target = true
    }
    too-few = {
      text = "Fewer gateways than the least are ready: the loss of one more would be noticed."
      name = "HealthyHostCount", statistic = "Minimum", threshold = var.size.min, periods = 5, target = true
    }
    errors = {
      text = "Gateways answer with errors, or not at all."
      name = "HTTPCode_Target_5XX_Count", statistic = "Sum", threshold = 100, periods = 5, target = true
    }
    refused = {
      text = "The balancer itself answers with errors: no gateway takes what comes."
      name = "HTTPCode_ELB_5XX_Count", statistic = "Sum", threshold = 100, periods = 5, target = false
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name        = "${local.group}-${each.key}"
  alarm_description = each.value.text
  namespace         = "AWS/ApplicationELB"
  metric_name       = each.value.name
  dimensions = merge(
    { LoadBalancer = local.balancer },
    each.value.target ? { TargetGroup = local.target } : {},
  )
  statistic           = each.value.statistic
  period              = 60
  evaluation_periods  = each.value.periods
  threshold           = each.value.threshold
  comparison_operator = each.key == "too-few" ? "LessThanThreshold" : "GreaterThanThreshold"
  treat_missing_data  = each.key == "too-few" ? "breaching" : "notBreaching"
  alarm_actions       = [var.alarm_topic_arn]
  ok_actions          = [var.alarm_topic_arn]
}

resource "aws_cloudwatch_metric_alarm" "silent" {
  alarm_name          = "${local.group}-connections-unknown"
  alarm_description   = "No agent says how many connections there are: gateways are not ended for want of them, and who ends is not drained. See livefeed-node-agent there."
  namespace           = var.metrics.namespace
  metric_name         = var.metrics.connections
  dimensions          = { (var.metrics.group) = aws_autoscaling_group.this.name }
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

resource "aws_cloudwatch_metric_alarm" "full" {
  alarm_name          = "${local.group}-at-most"
  alarm_description   = "There are as many gateways as there may be: no further one comes, whatever the load is."
  namespace           = "AWS/AutoScaling"
  metric_name         = "GroupDesiredCapacity"
  dimensions          = { AutoScalingGroupName = aws_autoscaling_group.this.name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 5
  threshold           = var.size.max
  comparison_operator = "GreaterThanOrEqualToThreshold"
  alarm_actions       = [var.alarm_topic_arn]
  ok_actions          = [var.alarm_topic_arn]
}
