resource "aws_iam_openid_connect_provider" "github" {
  url            = "https://token.actions.githubusercontent.com"
  client_id_list = ["sts.amazonaws.com"]
}

locals {
  # A job that names an environment has that as its subject, and not its branch.
  subjects = {
    plan  = ["repo:${var.repository}:pull_request", "repo:${var.repository}:ref:refs/heads/main"]
    apply = [for environment in var.environments : "repo:${var.repository}:environment:${environment}"]
  }
}

data "aws_iam_policy_document" "trust" {
  for_each = local.subjects

  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]

    principals {
      type        = "Federated"
      identifiers = [aws_iam_openid_connect_provider.github.arn]
    }

    condition {
      test     = "StringEquals"
      variable = "token.actions.githubusercontent.com:aud"
      values   = ["sts.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "token.actions.githubusercontent.com:sub"
      values   = each.value
    }
  }
}

resource "aws_iam_role" "this" {
  for_each = local.subjects

  name                 = "${var.name}-terraform-${each.key}"
  description          = "Workflows of ${var.repository}: ${each.key}"
  assume_role_policy   = data.aws_iam_policy_document.trust[each.key].json
  permissions_boundary = var.permissions_boundary_arn
  max_session_duration = 3600
}

data "aws_iam_policy_document" "backend" {
  for_each = local.subjects

  statement {
    sid       = "List"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.state.arn]
  }

  statement {
    sid       = "Read"
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.state.arn}/*"]
  }

  # Who plans takes no lock: a run that is cancelled would leave it there.
  dynamic "statement" {
    for_each = each.key == "apply" ? [1] : []

    content {
      sid       = "Lock"
      actions   = ["s3:PutObject", "s3:DeleteObject"]
      resources = ["${aws_s3_bucket.state.arn}/*.tflock"]
    }
  }

  dynamic "statement" {
    for_each = each.key == "apply" ? [1] : []

    content {
      sid       = "Write"
      actions   = ["s3:PutObject"]
      resources = ["${aws_s3_bucket.state.arn}/*.tfstate"]
    }
  }

  statement {
    sid       = "Key"
    actions   = each.key == "apply" ? ["kms:Decrypt", "kms:GenerateDataKey"] : ["kms:Decrypt"]
    resources = [aws_kms_key.state.arn]
  }
}

resource "aws_iam_role_policy" "backend" {
  for_each = local.subjects

  name   = "state"
  role   = aws_iam_role.this[each.key].id
  policy = data.aws_iam_policy_document.backend[each.key].json
}

# A plan reads what is there, and may read no secret's value.
resource "aws_iam_role_policy_attachment" "plan" {
  role       = aws_iam_role.this["plan"].name
  policy_arn = "arn:aws:iam::aws:policy/ReadOnlyAccess"
}

data "aws_iam_policy_document" "no_secrets" {
  statement {
    effect    = "Deny"
    actions   = ["secretsmanager:GetSecretValue", "ssm:GetParameter*"]
    resources = ["*"]

    condition {
      test     = "ArnNotLike"
      variable = "aws:ResourceArn"
      # Public parameters, such as the newest image, and the deployments' own addresses.
      values = concat(
        ["arn:aws:ssm:*::parameter/aws/service/*"],
        [for name in var.deployments : "arn:aws:ssm:*:*:parameter/${name}/*"],
      )
    }
  }
}

resource "aws_iam_role_policy" "no_secrets" {
  name   = "no-secrets"
  role   = aws_iam_role.this["plan"].id
  policy = data.aws_iam_policy_document.no_secrets.json
}

resource "aws_iam_role_policy_attachment" "apply" {
  #checkov:skip=CKV_AWS_274:what applies makes roles and keys too; apply_policy_arns and permissions_boundary_arn narrow it, and its environments have reviewers
  for_each = var.apply_policy_arns

  role       = aws_iam_role.this["apply"].name
  policy_arn = each.key
}
