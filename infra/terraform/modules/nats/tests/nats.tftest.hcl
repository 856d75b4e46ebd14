mock_provider "aws" {
  source = "../../tests/mocks/aws"
}

variables {
  name              = "livefeed-test"
  region            = "eu-west-1"
  vpc_id            = "vpc-0123456789abcdef0"
  domain            = "livefeed.internal"
  ami_id            = "ami-0123456789abcdef0"
  instance_profile  = "livefeed-test-nats"
  security_group_id = "sg-0123456789abcdef0"
  kms_key_arn       = "arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000"
  alarm_topic_arn   = "arn:aws:sns:eu-west-1:123456789012:alarms"
  metrics_namespace = "livefeed-test"
  nodes = {
    nats-1 = { zone = "eu-west-1a", subnet_id = "subnet-1", private_ip = "10.20.128.10", user_data_base64 = "IyE=" }
    nats-2 = { zone = "eu-west-1b", subnet_id = "subnet-2", private_ip = "10.20.144.10", user_data_base64 = "IyE=" }
    nats-3 = { zone = "eu-west-1c", subnet_id = "subnet-3", private_ip = "10.20.160.10", user_data_base64 = "IyE=" }
  }
}

run "three_servers_keep_their_places" {
  command = apply

  assert {
    condition     = length(aws_instance.this) == 3 && aws_instance.this["nats-2"].private_ip == "10.20.144.10"
    error_message = "Each of three servers has its fixed address."
  }

  assert {
    condition     = alltrue([for one in aws_instance.this : one.metadata_options[0].http_tokens == "required" && one.root_block_device[0].encrypted])
    error_message = "Only IMDSv2 answers, and disks are encrypted."
  }

  assert {
    condition     = alltrue([for name, one in aws_ebs_volume.streams : one.encrypted && one.final_snapshot && one.availability_zone == var.nodes[name].zone && one.tags.Backup == var.name])
    error_message = "Streams are on volumes of their own, encrypted, in the server's zone, and backed up."
  }

  assert {
    condition     = toset(aws_route53_record.all.records) == toset(["10.20.128.10", "10.20.144.10", "10.20.160.10"])
    error_message = "One name is all of them."
  }

  assert {
    condition     = alltrue([for one in aws_cloudwatch_metric_alarm.recover : contains(one.alarm_actions, "arn:aws:automate:eu-west-1:ec2:recover")])
    error_message = "On broken hardware a server is started on other hardware."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.disk.threshold == 80 && aws_cloudwatch_metric_alarm.disk.treat_missing_data == "breaching"
    error_message = "People are told of a disk that fills, and of one of which nothing is known."
  }
}

run "a_full_disk_is_too_late" {
  command = plan

  variables {
    disk_used_percent_max = 100
  }

  expect_failures = [var.disk_used_percent_max]
}

run "two_zones_are_not_enough" {
  command = plan

  variables {
    nodes = {
      nats-1 = { zone = "eu-west-1a", subnet_id = "subnet-1", private_ip = "10.20.128.10", user_data_base64 = "IyE=" }
      nats-2 = { zone = "eu-west-1b", subnet_id = "subnet-2", private_ip = "10.20.144.10", user_data_base64 = "IyE=" }
      nats-3 = { zone = "eu-west-1b", subnet_id = "subnet-2", private_ip = "10.20.144.11", user_data_base64 = "IyE=" }
    }
  }

  expect_failures = [var.nodes]
}
