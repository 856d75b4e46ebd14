mock_provider "aws" {
  source = "../../tests/mocks/aws"
}

variables {
  group             = "livefeed-test-gateway"
  role              = "gateway"
  description       = "A gateway of livefeed-test"
  instance_type     = "c7g.large"
  security_group_id = "sg-0123456789abcdef1"
  ami_id            = "ami-0123456789abcdef0"
  instance_profile  = "livefeed-test-gateway"
  user_data_base64  = "IyE="
  kms_key_arn       = "arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000"
}

run "it_answers_its_own_instance_alone" {
  command = plan

  assert {
    condition     = aws_launch_template.this.metadata_options[0].http_tokens == "required" && aws_launch_template.this.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "Only IMDSv2 answers, and on the instance alone."
  }

  assert {
    condition     = tobool(aws_launch_template.this.block_device_mappings[0].ebs[0].encrypted) && aws_launch_template.this.block_device_mappings[0].ebs[0].kms_key_id == var.kms_key_arn
    error_message = "Its disk is encrypted with the key of the deployment."
  }
}

run "it_is_what_it_is_called" {
  command = apply

  assert {
    condition     = aws_launch_template.this.name_prefix == "livefeed-test-gateway-" && aws_launch_template.this.tag_specifications[0].tags == tomap({ Name = "livefeed-test-gateway", Role = "gateway" })
    error_message = "Instances have the name of their group, and say their role."
  }

  assert {
    condition     = output.launch_template == { id = aws_launch_template.this.id, version = aws_launch_template.this.latest_version }
    error_message = "A group takes the newest version."
  }
}
