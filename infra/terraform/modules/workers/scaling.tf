# From none to one: target tracking divides by the instances, and does not serve at zero.
resource "aws_autoscaling_policy" "first" {
  name                   = "first"
  autoscaling_group_name = aws_autoscaling_group.this.name
  policy_type            = "StepScaling"
  # One more, and never "exactly one": whatever the alarm is mistaken about, nobody is taken away.
  adjustment_type           = "ChangeInCapacity"
  estimated_instance_warmup = var.scaling.warmup_seconds

  step_adjustment {
    scaling_adjustment          = 1
    metric_interval_lower_bound = 0
  }
}

resource "aws_cloudwatch_metric_alarm" "first" {
  alarm_name          = "${local.group}-first"
  alarm_description   = "Something waits, and no worker is there: the first one is started."
  evaluation_periods  = 1
  threshold           = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_autoscaling_policy.first.arn]

  metric_query {
    id    = "wanted"
    label = "1 while the first one is wanted"
    # The group's newest minute may be missing: it has what it had a minute before, not none.
    expression  = "IF(FILL(lag, 0) > ${var.scaling.activation} AND FILL(instances, REPEAT) < 1, 1, 0)"
    return_data = true
  }

  metric_query {
    id = "lag"

    metric {
      namespace   = var.lag.namespace
      metric_name = var.lag.metric
      dimensions  = var.lag.dimensions
      period      = 60
      # All three servers say the same: who says it twice does no harm.
      stat = "Maximum"
    }
  }

  metric_query {
    id = "instances"

    metric {
      namespace   = "AWS/AutoScaling"
      metric_name = "GroupDesiredCapacity"
      dimensions  = { AutoScalingGroupName = aws_autoscaling_group.this.name }
      period      = 60
      stat        = "Maximum"
    }
  }
}

# From one on: as many as the backlog asks for.
resource "aws_autoscaling_policy" "backlog" {
  name                      = "backlog"
  autoscaling_group_name    = aws_autoscaling_group.this.name
  policy_type               = "TargetTrackingScaling"
  estimated_instance_warmup = var.scaling.warmup_seconds

  target_tracking_configuration {
    target_value = var.scaling.backlog_each
    # The last one is taken away by `none`; this would keep it for its own margin.
    disable_scale_in = false

    customized_metric_specification {
      metrics {
        id = "each"
        # Without news of the lag there is no value, and then workers stay. A minute of the group
        # that is missing is like the one before: divided by one, the backlog would ask for all.
        expression  = "lag / IF(FILL(instances, REPEAT) > 0, FILL(instances, REPEAT), 1)"
        return_data = true
      }

      metrics {
        id          = "lag"
        return_data = false

        metric_stat {
          stat = "Maximum"

          metric {
            namespace   = var.lag.namespace
            metric_name = var.lag.metric

            dynamic "dimensions" {
              for_each = var.lag.dimensions

              content {
                name  = dimensions.key
                value = dimensions.value
              }
            }
          }
        }
      }

      metrics {
        id          = "instances"
        return_data = false

        metric_stat {
          stat = "Average"

          metric {
            namespace   = "AWS/AutoScaling"
            metric_name = "GroupInServiceInstances"

            dimensions {
              name  = "AutoScalingGroupName"
              value = aws_autoscaling_group.this.name
            }
          }
        }
      }
    }
  }
}

# To the fewest, when nothing has waited, or been in a worker's hands, for long.
resource "aws_autoscaling_policy" "none" {
  name                   = "none"
  autoscaling_group_name = aws_autoscaling_group.this.name
  policy_type            = "SimpleScaling"
  adjustment_type        = "ExactCapacity"
  scaling_adjustment     = var.size.min
  cooldown               = var.scaling.in_seconds
}

resource "aws_cloudwatch_metric_alarm" "none" {
  alarm_name          = "${local.group}-none"
  alarm_description   = "Nothing waits: workers are not needed."
  namespace           = var.lag.namespace
  metric_name         = var.lag.metric
  dimensions          = var.lag.dimensions
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = var.scaling.idle_minutes
  datapoints_to_alarm = var.scaling.idle_minutes
  threshold           = 0
  comparison_operator = "LessThanOrEqualToThreshold"
  # Without news of the lag workers stay.
  treat_missing_data = "notBreaching"
  alarm_actions      = [aws_autoscaling_policy.none.arn]
}
