output "arns" {
  description = "ARNs of the secrets by name: database, nats/tls, and nats/ROLE."
  value       = { for name, secret in aws_secretsmanager_secret.given : name => secret.arn }
}
