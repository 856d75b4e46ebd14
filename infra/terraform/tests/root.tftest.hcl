mock_provider "aws" {
  source = "./tests/mocks/aws"
}

variables {
  name                = "livefeed-test"
  region              = "eu-west-1"
  image               = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/livefeed@sha256:0"
  repository_arns     = ["arn:aws:ecr:eu-west-1:123456789012:repository/livefeed"]
  access              = { jwks_url = "https://login.example.com/keys" }
  nats_ca_certificate = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"
  nats_public_keys = {
    publisher = "UCEDLZW4DOSVWUZDWJWYHQJA5ZZDD3GBWRADIO6WD34EVDY3IFQY6HOP"
    observer  = "UBQRUYDRBTP4RFZJRFGRRZQDJL6SDSPJQ5ZAZFRE7XV5VZ4RMDQJLOQA"
    gateway   = "UAIZW2HZTRX5ILCRRNX4NSMTRTP24U5GRSKLI3MD7OXD75NSGYKU7WUQ"
    worker    = "UA632U7BZUWT4P6BTIVWWO2ZMVVFIEHBKIUMVZ7SH3XDYBCGRZL7VTV4"
    admin     = "UA2BC7TE5MP62LXPVQ6Z4YLSL6EECXKZZHGVJW2BOP27KMSSUPCQGGAW"
  }
  # One role's key is being changed.
  nats_previous_public_keys = { gateway = "UBNEHTEWAB2GXQ2BMKYHI3GJPCMINWXRGJ6TVJANCYRQSF7SP6LY26HI" }
}

run "the_defaults_hold_together" {
  command = apply

  assert {
    condition     = length(split(",", output.nats_url)) == 3 && startswith(output.nats_url, "tls://")
    error_message = "There are three NATS servers, and TLS on the way to each."
  }

  assert {
    condition     = output.autoscaling_groups.gateway == "livefeed-test-gateway"
    error_message = "Groups are named after the deployment."
  }
}

run "a_role_without_a_key_is_refused" {
  command = plan

  variables {
    nats_public_keys = { publisher = "UCEDLZW4DOSVWUZDWJWYHQJA5ZZDD3GBWRADIO6WD34EVDY3IFQY6HOP" }
  }

  expect_failures = [var.nats_public_keys]
}

run "a_previous_key_of_nobody_is_refused" {
  command = plan

  variables {
    nats_previous_public_keys = { somebody = "UBNEHTEWAB2GXQ2BMKYHI3GJPCMINWXRGJ6TVJANCYRQSF7SP6LY26HI" }
  }

  expect_failures = [var.nats_previous_public_keys]
}

run "keys_of_tokens_over_http_are_refused" {
  command = plan

  variables {
    access = { jwks_url = "http://login.example.com/keys" }
  }

  expect_failures = [var.access]
}

run "a_private_key_for_a_certificate_is_refused" {
  command = plan

  variables {
    nats_ca_certificate = "-----BEGIN PRIVATE KEY-----\n"
  }

  expect_failures = [var.nats_ca_certificate]
}

run "an_image_in_ecr_that_may_not_be_pulled_is_refused" {
  command = plan

  variables {
    repository_arns = []
  }

  expect_failures = [var.repository_arns]
}

run "more_pools_than_connections_are_refused" {
  command = plan

  variables {
    gateway = { processes = 8 }
  }

  expect_failures = [output.database_host]
}

run "smaller_pools_are_counted" {
  command = plan

  variables {
    gateway = { processes = 8, settings = { LIVEFEED_DATABASE_POOL_CONNECTIONS = "1" } }
  }

  assert {
    condition     = local.database_connections == 20 * 8 * (1 + 1) + 20 * (4 + 2) * 8
    error_message = "Each process of a gateway has its pool and a look at the primary; workers have theirs."
  }
}

run "groups_scale_by_what_a_gateway_takes" {
  command = plan

  variables {
    gateway = { settings = { LIVEFEED_CONNECTIONS_MAX = "1000" } }
  }

  assert {
    condition     = local.connections_wanted == 1400
    error_message = "Seven tenths of what its two processes take, as its settings say."
  }
}

run "a_setting_that_is_computed_is_refused" {
  command = plan

  variables {
    gateway = { settings = { LIVEFEED_DRAIN_SECONDS = "300" } }
  }

  expect_failures = [var.gateway]
}

run "a_setting_of_the_agent_is_refused" {
  command = plan

  variables {
    workers = { settings = { LIVEFEED_NODE_DEADLINE_SECONDS = "300" } }
  }

  expect_failures = [var.workers]
}
