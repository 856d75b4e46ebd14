output "user_data_base64" {
  description = "User data of the instance: cloud-config, compressed, without any secret."
  value       = base64gzip(local.user_data)

  precondition {
    condition     = length(base64gzip(local.user_data)) <= 21848
    error_message = "User data must not have more than 16 KiB."
  }

  precondition {
    condition     = (var.role == "nats") == (var.nats_server != null)
    error_message = "The role nats needs nats_server, and no other role has one."
  }
}

output "files" {
  description = "Files that the user data writes: path to content."
  value       = { for path, file in local.files : path => file.content }
}
