resource "aws_lb" "this" {
  #checkov:skip=CKV_AWS_91:access logs are written where access_logs_bucket names one; the root module always does, but in a trial
  #checkov:skip=CKV2_AWS_76:the rules of a web ACL are of whoever names one; nothing here is Java
  #checkov:skip=CKV2_AWS_28:a web ACL is attached where web_acl_arn names one; the gateway bounds rate, size and connections itself
  #checkov:skip=CKV2_AWS_20:80 redirects to https, but in a trial without a certificate
  #checkov:skip=CKV_AWS_150:deletion_protection is on, but in a trial
  name                       = local.short
  load_balancer_type         = "application"
  internal                   = false
  subnets                    = var.balancer_subnet_ids
  security_groups            = [var.balancer_security_group_id]
  idle_timeout               = var.idle_timeout
  drop_invalid_header_fields = true
  enable_deletion_protection = var.deletion_protection

  dynamic "access_logs" {
    for_each = var.access_logs_bucket[*]

    content {
      bucket  = access_logs.value
      prefix  = "balancer"
      enabled = true
    }
  }
}

resource "aws_lb_target_group" "this" {
  #checkov:skip=CKV_AWS_378:TLS ends at the balancer; what is behind it is in private subnets, and only the balancer may connect
  name                          = local.short
  vpc_id                        = var.vpc_id
  port                          = var.ports.gateway
  protocol                      = "HTTP"
  target_type                   = "instance"
  load_balancing_algorithm_type = "least_outstanding_requests"
  # It ends as soon as the gateway has sent its last client away; this is only the bound.
  deregistration_delay = 300

  health_check {
    protocol            = "HTTP"
    port                = tostring(var.ports.ops)
    path                = var.health_path
    matcher             = "200"
    interval            = var.health_check.interval
    timeout             = var.health_check.timeout
    unhealthy_threshold = var.health_check.unhealthy
    healthy_threshold   = var.health_check.healthy
  }

  # Every gateway can serve every client, so none is kept at one.
  stickiness {
    type    = "lb_cookie"
    enabled = false
  }
}

resource "aws_lb_listener" "https" {
  count = var.certificate_arn == null ? 0 : 1

  load_balancer_arn = aws_lb.this.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.certificate_arn

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this.arn
  }
}

resource "aws_lb_listener" "http" {
  #checkov:skip=CKV_AWS_2:it redirects to https, but in a trial without a certificate
  #checkov:skip=CKV_AWS_103:it redirects to https, but in a trial without a certificate
  load_balancer_arn = aws_lb.this.arn
  port              = 80
  protocol          = "HTTP"

  default_action {
    type             = var.certificate_arn == null ? "forward" : "redirect"
    target_group_arn = var.certificate_arn == null ? aws_lb_target_group.this.arn : null

    dynamic "redirect" {
      for_each = var.certificate_arn[*]

      content {
        port        = "443"
        protocol    = "HTTPS"
        status_code = "HTTP_301"
      }
    }
  }
}

resource "aws_wafv2_web_acl_association" "this" {
  count = var.web_acl_arn == null ? 0 : 1

  resource_arn = aws_lb.this.arn
  web_acl_arn  = var.web_acl_arn
}
