output "launch_template" {
  description = "Id and newest version of the template, as a group takes them."
  value       = { id = aws_launch_template.this.id, version = aws_launch_template.this.latest_version }
}
