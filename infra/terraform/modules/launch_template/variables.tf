variable "group" {
  description = "Name of the autoscaling group, which its instances have as theirs."
  type        = string
}

variable "role" {
  description = "What the instances are, as their tag Role says."
  type        = string
}

variable "description" {
  description = "What an instance is, in a few words."
  type        = string
}

variable "instance_type" {
  description = "Type of an instance where the group does not say another one."
  type        = string
}

variable "security_group_id" {
  description = "Id of the instances' security group."
  type        = string
}

variable "ami_id" {
  description = "Image of the instances: Amazon Linux 2023, of the architecture of their types."
  type        = string
}

variable "instance_profile" {
  description = "Name of the instance profile."
  type        = string
}

variable "user_data_base64" {
  description = "Compressed user data of the instances, in base64."
  type        = string
}

variable "kms_key_arn" {
  description = "Key that disks are encrypted with."
  type        = string
}
