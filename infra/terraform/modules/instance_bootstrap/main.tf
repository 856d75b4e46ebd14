locals {
  service = { gateway = "gateway", workers = "pool", nats = "nats" }[var.role]
  # Services of the instance, in the order in which they start.
  units = ["livefeed-secrets", "livefeed-${local.service}", "livefeed-node-agent", "livefeed-collector"]

  environment = merge(
    var.environment,
    { LIVEFEED_NATS_CA_FILE = "/etc/livefeed/nats-ca.pem" },
    # Which process it is that the agent tells to leave.
    { LIVEFEED_NODE_LOCK_FILE = "/run/livefeed-node/lock" },
    var.node_agent,
  )
  database = var.database == null ? null : merge(var.database, {
    ca_url = coalesce(
      var.database.ca_url,
      "https://truststore.pki.rds.amazonaws.com/${var.region}/${var.region}-bundle.pem",
    )
  })
  collector = { role = var.role, name = var.name, region = var.region, namespace = var.metrics_namespace }
  group     = lookup(var.node_agent, "LIVEFEED_NODE_AUTOSCALING_GROUP", "")

  files = merge(
    {
      "/etc/livefeed/livefeed.env" = {
        mode    = "0644"
        content = join("", [for name, text in local.environment : "${name}=${text}\n"])
      }
      "/etc/livefeed/nats-ca.pem" = {
        mode    = "0644"
        content = var.nats_ca_certificate
      }
      "/etc/livefeed/collector.yaml" = {
        mode    = "0644"
        content = templatefile("${path.module}/templates/collector.yaml.tftpl", merge(local.collector, { group = local.group, log_group = var.log_group }))
      }
      "/usr/local/bin/livefeed" = {
        mode = "0755"
        content = templatefile("${path.module}/templates/livefeed.sh.tftpl", {
          image     = var.image
          region    = var.region
          log_group = var.log_group
        })
      }
      "/usr/local/sbin/livefeed-secrets" = {
        mode = "0755"
        content = templatefile("${path.module}/templates/secrets.sh.tftpl", {
          region     = var.region
          nkey_seed  = var.nkey_seed_secret
          database   = local.database
          redis_host = var.redis_host
          tls        = var.nats_server == null ? null : var.nats_server.tls_secret
        })
      }
      "/usr/local/sbin/livefeed-bootstrap" = {
        mode = "0755"
        content = templatefile("${path.module}/templates/bootstrap.sh.tftpl", {
          region          = var.region
          image           = var.image
          collector_image = var.collector_image
          database        = local.database
          device          = var.nats_server == null ? null : var.nats_server.data_device
          units           = local.units
        })
      }
    },
    {
      for unit in concat(["livefeed-bootstrap"], local.units) : "/etc/systemd/system/${unit}.service" => {
        mode = "0644"
        content = templatefile("${path.module}/templates/${unit}.service.tftpl", {
          role            = var.role
          service         = local.service
          stop_seconds    = var.stop_seconds
          collector_image = var.collector_image
        })
      }
    },
    var.nats_server == null ? {} : {
      "/etc/livefeed/nats.conf" = {
        mode    = "0644"
        content = templatefile("${path.module}/templates/nats.conf.tftpl", var.nats_server)
      }
    },
  )

  # JSON is YAML, and has one way to write a text.
  user_data = join("\n", ["#cloud-config", jsonencode({
    write_files = [
      for path, file in local.files : { path = path, permissions = file.mode, content = file.content }
    ]
    # cloud-init runs this once and never again; the unit tries until it has succeeded.
    runcmd = [["systemctl", "enable", "--now", "--no-block", "livefeed-bootstrap.service"]]
  })])
}
