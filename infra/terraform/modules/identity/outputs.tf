output "instance_profiles" {
  description = "Names of the instance profiles by kind of instance."
  value       = { for tier, profile in aws_iam_instance_profile.tier : tier => profile.name }
}
