locals {
  group = "${var.name}-workers"
}

resource "aws_autoscaling_group" "this" {
  name                    = local.group
  min_size                = var.size.min
  max_size                = var.size.max
  vpc_zone_identifier     = var.subnet_ids
  health_check_type       = "EC2"
  default_cooldown        = var.scaling.warmup_seconds
  default_instance_warmup = var.scaling.warmup_seconds
  capacity_rebalance      = var.capacity_mode == "spot"
  termination_policies    = ["OldestLaunchTemplate", "Default"]
  enabled_metrics         = ["GroupDesiredCapacity", "GroupInServiceInstances"]

  mixed_instances_policy {
    instances_distribution {
      on_demand_base_capacity                  = 0
      on_demand_percentage_above_base_capacity = var.capacity_mode == "spot" ? 0 : 100
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

  instance_refresh {
    strategy = "Rolling"

    preferences {
      min_healthy_percentage = 0
      instance_warmup        = 60
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
  heartbeat_timeout      = max(var.deadline_seconds + 10, 2 * var.heartbeat_seconds)
  default_result         = "CONTINUE"
}
