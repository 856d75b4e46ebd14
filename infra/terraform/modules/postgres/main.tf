locals {
  servers = merge(
    { primary = aws_db_instance.primary.identifier },
    { for index, server in aws_db_instance.replica : "replica-${index + 1}" => server.identifier },
  )
  family = "postgres${split(".", var.engine_version)[0]}"
}

resource "aws_db_subnet_group" "this" {
  name_prefix = "${var.name}-"
  description = "Postgres of ${var.name}"
  subnet_ids  = var.subnet_ids
}

resource "aws_db_parameter_group" "this" {
  name_prefix = "${var.name}-"
  description = "Postgres of ${var.name}"
  family      = local.family

  # No connection without TLS.
  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }

  dynamic "parameter" {
    for_each = {
      # A commit that was said to be durable is: with less, the log would lose what it acknowledged.
      "synchronous_commit" = "on"
      # The log's tables move rows all the time: vacuum has to get on (docs/operations/database.md).
      "autovacuum_vacuum_cost_limit"        = "2000"
      "autovacuum_naptime"                  = "15"
      "idle_in_transaction_session_timeout" = "60000"
      "log_min_duration_statement"          = "1000"
      "log_lock_waits"                      = "1"
      "log_statement"                       = "ddl"
      # A replica tells the primary what its readers still need, so that they are not cancelled.
      "hot_standby_feedback" = "1"
    }

    content {
      name  = parameter.key
      value = parameter.value
    }
  }

  parameter {
    name         = "max_connections"
    value        = tostring(var.connections)
    apply_method = "pending-reboot"
  }

  lifecycle {
    create_before_destroy = true
  }
}

data "aws_iam_policy_document" "monitoring_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["monitoring.rds.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "monitoring" {
  name_prefix        = "${var.name}-postgres-"
  description        = "Enhanced monitoring of Postgres"
  assume_role_policy = data.aws_iam_policy_document.monitoring_trust.json
}

resource "aws_iam_role_policy_attachment" "monitoring" {
  role       = aws_iam_role.monitoring.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole"
}

resource "aws_db_instance" "primary" {
  #checkov:skip=CKV_AWS_157:multi_az is on, but in a trial
  #checkov:skip=CKV_AWS_293:deletion_protection is on, but in a trial
  #checkov:skip=CKV_AWS_161:livefeed connects with a password of Secrets Manager; tokens of IAM last 15 minutes, its pools for days
  identifier                      = "${var.name}-primary"
  engine                          = "postgres"
  engine_version                  = var.engine_version
  instance_class                  = var.instance_class
  db_name                         = "livefeed"
  port                            = var.port
  username                        = "postgres"
  manage_master_user_password     = true
  master_user_secret_kms_key_id   = var.kms_key_arn
  allocated_storage               = var.storage.size
  max_allocated_storage           = var.storage.max
  storage_type                    = "gp3"
  storage_encrypted               = true
  kms_key_id                      = var.kms_key_arn
  multi_az                        = var.multi_az
  db_subnet_group_name            = aws_db_subnet_group.this.name
  parameter_group_name            = aws_db_parameter_group.this.name
  vpc_security_group_ids          = [var.security_group_id]
  publicly_accessible             = false
  ca_cert_identifier              = "rds-ca-rsa2048-g1"
  backup_retention_period         = var.backup_days
  backup_window                   = "02:00-03:00"
  maintenance_window              = "sun:03:30-sun:04:30"
  auto_minor_version_upgrade      = true
  copy_tags_to_snapshot           = true
  deletion_protection             = var.deletion_protection
  skip_final_snapshot             = !var.deletion_protection
  final_snapshot_identifier       = var.deletion_protection ? "${var.name}-final" : null
  delete_automated_backups        = !var.deletion_protection
  performance_insights_enabled    = true
  performance_insights_kms_key_id = var.kms_key_arn
  monitoring_interval             = 60
  monitoring_role_arn             = aws_iam_role.monitoring.arn
  enabled_cloudwatch_logs_exports = ["postgresql", "upgrade"]

  tags = { Backup = var.name }
}

resource "aws_db_instance" "replica" {
  #checkov:skip=CKV_AWS_157:a replica needs no standby: gateways ask another one, or the primary
  #checkov:skip=CKV_AWS_293:deletion_protection is on, but in a trial
  #checkov:skip=CKV_AWS_161:livefeed connects with a password of Secrets Manager, as to the primary
  #checkov:skip=CKV_AWS_133:the primary is backed up
  count = var.replicas

  identifier                      = "${var.name}-replica-${count.index + 1}"
  replicate_source_db             = aws_db_instance.primary.identifier
  instance_class                  = var.instance_class
  port                            = var.port
  max_allocated_storage           = var.storage.max
  storage_type                    = "gp3"
  storage_encrypted               = true
  kms_key_id                      = var.kms_key_arn
  parameter_group_name            = aws_db_parameter_group.this.name
  vpc_security_group_ids          = [var.security_group_id]
  publicly_accessible             = false
  ca_cert_identifier              = "rds-ca-rsa2048-g1"
  maintenance_window              = "sun:0${5 + count.index % 4}:30-sun:0${6 + count.index % 4}:30"
  auto_minor_version_upgrade      = true
  copy_tags_to_snapshot           = true
  deletion_protection             = var.deletion_protection
  skip_final_snapshot             = true
  performance_insights_enabled    = true
  performance_insights_kms_key_id = var.kms_key_arn
  monitoring_interval             = 60
  monitoring_role_arn             = aws_iam_role.monitoring.arn
  enabled_cloudwatch_logs_exports = ["postgresql", "upgrade"]
}
