mock_provider "aws" {
  source = "../../tests/mocks/aws"
}

variables {
  name              = "livefeed-test"
  subnet_ids        = ["subnet-7", "subnet-8", "subnet-9"]
  security_group_id = "sg-0123456789abcdef3"
  kms_key_arn       = "arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000"
  alarm_topic_arn   = "arn:aws:sns:eu-west-1:123456789012:alarms"
}

run "a_cache_with_a_failover" {
  command = plan

  assert {
    condition     = aws_elasticache_replication_group.this.transit_encryption_enabled && aws_elasticache_replication_group.this.at_rest_encryption_enabled && aws_elasticache_replication_group.this.automatic_failover_enabled
    error_message = "It is encrypted on the way and on the disk, and another node takes over."
  }

  assert {
    condition     = one([for one in aws_elasticache_parameter_group.this.parameter : one.value if one.name == "maxmemory-policy"]) == "allkeys-lru"
    error_message = "A full cache lets go of what is asked for least."
  }
}

run "one_node_has_no_failover" {
  command = plan

  variables {
    nodes = 1
  }

  assert {
    condition     = !aws_elasticache_replication_group.this.automatic_failover_enabled
    error_message = "There is nobody to take over."
  }
}
