output "bucket" {
  description = "Bucket of the states; envs/*.backend.hcl name it."
  value       = aws_s3_bucket.state.bucket
}

output "kms_key_arn" {
  description = "ARN of the key of the states."
  value       = aws_kms_key.state.arn
}

output "plan_role_arn" {
  description = "Role of the workflow that plans: the repository's variable AWS_PLAN_ROLE_ARN."
  value       = aws_iam_role.this["plan"].arn
}

output "apply_role_arn" {
  description = "Role of the workflow that applies: the repository's variable AWS_APPLY_ROLE_ARN."
  value       = aws_iam_role.this["apply"].arn
}
