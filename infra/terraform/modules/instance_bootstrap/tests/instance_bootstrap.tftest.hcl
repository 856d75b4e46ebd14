variables {
  name                = "livefeed-test"
  role                = "gateway"
  region              = "eu-west-1"
  image               = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/livefeed@sha256:0"
  collector_image     = "collector:1"
  log_group           = "/livefeed-test/gateway"
  metrics_namespace   = "livefeed/livefeed-test"
  nkey_seed_secret    = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:gateway"
  nats_ca_certificate = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"
  environment         = { LIVEFEED_GATEWAY_PORT = "8080" }
  node_agent          = { LIVEFEED_NODE_ROLE = "gateway" }
}

run "what_a_gateway_gets" {
  command = plan

  assert {
    condition     = contains(keys(output.files), "/etc/systemd/system/livefeed-gateway.service") && !contains(keys(output.files), "/etc/livefeed/nats.conf")
    error_message = "A gateway has its unit, and no NATS server."
  }

  assert {
    condition     = strcontains(output.files["/etc/livefeed/livefeed.env"], "LIVEFEED_GATEWAY_PORT=8080\n")
    error_message = "Settings are one a line."
  }
}

run "workers_run_the_pool" {
  command = plan

  variables {
    role = "workers"
  }

  assert {
    condition     = strcontains(output.files["/etc/systemd/system/livefeed-pool.service"], "ExecStart=/usr/local/bin/livefeed pool\n")
    error_message = "Workers are started by the pool."
  }
}

run "a_secret_in_user_data_is_refused" {
  command = plan

  variables {
    environment = { LIVEFEED_DATABASE_URL = "postgresql://somebody:secret@host/livefeed" }
  }

  expect_failures = [var.environment]
}

run "a_setting_of_two_lines_is_refused" {
  command = plan

  variables {
    environment = { LIVEFEED_JWT_PUBLIC_KEY = "one\ntwo" }
  }

  expect_failures = [var.environment]
}

run "a_setting_of_somebody_else_is_refused" {
  command = plan

  variables {
    environment = { PATH = "/nowhere" }
  }

  expect_failures = [var.environment]
}

run "an_unknown_role_is_refused" {
  command = plan

  variables {
    role = "database"
  }

  expect_failures = [var.role]
}

run "nats_without_its_server_is_refused" {
  command = plan

  variables {
    role = "nats"
  }

  expect_failures = [output.user_data_base64]
}

run "a_key_that_is_there_twice_is_refused" {
  command = plan

  variables {
    role = "nats"
    nats_server = {
      name                 = "nats-1"
      zone                 = "eu-west-1a"
      cluster              = "livefeed-test"
      routes               = ["nats-1.livefeed.internal"]
      tls_secret           = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:tls"
      public_keys          = { gateway = "UAIZW2HZTRX5ILCRRNX4NSMTRTP24U5GRSKLI3MD7OXD75NSGYKU7WUQ" }
      previous_public_keys = { gateway = "UAIZW2HZTRX5ILCRRNX4NSMTRTP24U5GRSKLI3MD7OXD75NSGYKU7WUQ" }
      file_bytes_max       = 1
      memory_bytes         = 1
      payload_bytes        = 1
      client_port          = 4222
      streams_max          = 1
      consumers_max        = 1
      roles                = [{ name = "gateway", publish = ["a"], subscribe = ["b"] }]
    }
  }

  expect_failures = [var.nats_server]
}
