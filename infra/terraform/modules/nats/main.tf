# Not a group that scales: the identity of a server, its volume and its routes have to stay.
resource "aws_instance" "this" {
  for_each = var.nodes

  ami                         = var.ami_id
  instance_type               = var.instance_type
  subnet_id                   = each.value.subnet_id
  private_ip                  = each.value.private_ip
  associate_public_ip_address = false
  vpc_security_group_ids      = [var.security_group_id]
  iam_instance_profile        = var.instance_profile
  user_data_base64            = each.value.user_data_base64
  disable_api_termination     = var.termination_protection
  monitoring                  = var.detailed_monitoring
  ebs_optimized               = true

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    encrypted   = true
    kms_key_id  = var.kms_key_arn
    volume_type = "gp3"
    volume_size = 20
  }

  tags = {
    Name = "${var.name}-${each.key}"
    Role = "nats"
  }

  lifecycle {
    # A new image or new user data replaces a server: a person does it, one after the other, with
    # `terraform apply -replace`, and waits each time until the streams have caught up.
    ignore_changes = [ami, user_data_base64]
  }
}

resource "aws_ebs_volume" "streams" {
  #checkov:skip=CKV2_AWS_9:the plan of the module backup selects volumes by their tag Backup
  for_each = var.nodes

  availability_zone = each.value.zone
  type              = "gp3"
  size              = var.volume.size
  iops              = var.volume.iops
  throughput        = var.volume.throughput
  encrypted         = true
  kms_key_id        = var.kms_key_arn
  final_snapshot    = var.termination_protection

  tags = {
    Name         = "${var.name}-${each.key}-streams"
    Backup       = var.name
    BackupHourly = var.name
  }
}

resource "aws_volume_attachment" "streams" {
  for_each = var.nodes

  device_name                    = "/dev/sdf"
  instance_id                    = aws_instance.this[each.key].id
  volume_id                      = aws_ebs_volume.streams[each.key].id
  stop_instance_before_detaching = true
}

resource "aws_route53_zone" "this" {
  #checkov:skip=CKV2_AWS_38:DNSSEC is not there for private zones
  #checkov:skip=CKV2_AWS_39:query logs of a private zone would list our own instances
  name    = var.domain
  comment = "Names of ${var.name}, inside its VPC"

  vpc {
    vpc_id     = var.vpc_id
    vpc_region = var.region
  }
}

resource "aws_route53_record" "node" {
  for_each = var.nodes

  zone_id = aws_route53_zone.this.zone_id
  name    = "${each.key}.${var.domain}"
  type    = "A"
  ttl     = 60
  records = [aws_instance.this[each.key].private_ip]
}

resource "aws_route53_record" "all" {
  zone_id = aws_route53_zone.this.zone_id
  name    = "nats.${var.domain}"
  type    = "A"
  ttl     = 60
  records = [for server in values(aws_instance.this) : server.private_ip]
}
