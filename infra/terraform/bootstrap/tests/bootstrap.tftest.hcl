mock_provider "aws" {
  source = "../tests/mocks/aws"
}

# Nothing is applied: the bucket is protected, also from the end of a test.
override_resource {
  target          = aws_s3_bucket.state
  override_during = plan
  values          = { arn = "arn:aws:s3:::livefeed-terraform-123456789012", id = "livefeed-terraform-123456789012" }
}

override_resource {
  target          = aws_iam_openid_connect_provider.github
  override_during = plan
  values          = { arn = "arn:aws:iam::123456789012:oidc-provider/mock" }
}

override_resource {
  target          = aws_kms_key.state
  override_during = plan
  values          = { arn = "arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000", key_id = "00000000-0000-0000-0000-000000000000" }
}

variables {
  region     = "eu-west-1"
  repository = "example/livefeed"
}

run "workflows_are_who_they_say" {
  command = plan

  assert {
    condition = toset(flatten([
      for one in data.aws_iam_policy_document.trust["plan"].statement[0].condition : one.values if endswith(one.variable, ":sub")
    ])) == toset(["repo:example/livefeed:pull_request", "repo:example/livefeed:ref:refs/heads/main"])
    error_message = "Pull requests and the main branch plan."
  }

  assert {
    condition = toset(flatten([
      for one in data.aws_iam_policy_document.trust["apply"].statement[0].condition : one.values if endswith(one.variable, ":sub")
    ])) == toset(["repo:example/livefeed:environment:staging", "repo:example/livefeed:environment:prod"])
    error_message = "Only jobs of an environment, which has reviewers, apply."
  }

  assert {
    condition = alltrue(flatten([
      for trust in data.aws_iam_policy_document.trust : [for one in trust.statement[0].condition : one.test == "StringEquals"]
    ]))
    error_message = "Nobody is let in by a pattern."
  }
}

run "who_plans_writes_nothing" {
  command = plan

  assert {
    condition = toset(flatten([
      for one in data.aws_iam_policy_document.backend["plan"].statement : one.actions
    ])) == toset(["s3:ListBucket", "s3:GetObject", "kms:Decrypt"])
    error_message = "It writes nothing into the bucket, no lock either."
  }

  assert {
    condition = toset(flatten([
      for one in data.aws_iam_policy_document.backend["apply"].statement : one.resources if contains(one.actions, "s3:PutObject")
    ])) == toset(["arn:aws:s3:::livefeed-terraform-123456789012/*.tflock", "arn:aws:s3:::livefeed-terraform-123456789012/*.tfstate"])
    error_message = "Who applies takes the lock, and writes the state."
  }

  assert {
    condition     = toset(data.aws_iam_policy_document.no_secrets.statement[0].actions) == toset(["secretsmanager:GetSecretValue", "ssm:GetParameter*"]) && data.aws_iam_policy_document.no_secrets.statement[0].effect == "Deny"
    error_message = "It reads no secret's value."
  }
}

run "who_plans_reads_the_parameters_of_deployments_alone" {
  command = plan

  variables {
    deployments = ["feed-prod", "feed-trial"]
  }

  assert {
    condition = toset(flatten([for one in data.aws_iam_policy_document.no_secrets.statement[0].condition : one.values])) == toset([
      "arn:aws:ssm:*::parameter/aws/service/*",
      "arn:aws:ssm:*:*:parameter/feed-prod/*",
      "arn:aws:ssm:*:*:parameter/feed-trial/*",
    ])
    error_message = "Parameters of deployments that are named are read, and nobody else's."
  }
}

run "a_pattern_for_a_deployment_is_refused" {
  command = plan

  variables {
    deployments = ["*"]
  }

  expect_failures = [var.deployments]
}

run "states_are_kept" {
  command = plan

  assert {
    condition     = aws_s3_bucket_versioning.state.versioning_configuration[0].status == "Enabled" && aws_s3_bucket_public_access_block.state.restrict_public_buckets
    error_message = "Each version of a state is kept, and none is public."
  }
}

run "a_pattern_for_a_repository_is_refused" {
  command = plan

  variables {
    repository = "example/*"
  }

  expect_failures = [var.repository]
}
