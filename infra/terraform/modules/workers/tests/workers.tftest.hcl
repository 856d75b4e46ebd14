mock_provider "aws" {
  source = "../../tests/mocks/aws"
}

variables {
  name              = "livefeed-test"
  subnet_ids        = ["subnet-4", "subnet-5", "subnet-6"]
  launch_template   = { id = "lt-0123456789abcdef0", version = 1 }
  alarm_topic_arn   = "arn:aws:sns:eu-west-1:123456789012:alarms"
  lag               = { namespace = "livefeed/livefeed-test", metric = "Lag" }
  lifecycle_hook    = "drain"
  heartbeat_seconds = 30
  deadline_seconds  = 20
}

run "from_none_to_many_and_back" {
  command = apply

  assert {
    condition     = aws_autoscaling_group.this.min_size == 0 && aws_autoscaling_group.this.max_size == 20
    error_message = "There are 0 to 20 instances."
  }

  assert {
    condition     = aws_autoscaling_policy.first.policy_type == "StepScaling" && one(aws_autoscaling_policy.first.step_adjustment).scaling_adjustment == 1 && one(aws_cloudwatch_metric_alarm.first.alarm_actions) == aws_autoscaling_policy.first.arn
    error_message = "What waits while none is there starts the first."
  }

  assert {
    condition     = aws_autoscaling_policy.backlog.target_tracking_configuration[0].target_value == 20000
    error_message = "From there on the backlog of each says how many."
  }

  assert {
    condition     = aws_autoscaling_policy.none.adjustment_type == "ExactCapacity" && aws_autoscaling_policy.none.scaling_adjustment == 0 && aws_cloudwatch_metric_alarm.none.evaluation_periods == 10
    error_message = "After ten minutes without anything none stays."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.none.treat_missing_data == "notBreaching" && aws_cloudwatch_metric_alarm.first.treat_missing_data == "notBreaching"
    error_message = "Without news of the lag nothing is started or ended."
  }

  assert {
    condition     = !strcontains(one([for one in aws_autoscaling_policy.backlog.target_tracking_configuration[0].customized_metric_specification[0].metrics : one.expression if one.id == "each"]), "FILL(lag")
    error_message = "What is not known is not taken for nothing."
  }

  assert {
    condition     = aws_autoscaling_policy.first.adjustment_type == "ChangeInCapacity"
    error_message = "The first one is added: a busy group is never made one of a single instance."
  }

  assert {
    condition = alltrue([
      for expression in concat(
        [for one in aws_cloudwatch_metric_alarm.first.metric_query : one.expression if one.id == "wanted"],
        [for one in aws_autoscaling_policy.backlog.target_tracking_configuration[0].customized_metric_specification[0].metrics : one.expression if one.id == "each"],
      ) : strcontains(expression, "FILL(instances, REPEAT)") && !strcontains(expression, "FILL(instances, 0)")
    ])
    error_message = "A minute of the group that is missing is like the one before, not a minute without instances."
  }

  assert {
    condition     = aws_autoscaling_lifecycle_hook.drain.heartbeat_timeout == 60
    error_message = "One heartbeat that is lost ends no drain."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.silent.treat_missing_data == "breaching" && aws_cloudwatch_metric_alarm.silent.alarm_actions == toset([var.alarm_topic_arn])
    error_message = "No news of the lag tells people, and scales nothing."
  }
}

run "spot_is_spread_over_types" {
  command = plan

  assert {
    condition     = aws_autoscaling_group.this.capacity_rebalance && one(aws_autoscaling_group.this.mixed_instances_policy[0].instances_distribution).on_demand_percentage_above_base_capacity == 0
    error_message = "All are on spot, and one that may be taken away gets a successor first."
  }
}

run "on_demand" {
  command = plan

  variables {
    capacity_mode  = "on_demand"
    instance_types = ["c7g.large"]
  }

  assert {
    condition     = !aws_autoscaling_group.this.capacity_rebalance && one(aws_autoscaling_group.this.mixed_instances_policy[0].instances_distribution).on_demand_percentage_above_base_capacity == 100
    error_message = "None is on spot."
  }
}

run "spot_with_one_type_is_refused" {
  command = plan

  variables {
    instance_types = ["c7g.large"]
  }

  expect_failures = [var.capacity_mode]
}

run "a_deadline_after_the_spot_notice_is_refused" {
  command = plan

  variables {
    deadline_seconds = 300
  }

  expect_failures = [var.deadline_seconds]
}
