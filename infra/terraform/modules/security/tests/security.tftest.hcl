mock_provider "aws" {
  source = "../../tests/mocks/aws"
}

variables {
  name   = "livefeed-test"
  region = "eu-west-1"
  vpc_id = "vpc-0123456789abcdef0"
  ports  = { gateway = 8080, ops = 8081, nats = 4222, nats_routes = 6222, postgres = 5432, redis = 6379 }
}

run "each_way_has_two_ends" {
  command = plan

  assert {
    condition     = toset(keys(aws_vpc_security_group_ingress_rule.inner)) == toset(keys(aws_vpc_security_group_egress_rule.inner))
    error_message = "What may come in somewhere may go out where it comes from."
  }

  assert {
    condition = alltrue([
      for name, rule in aws_vpc_security_group_ingress_rule.inner : rule.from_port == rule.to_port && rule.ip_protocol == "tcp" && rule.description != ""
    ])
    error_message = "A rule opens one port, and says why."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.inner["balancer-ops"].from_port == 8081
    error_message = "Health is asked for on the ops port."
  }

  assert {
    condition     = aws_kms_key.this.enable_key_rotation
    error_message = "The key is rotated."
  }
}

run "only_the_balancer_is_open" {
  command = plan

  assert {
    condition     = toset([for rule in aws_vpc_security_group_ingress_rule.clients : rule.from_port]) == toset([80, 443])
    error_message = "Clients come on 443, and on 80 to be sent there."
  }
}

run "on_trial_there_is_no_https" {
  command = plan

  variables {
    plain_http   = true
    client_cidrs = ["192.0.2.0/24"]
  }

  assert {
    condition     = [for rule in aws_vpc_security_group_ingress_rule.clients : "${rule.from_port} ${rule.cidr_ipv4}"] == ["80 192.0.2.0/24"]
    error_message = "Only 80 is open, to whoever was named."
  }
}

run "publishers_reach_nats" {
  command = apply

  variables {
    publisher_security_groups = { posts = "sg-0123456789abcdef0" }
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.publishers["posts"].from_port == 4222 && aws_vpc_security_group_ingress_rule.publishers["posts"].referenced_security_group_id == "sg-0123456789abcdef0"
    error_message = "A publisher's group may connect to NATS."
  }
}
