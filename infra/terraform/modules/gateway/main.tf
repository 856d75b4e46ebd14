locals {
  group = "${var.name}-gateway"
  # Balancer and target group have at most 32 characters.
  short = trimsuffix(substr(local.group, 0, 32), "-")
}

resource "aws_autoscaling_group" "this" {
  name                      = local.group
  min_size                  = var.size.min
  max_size                  = var.size.max
  vpc_zone_identifier       = var.subnet_ids
  target_group_arns         = [aws_lb_target_group.this.arn]
  health_check_type         = "ELB"
  health_check_grace_period = 180
  default_cooldown          = var.scaling.out_seconds
  default_instance_warmup   = var.scaling.out_seconds
  capacity_rebalance        = true
  termination_policies      = ["OldestLaunchTemplate", "Default"]
  enabled_metrics           = ["GroupDesiredCapacity", "GroupInServiceInstances", "GroupTerminatingInstances"]

  mixed_instances_policy {
    instances_distribution {
      on_demand_base_capacity                  = var.on_demand.base
      on_demand_percentage_above_base_capacity = var.on_demand.percentage_above
      spot_allocation_strategy                 = "price-capacity-optimized"
    }

    launch_template {
      launch_template_specification {
        launch_template_id = var.launch_template.id
        version            = var.launch_template.version
      }

      dynamic "override" {
        for_each = var.instance_types

        content {
          instance_type = override.value
        }
      }
    }
  }

  # An update: one after the other gets a successor, and is drained when that one is healthy.
  instance_refresh {
    strategy = "Rolling"

    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 150
      instance_warmup        = 60
      auto_rollback          = true
    }
  }

  tag {
    key                 = "Name"
    value               = local.group
    propagate_at_launch = true
  }

  lifecycle {
    ignore_changes = [desired_capacity]
  }
}

# Not a part of the group, where it would be what it was when the group was made: a time that is
# changed has to reach AWS. Nobody ends before it is there, for what has just started does not leave.
resource "aws_autoscaling_lifecycle_hook" "drain" {
  name                   = var.lifecycle_hook
  autoscaling_group_name = aws_autoscaling_group.this.name
  lifecycle_transition   = "autoscaling:EC2_INSTANCE_TERMINATING"
  heartbeat_timeout      = max(var.drain.deadline + 10, 2 * var.agent_heartbeat_seconds)
  default_result         = "CONTINUE"
}
