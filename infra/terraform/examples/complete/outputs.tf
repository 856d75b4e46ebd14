output "livefeed" {
  description = "Everything that the deployment says of itself."
  value       = module.livefeed
}
