resource "aws_launch_template" "this" {
  name_prefix            = "${var.group}-"
  description            = var.description
  image_id               = var.ami_id
  instance_type          = var.instance_type
  user_data              = var.user_data_base64
  vpc_security_group_ids = [var.security_group_id]
  update_default_version = true
  ebs_optimized          = true

  iam_instance_profile {
    name = var.instance_profile
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  monitoring {
    enabled = true
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      encrypted             = true
      kms_key_id            = var.kms_key_arn
      volume_type           = "gp3"
      volume_size           = 20
      delete_on_termination = true
    }
  }

  tag_specifications {
    resource_type = "instance"

    tags = {
      Name = var.group
      Role = var.role
    }
  }

  lifecycle {
    create_before_destroy = true
  }
}
