locals {
  # A person puts the values of these; they never pass through Terraform.
  given = merge(
    { for role in var.nats_roles : "nats/${role}" => "NKEY seed of the role ${role} in NATS" },
    { "nats/tls" = "Certificate and key of the NATS servers: {\"certificate\", \"key\"}" },
  )
}

resource "aws_secretsmanager_secret" "given" {
  #checkov:skip=CKV2_AWS_57:seeds and certificates are rotated by a deploy, which servers and clients have to notice together
  for_each = local.given

  name                    = "${var.name}/${each.key}"
  description             = each.value
  kms_key_id              = var.kms_key_arn
  recovery_window_in_days = var.recovery_days
}

# Made, written, and forgotten: neither the plan nor the state has it.
ephemeral "aws_secretsmanager_random_password" "database" {
  password_length     = 40
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "database" {
  #checkov:skip=CKV2_AWS_57:rotated by database_password_version and a rolling restart; RDS rotates its own master password
  name                    = "${var.name}/database"
  description             = "User and password with which livefeed connects to Postgres"
  kms_key_id              = var.kms_key_arn
  recovery_window_in_days = var.recovery_days
}

resource "aws_secretsmanager_secret_version" "database" {
  secret_id = aws_secretsmanager_secret.database.id
  secret_string_wo = jsonencode({
    username = var.database_user
    password = ephemeral.aws_secretsmanager_random_password.database.random_password
  })
  secret_string_wo_version = var.database_password_version
}

resource "aws_ssm_parameter" "this" {
  #checkov:skip=CKV2_AWS_34:addresses and names, which a person reads; what is secret is in Secrets Manager
  #checkov:skip=CKV_AWS_337:the same
  for_each = var.parameters

  name        = "/${var.name}/${each.key}"
  description = "Of ${var.name}: ${each.key}"
  type        = "String"
  value       = each.value
}
