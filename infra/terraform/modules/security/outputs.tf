output "kms_key_arn" {
  description = "ARN of the key that everything is encrypted with."
  value       = aws_kms_key.this.arn
}

output "security_group_ids" {
  description = "Ids of the security groups by part: balancer, gateway, workers, nats, postgres, redis."
  value       = { for name, group in aws_security_group.this : name => group.id }
}
