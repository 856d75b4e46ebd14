mock_provider "aws" {
  source = "../../tests/mocks/aws"
}

variables {
  name        = "livefeed-test"
  kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000"
  nats_roles  = ["gateway", "worker"]
}

run "every_secret_is_encrypted_and_has_no_value_here" {
  command = plan

  assert {
    condition     = toset(keys(aws_secretsmanager_secret.given)) == toset(["database", "nats/gateway", "nats/worker", "nats/tls"])
    error_message = "Each role has a secret, and the servers have theirs."
  }

  assert {
    condition     = alltrue([for one in aws_secretsmanager_secret.given : one.kms_key_id == var.kms_key_arn && one.recovery_window_in_days == 30])
    error_message = "Secrets are encrypted with our key, and can be brought back."
  }
}

run "recovery_is_none_or_a_week_at_least" {
  command = plan

  variables {
    recovery_days = 3
  }

  expect_failures = [var.recovery_days]
}
