resource "aws_cloudwatch_metric_alarm" "lag" {
  count = var.replicas

  alarm_name          = "${var.name}-postgres-replica-${count.index + 1}-lag"
  alarm_description   = "A replica is far behind: gateways read others, and the primary."
  namespace           = "AWS/RDS"
  metric_name         = "ReplicaLag"
  dimensions          = { DBInstanceIdentifier = aws_db_instance.replica[count.index].identifier }
  statistic           = "Average"
  period              = 60
  evaluation_periods  = 5
  threshold           = var.lag_alarm_seconds
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "breaching"
  alarm_actions       = [var.alarm_topic_arn]
  ok_actions          = [var.alarm_topic_arn]
}

resource "aws_cloudwatch_metric_alarm" "storage" {
  for_each = local.servers

  alarm_name          = "${var.name}-postgres-${each.key}-storage"
  alarm_description   = "Storage runs out. It grows by itself, at most every six hours; a full server takes no writes."
  namespace           = "AWS/RDS"
  metric_name         = "FreeStorageSpace"
  dimensions          = { DBInstanceIdentifier = each.value }
  statistic           = "Minimum"
  period              = 300
  evaluation_periods  = 2
  threshold           = var.free_storage_alarm_share * var.storage.size * 1024 * 1024 * 1024
  comparison_operator = "LessThanThreshold"
  alarm_actions       = [var.alarm_topic_arn]
  ok_actions          = [var.alarm_topic_arn]
}

resource "aws_cloudwatch_metric_alarm" "cpu" {
  for_each = local.servers

  alarm_name          = "${var.name}-postgres-${each.key}-cpu"
  alarm_description   = "A server of Postgres is busy for long."
  namespace           = "AWS/RDS"
  metric_name         = "CPUUtilization"
  dimensions          = { DBInstanceIdentifier = each.value }
  statistic           = "Average"
  period              = 60
  evaluation_periods  = 15
  threshold           = 85
  comparison_operator = "GreaterThanThreshold"
  alarm_actions       = [var.alarm_topic_arn]
  ok_actions          = [var.alarm_topic_arn]
}

resource "aws_cloudwatch_metric_alarm" "connections" {
  for_each = local.servers

  alarm_name          = "${var.name}-postgres-${each.key}-connections"
  alarm_description   = "Nearly as many connections as there may be: further gateways and workers would wait."
  namespace           = "AWS/RDS"
  metric_name         = "DatabaseConnections"
  dimensions          = { DBInstanceIdentifier = each.value }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 5
  threshold           = 0.8 * var.connections
  comparison_operator = "GreaterThanThreshold"
  alarm_actions       = [var.alarm_topic_arn]
  ok_actions          = [var.alarm_topic_arn]
}

resource "aws_db_event_subscription" "this" {
  name_prefix = "${var.name}-postgres-"
  sns_topic   = var.alarm_topic_arn
  source_type = "db-instance"
  source_ids  = values(local.servers)
  event_categories = [
    "availability", "failover", "failure", "low storage", "maintenance", "read replica", "recovery",
  ]
}
