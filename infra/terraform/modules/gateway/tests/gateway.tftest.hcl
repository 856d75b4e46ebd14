mock_provider "aws" {
  source = "../../tests/mocks/aws"
}

variables {
  name                       = "livefeed-test"
  vpc_id                     = "vpc-0123456789abcdef0"
  balancer_subnet_ids        = ["subnet-1", "subnet-2", "subnet-3"]
  subnet_ids                 = ["subnet-4", "subnet-5", "subnet-6"]
  balancer_security_group_id = "sg-0123456789abcdef0"
  certificate_arn            = "arn:aws:acm:eu-west-1:123456789012:certificate/00000000-0000-0000-0000-000000000000"
  launch_template            = { id = "lt-0123456789abcdef0", version = 1 }
  alarm_topic_arn            = "arn:aws:sns:eu-west-1:123456789012:alarms"
  metrics                    = { namespace = "livefeed/livefeed-test", connections = "Connections", group = "AutoScalingGroupName" }
  ports                      = { gateway = 8080, ops = 8081 }
  health_path                = "/readyz"
  heartbeat_seconds          = 20
  agent_heartbeat_seconds    = 30
  drain                      = { wait = 50, spread = 45, leave = 10, deadline = 110 }
  lifecycle_hook             = "drain"
}

run "it_scales_as_asked" {
  command = apply

  assert {
    condition     = aws_autoscaling_group.this.min_size == 2 && aws_autoscaling_group.this.max_size == 20
    error_message = "There are 2 to 20 gateways."
  }

  assert {
    condition     = aws_autoscaling_policy.cpu.target_tracking_configuration[0].target_value == 70 && aws_autoscaling_policy.memory.target_tracking_configuration[0].target_value == 80
    error_message = "It scales out above 70 % of CPU, and above 80 % of memory."
  }

  assert {
    condition     = alltrue([for one in [aws_autoscaling_policy.cpu, aws_autoscaling_policy.memory, aws_autoscaling_policy.connections] : one.estimated_instance_warmup == 300 && one.target_tracking_configuration[0].disable_scale_in])
    error_message = "A newcomer counts after 300 s, and none of these scales in."
  }

  assert {
    condition     = aws_autoscaling_policy.in.policy_type == "SimpleScaling" && aws_autoscaling_policy.in.cooldown == 600 && aws_autoscaling_policy.in.scaling_adjustment == -1
    error_message = "In goes one at a time, 600 s apart."
  }

  assert {
    condition     = one(aws_cloudwatch_metric_alarm.in.alarm_actions) == aws_autoscaling_policy.in.arn && aws_cloudwatch_metric_alarm.in.treat_missing_data == "notBreaching"
    error_message = "Little to do fires it, and no news does not."
  }

  assert {
    condition     = !strcontains(one([for query in aws_cloudwatch_metric_alarm.in.metric_query : query.expression if query.id == "busy"]), "FILL")
    error_message = "What is not known is not taken for nothing."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.silent.treat_missing_data == "breaching" && aws_cloudwatch_metric_alarm.silent.alarm_actions == toset([var.alarm_topic_arn])
    error_message = "No news of the connections tells people, and scales nothing."
  }
}

run "the_balancer_looks_as_asked" {
  command = plan

  assert {
    condition     = aws_lb_target_group.this.load_balancing_algorithm_type == "least_outstanding_requests"
    error_message = "Whoever has the fewest connections gets the next."
  }

  assert {
    condition = (
      aws_lb_target_group.this.health_check[0].interval == 15 && aws_lb_target_group.this.health_check[0].timeout == 5 &&
      aws_lb_target_group.this.health_check[0].unhealthy_threshold == 3 && aws_lb_target_group.this.health_check[0].healthy_threshold == 2
    )
    error_message = "Health: every 15 s, within 5 s, away after 3, back after 2."
  }

  assert {
    condition     = aws_lb_target_group.this.health_check[0].port == "8081" && aws_lb_target_group.this.health_check[0].path == "/readyz"
    error_message = "Readiness is asked for on the ops port."
  }

  assert {
    condition     = aws_lb.this.idle_timeout > 2 * var.heartbeat_seconds && aws_lb.this.enable_deletion_protection
    error_message = "The balancer cuts no connection between two pings, and is not deleted by a call."
  }

  assert {
    condition     = length(aws_lb_listener.https) == 1 && aws_lb_listener.http.default_action[0].type == "redirect"
    error_message = "Clients are sent to https."
  }
}

run "the_hook_outlasts_two_heartbeats" {
  command = plan

  variables {
    agent_heartbeat_seconds = 90
  }

  assert {
    condition     = aws_autoscaling_lifecycle_hook.drain.heartbeat_timeout == 180
    error_message = "One heartbeat that is lost ends no drain."
  }
}

run "an_instance_that_ends_is_held_back_until_it_is_drained" {
  command = plan

  assert {
    condition     = aws_autoscaling_lifecycle_hook.drain.heartbeat_timeout == 120 && aws_autoscaling_lifecycle_hook.drain.default_result == "CONTINUE"
    error_message = "The hook waits somewhat longer than the drain may take."
  }
}

run "without_a_certificate_it_is_plain" {
  command = apply

  variables {
    certificate_arn = null
  }

  assert {
    condition     = length(aws_lb_listener.https) == 0 && aws_lb_listener.http.default_action[0].type == "forward"
    error_message = "On trial 80 serves clients."
  }
}

run "one_gateway_is_refused" {
  command = plan

  variables {
    size = { min = 1 }
  }

  expect_failures = [var.size]
}

run "a_drain_longer_than_its_deadline_is_refused" {
  command = plan

  variables {
    drain = { wait = 50, spread = 60, leave = 10, deadline = 110 }
  }

  expect_failures = [var.drain]
}

run "a_drain_before_the_balancer_notices_is_refused" {
  command = plan

  variables {
    drain = { wait = 20, spread = 20, leave = 10, deadline = 110 }
  }

  expect_failures = [var.health_check]
}

run "a_balancer_that_cuts_quiet_connections_is_refused" {
  command = plan

  variables {
    idle_timeout = 30
  }

  expect_failures = [var.idle_timeout]
}

run "in_above_out_is_refused" {
  command = plan

  variables {
    scaling = { in_cpu = 75 }
  }

  expect_failures = [var.scaling]
}
