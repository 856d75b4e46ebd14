# A cooldown is heeded by simple policies alone. So out is target tracking, which counts a newcomer
# only after its warm-up, and in is a simple policy with a cooldown of its own: while it lasts, a
# spike still scales out.
resource "aws_autoscaling_policy" "cpu" {
  name                      = "cpu"
  autoscaling_group_name    = aws_autoscaling_group.this.name
  policy_type               = "TargetTrackingScaling"
  estimated_instance_warmup = var.scaling.out_seconds

  target_tracking_configuration {
    target_value     = var.scaling.cpu
    disable_scale_in = true

    predefined_metric_specification {
      predefined_metric_type = "ASGAverageCPUUtilization"
    }
  }
}

resource "aws_autoscaling_policy" "memory" {
  name                      = "memory"
  autoscaling_group_name    = aws_autoscaling_group.this.name
  policy_type               = "TargetTrackingScaling"
  estimated_instance_warmup = var.scaling.out_seconds

  target_tracking_configuration {
    target_value     = var.scaling.memory
    disable_scale_in = true

    customized_metric_specification {
      namespace   = var.metrics.namespace
      metric_name = "mem_used_percent"
      statistic   = "Average"

      metric_dimension {
        name  = "AutoScalingGroupName"
        value = aws_autoscaling_group.this.name
      }
    }
  }
}

# Idle WebSockets cost little CPU, and yet a node takes only so many. The agents write how many each
# has; the average of the group is what a node has.
resource "aws_autoscaling_policy" "connections" {
  name                      = "connections"
  autoscaling_group_name    = aws_autoscaling_group.this.name
  policy_type               = "TargetTrackingScaling"
  estimated_instance_warmup = var.scaling.out_seconds

  target_tracking_configuration {
    target_value     = var.scaling.connections
    disable_scale_in = true

    customized_metric_specification {
      namespace   = var.metrics.namespace
      metric_name = var.metrics.connections
      statistic   = "Average"

      metric_dimension {
        name  = var.metrics.group
        value = aws_autoscaling_group.this.name
      }
    }
  }
}

resource "aws_autoscaling_policy" "in" {
  name                   = "in"
  autoscaling_group_name = aws_autoscaling_group.this.name
  policy_type            = "SimpleScaling"
  adjustment_type        = "ChangeInCapacity"
  scaling_adjustment     = -1
  cooldown               = var.scaling.in_seconds
}

resource "aws_cloudwatch_metric_alarm" "in" {
  alarm_name          = "${local.group}-in"
  alarm_description   = "Gateways have little to do: one of them is drained and ended."
  evaluation_periods  = 10
  datapoints_to_alarm = 10
  threshold           = 1
  comparison_operator = "LessThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_autoscaling_policy.in.arn]

  metric_query {
    id          = "busy"
    label       = "1 while it is too much for one less"
    expression  = "IF(cpu > ${var.scaling.in_cpu} OR memory > ${var.scaling.in_memory} OR connections > ${0.6 * var.scaling.connections}, 1, 0)"
    return_data = true
  }

  metric_query {
    id = "cpu"

    metric {
      namespace   = "AWS/EC2"
      metric_name = "CPUUtilization"
      dimensions  = { AutoScalingGroupName = aws_autoscaling_group.this.name }
      period      = 60
      stat        = "Average"
    }
  }

  metric_query {
    id = "memory"

    metric {
      namespace   = var.metrics.namespace
      metric_name = "mem_used_percent"
      dimensions  = { AutoScalingGroupName = aws_autoscaling_group.this.name }
      period      = 60
      stat        = "Average"
    }
  }

  metric_query {
    id = "connections"

    metric {
      namespace   = var.metrics.namespace
      metric_name = var.metrics.connections
      dimensions  = { (var.metrics.group) = aws_autoscaling_group.this.name }
      period      = 60
      stat        = "Average"
    }
  }
}
