locals {
  watched = var.watched == null ? [] : [var.watched]

  charts = [
    for all in local.watched : [
      {
        title = "Clients: connections at the balancer (each counts twice)"
        metrics = [
          ["AWS/ApplicationELB", "ActiveConnectionCount", "LoadBalancer", all.balancer, { stat = "Sum" }],
          [".", "NewConnectionCount", ".", ".", { stat = "Sum" }],
        ]
      },
      {
        title = "Errors"
        metrics = [
          ["AWS/ApplicationELB", "HTTPCode_Target_5XX_Count", "LoadBalancer", all.balancer, { stat = "Sum" }],
          [".", "HTTPCode_ELB_5XX_Count", ".", ".", { stat = "Sum" }],
          [".", "RejectedConnectionCount", ".", ".", { stat = "Sum" }],
        ]
      },
      {
        title = "Instances"
        metrics = [
          for name, group in all.groups :
          ["AWS/AutoScaling", "GroupInServiceInstances", "AutoScalingGroupName", group, { label = name, stat = "Maximum" }]
        ]
      },
      {
        title = "CPU of the groups, percent"
        metrics = [
          for name, group in all.groups :
          ["AWS/EC2", "CPUUtilization", "AutoScalingGroupName", group, { label = name, stat = "Average" }]
        ]
      },
      {
        title = "Memory of the groups, percent"
        metrics = [
          for name, group in all.groups :
          [all.namespace, "mem_used_percent", "AutoScalingGroupName", group, { label = name, stat = "Maximum" }]
        ]
      },
      {
        title = "What waits for workers, messages"
        metrics = [
          concat(
            [all.lag.namespace, all.lag.metric],
            flatten([for key, text in all.lag.dimensions : [key, text]]),
            [{ stat = "Maximum" }],
          )
        ]
      },
      {
        title = "Postgres: CPU, percent"
        metrics = [
          for name, id in all.postgres :
          ["AWS/RDS", "CPUUtilization", "DBInstanceIdentifier", id, { label = name, stat = "Average" }]
        ]
      },
      {
        title = "Postgres: how far replicas are behind, seconds"
        metrics = [
          for name, id in all.postgres :
          ["AWS/RDS", "ReplicaLag", "DBInstanceIdentifier", id, { label = name, stat = "Maximum" }] if name != "primary"
        ]
      },
    ]
  ]
}

resource "aws_cloudwatch_dashboard" "this" {
  count = length(local.watched)

  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = [
      for index, chart in local.charts[0] : {
        type   = "metric"
        x      = 12 * (index % 2)
        y      = 6 * floor(index / 2)
        width  = 12
        height = 6
        properties = {
          title   = chart.title
          region  = var.region
          view    = "timeSeries"
          stacked = false
          period  = 60
          metrics = chart.metrics
        }
      } if length(chart.metrics) > 0
    ]
  })
}

# One alarm for whoever is woken at night: clients notice it, or will.
resource "aws_cloudwatch_composite_alarm" "clients" {
  count = length(local.watched)

  alarm_name        = "${var.name}-clients"
  alarm_description = "Clients of ${var.name} notice that something is wrong, or will soon."
  alarm_rule        = join(" OR ", [for name in var.watched.alarm_names : "ALARM(\"${name}\")"])
  alarm_actions     = [aws_sns_topic.alarms.arn]
  ok_actions        = [aws_sns_topic.alarms.arn]
}
