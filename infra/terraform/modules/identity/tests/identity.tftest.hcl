mock_provider "aws" {
  source = "../../tests/mocks/aws"
}

variables {
  name        = "livefeed-test"
  region      = "eu-west-1"
  kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000"
  tiers = {
    gateway = {
      secrets            = ["arn:aws:secretsmanager:eu-west-1:123456789012:secret:gateway"]
      autoscaling_groups = ["livefeed-test-gateway"]
      metric_namespaces  = ["livefeed/livefeed-test"]
      log_group          = "/livefeed-test/gateway"
    }
    nats = {
      secrets           = ["arn:aws:secretsmanager:eu-west-1:123456789012:secret:nats"]
      metric_namespaces = ["livefeed/livefeed-test"]
      log_group         = "/livefeed-test/nats"
    }
  }
}

run "each_tier_has_its_own_role" {
  command = plan

  assert {
    condition     = toset(keys(aws_iam_role.tier)) == toset(["gateway", "nats"]) && aws_iam_instance_profile.tier["gateway"].name == "livefeed-test-gateway"
    error_message = "There is a role, and a profile of its name, for each tier."
  }

  assert {
    condition     = [for one in data.aws_iam_policy_document.tier["gateway"].statement : one.resources if one.sid == "Secrets"][0] == toset(var.tiers.gateway.secrets)
    error_message = "A tier reads its own secrets, and no other's."
  }

  assert {
    condition     = [for one in data.aws_iam_policy_document.tier["gateway"].statement : one.resources if one.sid == "Lifecycle"][0] == toset(["arn:aws:autoscaling:eu-west-1:123456789012:autoScalingGroup:*:autoScalingGroupName/livefeed-test-gateway"])
    error_message = "It completes the ends of its own group alone."
  }

  assert {
    condition     = length([for one in data.aws_iam_policy_document.tier["nats"].statement : one if one.sid == "Lifecycle"]) == 0
    error_message = "Where there is no group there is no end to complete."
  }

  assert {
    condition = alltrue(flatten([
      for tier in data.aws_iam_policy_document.tier : [
        for one in tier.statement : one.sid == "Metrics" ? length(one.condition) == 1 : !contains(one.resources, "*")
      ]
    ]))
    error_message = "Nothing is allowed on everything; metrics are bound to their namespace."
  }
}

run "images_of_ecr_are_allowed_where_they_are_named" {
  command = plan

  variables {
    repository_arns = ["arn:aws:ecr:eu-west-1:123456789012:repository/livefeed"]
  }

  assert {
    condition     = [for one in data.aws_iam_policy_document.tier["nats"].statement : one.resources if one.sid == "Images"][0] == toset(var.repository_arns)
    error_message = "Images are pulled from the repositories that are named."
  }
}
