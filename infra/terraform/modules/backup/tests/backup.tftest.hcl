mock_provider "aws" {
  source = "../../tests/mocks/aws"
}

variables {
  name            = "livefeed-test"
  kms_key_arn     = "arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000"
  alarm_topic_arn = "arn:aws:sns:eu-west-1:123456789012:alarms"
}

run "hourly_daily_and_tried" {
  command = apply

  assert {
    condition     = toset(flatten([for plan in aws_backup_plan.this : [for one in plan.rule : one.rule_name]])) == toset(["hourly", "daily"])
    error_message = "Recovery points are made each hour and each day."
  }

  assert {
    condition = { for name, one in aws_backup_selection.this : name => [for tag in one.selection_tag : "${tag.key}=${tag.value}"] } == {
      hourly = ["BackupHourly=livefeed-test"], daily = ["Backup=livefeed-test"]
    }
    error_message = "What has our tags is backed up."
  }

  assert {
    condition     = length(aws_backup_restore_testing_plan.this) == 1
    error_message = "Once a week one is restored, to see that it can be."
  }
}

run "without_a_trial_restore" {
  command = plan

  variables {
    restore_test = false
  }

  assert {
    condition     = length(aws_backup_restore_testing_plan.this) == 0
    error_message = "Nothing is restored where it was not asked for."
  }
}
