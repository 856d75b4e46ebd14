resource "aws_backup_vault" "this" {
  name        = var.name
  kms_key_arn = var.kms_key_arn
}

resource "aws_backup_vault_notifications" "this" {
  backup_vault_name   = aws_backup_vault.this.name
  sns_topic_arn       = var.alarm_topic_arn
  backup_vault_events = ["BACKUP_JOB_FAILED", "RESTORE_JOB_FAILED"]
}

locals {
  plans = {
    # Volumes alone: RDS makes no snapshot within an hour before or in one of its own windows, and has
    # every moment of its own.
    hourly = { tag = "BackupHourly", schedule = "cron(0 * * * ? *)", completion_minutes = 180, days = var.hourly_days }
    # Far from the windows of Postgres, which are from 02:00 to 09:30.
    daily = { tag = "Backup", schedule = "cron(30 12 * * ? *)", completion_minutes = 360, days = var.daily_days }
  }
}

resource "aws_backup_plan" "this" {
  for_each = local.plans

  name = "${var.name}-${each.key}"

  rule {
    rule_name         = each.key
    target_vault_name = aws_backup_vault.this.name
    schedule          = each.value.schedule
    start_window      = 60
    completion_window = each.value.completion_minutes

    lifecycle {
      delete_after = each.value.days
    }
  }
}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["backup.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "this" {
  name_prefix        = "${var.name}-backup-"
  description        = "Makes recovery points, and restores them"
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

resource "aws_iam_role_policy_attachment" "this" {
  for_each = toset(["Backup", "Restores"])

  role       = aws_iam_role.this.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AWSBackupServiceRolePolicyFor${each.key}"
}

resource "aws_backup_selection" "this" {
  for_each = local.plans

  name         = "${var.name}-${each.key}"
  plan_id      = aws_backup_plan.this[each.key].id
  iam_role_arn = aws_iam_role.this.arn

  selection_tag {
    type  = "STRINGEQUALS"
    key   = each.value.tag
    value = var.name
  }
}

resource "aws_backup_restore_testing_plan" "this" {
  count = var.restore_test ? 1 : 0

  name                         = replace(var.name, "-", "_")
  schedule_expression          = "cron(0 5 ? * SUN *)"
  schedule_expression_timezone = "Etc/UTC"
  start_window_hours           = 4

  recovery_point_selection {
    algorithm             = "LATEST_WITHIN_WINDOW"
    include_vaults        = [aws_backup_vault.this.arn]
    recovery_point_types  = ["SNAPSHOT"]
    selection_window_days = 7
  }
}

resource "aws_backup_restore_testing_selection" "volumes" {
  count = var.restore_test ? 1 : 0

  name                      = "streams"
  restore_testing_plan_name = aws_backup_restore_testing_plan.this[0].name
  protected_resource_type   = "EBS"
  iam_role_arn              = aws_iam_role.this.arn
  validation_window_hours   = 1

  protected_resource_conditions {
    string_equals {
      key   = "aws:ResourceTag/Backup"
      value = var.name
    }
  }
}
