locals {
  # A person puts the values of these; they never pass through Terraform.
  given = merge(
    { for role in var.nats_roles : "nats/${role}" => "NKEY seed of the role ${role} in NATS" },
    { "database" = "User of Postgres, as livefeed connects: {\"username\", \"password\"}" },
    { "nats/tls" = "Certificate and key of the NATS servers: {\"certificate\", \"key\"}" },
  )
}

resource "aws_secretsmanager_secret" "given" {
  #checkov:skip=CKV2_AWS_57:they are rotated by a person and a rolling restart, which servers and clients have to notice together
  for_each = local.given

  name                    = "${var.name}/${each.key}"
  description             = each.value
  kms_key_id              = var.kms_key_arn
  recovery_window_in_days = var.recovery_days
}

resource "aws_ssm_parameter" "this" {
  #checkov:skip=CKV2_AWS_34:addresses and names, which a person reads; what is secret is in Secrets Manager
  #checkov:skip=CKV_AWS_337:addresses and names, which a person reads; what is secret is in Secrets Manager
  for_each = var.parameters

  name        = "/${var.name}/${each.key}"
  description = "Of ${var.name}: ${each.key}"
  type        = "String"
  value       = each.value
}
