resource "aws_elasticache_subnet_group" "this" {
  name        = "${var.name}-redis"
  description = "Redis of ${var.name}"
  subnet_ids  = var.subnet_ids
}

resource "aws_elasticache_parameter_group" "this" {
  name        = "${var.name}-redis"
  description = "Redis of ${var.name}: a cache that lets go of what is asked for least"
  family      = "redis7"

  parameter {
    name  = "maxmemory-policy"
    value = "allkeys-lru"
  }
}

resource "aws_elasticache_replication_group" "this" {
  #checkov:skip=CKV_AWS_31:a token would be in the state; only gateways reach it, by their security group, and it holds pages that can be made again
  #checkov:skip=CKV2_AWS_50:one node has no failover to enable; two are the default
  replication_group_id       = "${var.name}-redis"
  description                = "Pages of feeds that gateways share"
  engine                     = "redis"
  engine_version             = "7.1"
  node_type                  = var.node_type
  num_cache_clusters         = var.nodes
  port                       = var.port
  parameter_group_name       = aws_elasticache_parameter_group.this.name
  subnet_group_name          = aws_elasticache_subnet_group.this.name
  security_group_ids         = [var.security_group_id]
  automatic_failover_enabled = var.nodes > 1
  multi_az_enabled           = var.nodes > 1
  at_rest_encryption_enabled = true
  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  kms_key_id                 = var.kms_key_arn
  auto_minor_version_upgrade = true
  maintenance_window         = "sun:04:30-sun:05:30"
  # What it holds can be made again: nothing is backed up.
  snapshot_retention_limit = 0
}

# Nodes are named after the group, and numbered.
resource "aws_cloudwatch_metric_alarm" "memory" {
  count = var.nodes

  alarm_name          = "${var.name}-redis-${count.index + 1}-memory"
  alarm_description   = "Redis drops pages for want of memory: more are read from Postgres."
  namespace           = "AWS/ElastiCache"
  metric_name         = "Evictions"
  dimensions          = { CacheClusterId = format("%s-%03d", aws_elasticache_replication_group.this.id, count.index + 1) }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 3
  threshold           = 1000
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.alarm_topic_arn]
  ok_actions          = [var.alarm_topic_arn]
}
