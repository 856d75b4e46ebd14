mock_provider "aws" {
  source = "../../tests/mocks/aws"
}

variables {
  name   = "livefeed-test"
  region = "eu-west-1"
  zones  = ["eu-west-1a", "eu-west-1b", "eu-west-1c"]
}

run "nine_subnets_in_three_zones" {
  command = apply

  assert {
    condition     = length(aws_subnet.this) == 9 && length(distinct([for one in aws_subnet.this : one.availability_zone])) == 3
    error_message = "There are three tiers in each of three zones."
  }

  assert {
    condition     = length(distinct([for one in aws_subnet.this : one.cidr_block])) == 9
    error_message = "No two subnets share addresses."
  }

  assert {
    condition     = alltrue([for one in aws_subnet.this : !coalesce(one.map_public_ip_on_launch, false)])
    error_message = "Nothing has a public address by itself."
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 3
    error_message = "Each zone has its own way out: the loss of one cuts off no other."
  }
}

run "one_nat_gateway_serves_all_zones" {
  command = apply

  variables {
    nat_gateways  = 1
    flow_log_days = null
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 1 && length(distinct([for one in aws_route.private : one.nat_gateway_id])) == 1
    error_message = "All private subnets go out through the one."
  }

  assert {
    condition     = length(aws_flow_log.this) == 0
    error_message = "There are no flow logs where none are wanted."
  }
}

run "zones_are_three_and_differ" {
  command = plan

  variables {
    zones = ["eu-west-1a", "eu-west-1a", "eu-west-1b"]
  }

  expect_failures = [var.zones]
}

run "a_small_network_is_refused" {
  command = plan

  variables {
    cidr = "10.0.0.0/24"
  }

  expect_failures = [var.cidr]
}

run "two_nat_gateways_are_refused" {
  command = plan

  variables {
    nat_gateways = 2
  }

  expect_failures = [var.nat_gateways]
}
