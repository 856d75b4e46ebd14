output "vault_arn" {
  description = "ARN of the vault with the recovery points."
  value       = aws_backup_vault.this.arn
}
