data "aws_caller_identity" "this" {}

locals {
  arn = "${var.region}:${data.aws_caller_identity.this.account_id}"
}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "tier" {
  #checkov:skip=CKV_AWS_356:PutMetricData, GetAuthorizationToken and the Describe calls know no resources; the first is bound to its namespaces
  #checkov:skip=CKV_AWS_111:as above: what can be bound to a resource is
  for_each = var.tiers

  statement {
    sid       = "Secrets"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = each.value.secrets
  }

  statement {
    sid       = "Key"
    actions   = ["kms:Decrypt"]
    resources = [var.kms_key_arn]

    # The key is everything's; an instance opens with it what Secrets Manager gives it, no more.
    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["secretsmanager.${var.region}.amazonaws.com"]
    }
  }

  statement {
    sid       = "Logs"
    actions   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    resources = ["arn:aws:logs:${local.arn}:log-group:${each.value.log_group}:*"]
  }

  statement {
    sid       = "Metrics"
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = each.value.metric_namespaces
    }
  }

  dynamic "statement" {
    for_each = length(each.value.autoscaling_groups) > 0 ? [1] : []

    content {
      sid     = "Lifecycle"
      actions = ["autoscaling:CompleteLifecycleAction", "autoscaling:RecordLifecycleActionHeartbeat"]
      resources = [
        for group in each.value.autoscaling_groups :
        "arn:aws:autoscaling:${local.arn}:autoScalingGroup:*:autoScalingGroupName/${group}"
      ]
    }
  }

  dynamic "statement" {
    for_each = length(var.repository_arns) > 0 ? [1] : []

    content {
      sid = "Images"
      actions = [
        "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer",
      ]
      resources = var.repository_arns
    }
  }

  dynamic "statement" {
    for_each = length(var.repository_arns) > 0 ? [1] : []

    content {
      sid       = "ImagesLogin"
      actions   = ["ecr:GetAuthorizationToken"]
      resources = ["*"]
    }
  }
}

resource "aws_iam_role" "tier" {
  for_each = var.tiers

  name               = "${var.name}-${each.key}"
  description        = "Instances of ${var.name}: ${each.key}"
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

resource "aws_iam_role_policy" "tier" {
  for_each = var.tiers

  name   = "livefeed"
  role   = aws_iam_role.tier[each.key].id
  policy = data.aws_iam_policy_document.tier[each.key].json
}

# Sessions of a person, in the place of ssh: no port is open for it, and each is in CloudTrail.
resource "aws_iam_role_policy_attachment" "session" {
  for_each = var.tiers

  role       = aws_iam_role.tier[each.key].name
  policy_arn = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

resource "aws_iam_instance_profile" "tier" {
  for_each = var.tiers

  name = "${var.name}-${each.key}"
  role = aws_iam_role.tier[each.key].name
}
