mock_provider "aws" {
  source = "../../tests/mocks/aws"
}

variables {
  name              = "livefeed-test"
  subnet_ids        = ["subnet-7", "subnet-8", "subnet-9"]
  security_group_id = "sg-0123456789abcdef2"
  kms_key_arn       = "arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000"
  alarm_topic_arn   = "arn:aws:sns:eu-west-1:123456789012:alarms"
}

run "a_primary_with_a_standby_and_two_replicas" {
  command = apply

  assert {
    condition     = aws_db_instance.primary.multi_az && length(aws_db_instance.replica) == 2
    error_message = "The primary has a standby, and two replicas are read."
  }

  assert {
    condition     = aws_db_instance.primary.manage_master_user_password && aws_db_instance.primary.password == null
    error_message = "RDS makes the master password; nobody here knows it."
  }

  assert {
    condition     = one([for one in aws_db_parameter_group.this.parameter : one.value if one.name == "rds.force_ssl"]) == "1"
    error_message = "Without TLS nobody connects."
  }

  assert {
    condition     = one([for one in aws_db_parameter_group.this.parameter : one.value if one.name == "synchronous_commit"]) == "on"
    error_message = "A commit is durable."
  }

  assert {
    condition     = aws_db_instance.primary.backup_retention_period == 14 && aws_db_instance.primary.storage_encrypted && aws_db_instance.primary.deletion_protection
    error_message = "It is backed up, encrypted, and not deleted by a call."
  }

  assert {
    condition     = length(aws_cloudwatch_metric_alarm.lag) == 2 && length(aws_cloudwatch_metric_alarm.storage) == 3
    error_message = "Each replica's lag, and each server's storage, is watched."
  }
}

run "six_replicas_are_refused" {
  command = plan

  variables {
    replicas = 6
  }

  expect_failures = [var.replicas]
}

run "no_replica_is_refused" {
  command = plan

  variables {
    replicas = 0
  }

  expect_failures = [var.replicas]
}

run "on_trial_a_primary_alone" {
  command = plan

  variables {
    replicas            = 0
    multi_az            = false
    deletion_protection = false
  }

  assert {
    condition     = aws_db_instance.primary.skip_final_snapshot && length(aws_db_instance.replica) == 0
    error_message = "What is on trial is thrown away."
  }
}
