# The balancer's access logs. Balancers write with S3's own key only.
resource "aws_s3_bucket" "access" {
  #checkov:skip=CKV_AWS_144:access logs are not copied to another region
  #checkov:skip=CKV2_AWS_62:nobody waits for a new file of logs
  #checkov:skip=CKV_AWS_145:balancers can write to buckets with S3's own key alone
  #checkov:skip=CKV_AWS_18:it is where access logs go
  #checkov:skip=CKV_AWS_21:a file of logs is written once
  count = var.access_logs ? 1 : 0

  bucket_prefix = "${var.name}-access-"
  force_destroy = true
}

resource "aws_s3_bucket_public_access_block" "access" {
  count = var.access_logs ? 1 : 0

  bucket                  = aws_s3_bucket.access[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "access" {
  count = var.access_logs ? 1 : 0

  bucket = aws_s3_bucket.access[0].id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "access" {
  count = var.access_logs ? 1 : 0

  bucket = aws_s3_bucket.access[0].id

  rule {
    id     = "forget"
    status = "Enabled"

    filter {}

    expiration {
      days = var.log_days
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

data "aws_iam_policy_document" "access" {
  count = var.access_logs ? 1 : 0

  statement {
    sid       = "Balancer"
    actions   = ["s3:PutObject"]
    resources = ["${aws_s3_bucket.access[0].arn}/balancer/*"]

    principals {
      type        = "Service"
      identifiers = ["logdelivery.elasticloadbalancing.amazonaws.com"]
    }
  }

  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.access[0].arn, "${aws_s3_bucket.access[0].arn}/*"]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "access" {
  count = var.access_logs ? 1 : 0

  bucket = aws_s3_bucket.access[0].id
  policy = data.aws_iam_policy_document.access[0].json

  depends_on = [aws_s3_bucket_public_access_block.access]
}
