mock_provider "aws" {
  source = "../../tests/mocks/aws"
}

variables {
  name        = "livefeed-test"
  region      = "eu-west-1"
  kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000"
  log_groups  = ["gateway", "workers", "nats"]
}

run "logs_and_a_topic" {
  command = plan

  assert {
    condition     = alltrue([for one in aws_cloudwatch_log_group.this : one.retention_in_days == 365 && one.kms_key_id == var.kms_key_arn])
    error_message = "Logs are encrypted, and are kept as long as was said."
  }

  assert {
    condition     = aws_sns_topic.alarms.kms_master_key_id == var.kms_key_arn
    error_message = "Alarms are encrypted."
  }

  assert {
    condition     = length(aws_budgets_budget.this) == 0 && length(aws_cloudwatch_dashboard.this) == 0
    error_message = "What was not asked for is not there."
  }
}

run "all_of_it" {
  command = apply

  variables {
    budget       = 1000
    alarm_emails = ["on-call@example.com"]
    watched = {
      balancer    = "app/livefeed/0123"
      groups      = { gateway = "livefeed-test-gateway", workers = "livefeed-test-workers" }
      postgres    = { primary = "livefeed-test-primary", replica-1 = "livefeed-test-replica-1" }
      lag         = { namespace = "livefeed/livefeed-test", metric = "Lag", dimensions = {} }
      namespace   = "livefeed/livefeed-test"
      alarm_names = ["livefeed-test-gateway-too-few", "livefeed-test-workers-lag"]
    }
  }

  assert {
    condition     = aws_cloudwatch_composite_alarm.clients[0].alarm_rule == "ALARM(\"livefeed-test-gateway-too-few\") OR ALARM(\"livefeed-test-workers-lag\")"
    error_message = "One alarm speaks of what clients notice."
  }

  assert {
    condition     = length(jsondecode(aws_cloudwatch_dashboard.this[0].dashboard_body).widgets) == 8
    error_message = "The dashboard has all charts."
  }

  assert {
    condition     = length(aws_budgets_budget.this[0].notification) == 3
    error_message = "The budget tells at 80 %, at 100 %, and when it is foreseen."
  }
}
