"""The plans of both examples: what production would be, in the plan's own words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from livefeed.limits import REPLICAS_MAX
from livefeed.protocol import HEARTBEAT_SECONDS
from livefeed.settings import Settings
from tests.infra.plans import CERTIFICATE_ARN, Resources, module_of, plan_of
from tests.infra.terraform import Terraform

pytestmark = pytest.mark.timeout(600)  # The first one installs tools.


@pytest.fixture
def complete(terraform: Terraform, shared_directory: Path) -> Resources:
    """The plan of the example that has everything."""
    return plan_of(terraform, shared_directory, "complete")


@pytest.fixture
def minimal(terraform: Terraform, shared_directory: Path) -> Resources:
    """The plan of the smallest one."""
    return plan_of(terraform, shared_directory, "minimal")


def test_gateways_are_2_to_20(complete: Resources) -> None:
    """In three zones, none on spot by default."""
    group = complete.one("aws_autoscaling_group", "gateway")
    assert (group["min_size"], group["max_size"]) == (2, 20)
    (policy,) = group["mixed_instances_policy"]
    (spread,) = policy["instances_distribution"]
    assert spread["on_demand_base_capacity"] == 2
    assert spread["on_demand_percentage_above_base_capacity"] == 100
    assert group["health_check_type"] == "ELB"


def test_gateways_scale_out_at_70_and_80_percent(complete: Resources) -> None:
    """CPU, memory, connections a node; a newcomer counts after 300 s; none of them scales in."""
    cpu, memory, connections = (
        complete.one("aws_autoscaling_policy", "gateway", name)
        for name in ("cpu", "memory", "connections")
    )
    targets = [one["target_tracking_configuration"][0] for one in (cpu, memory, connections)]
    most = Settings.model_fields["connections_max"].default
    assert [one["target_value"] for one in targets] == [70, 80, 0.7 * most * 2]
    assert all(one["disable_scale_in"] for one in targets)
    assert {one["estimated_instance_warmup"] for one in (cpu, memory, connections)} == {300}
    (used,) = targets[1]["customized_metric_specification"]
    assert used["metric_name"] == "mem_used_percent"


def test_gateways_scale_in_600_seconds_apart(complete: Resources) -> None:
    """One at a time; out is not held up by it, for its own policies heed no cooldown."""
    policy = complete.one("aws_autoscaling_policy", "gateway", "in")
    assert policy["policy_type"] == "SimpleScaling"
    assert (policy["cooldown"], policy["scaling_adjustment"]) == (600, -1)
    assert complete.one("aws_autoscaling_group", "gateway")["default_cooldown"] == 300


def test_the_balancer_looks_15_5_3_2(complete: Resources) -> None:
    """And gives a newcomer to whoever has the fewest connections."""
    target = complete.one("aws_lb_target_group", "gateway")
    assert target["load_balancing_algorithm_type"] == "least_outstanding_requests"
    (check,) = target["health_check"]
    assert (check["interval"], check["timeout"]) == (15, 5)
    assert (check["unhealthy_threshold"], check["healthy_threshold"]) == (3, 2)
    assert not target["stickiness"][0]["enabled"]


def test_the_balancer_knows_the_gateways_ports_and_paths(complete: Resources) -> None:
    """As the code has them; and it cuts no connection between two pings."""
    fields = Settings.model_fields
    target = complete.one("aws_lb_target_group", "gateway")
    (check,) = target["health_check"]
    assert target["port"] == fields["gateway_port"].default
    assert check["port"] == str(fields["ops_port"].default)
    assert check["path"] == "/readyz"
    assert complete.one("aws_lb", "gateway")["idle_timeout"] > 2 * HEARTBEAT_SECONDS


def test_tls_is_asked_for_everywhere(complete: Resources) -> None:
    """Clients are sent to https; Postgres and Redis refuse what is plain."""
    https = complete.one("aws_lb_listener", "gateway", "https")
    assert (https["port"], https["certificate_arn"]) == (443, CERTIFICATE_ARN)
    assert "TLS13" in https["ssl_policy"]
    plain = complete.one("aws_lb_listener", "gateway", "http")
    assert plain["default_action"][0]["type"] == "redirect"
    parameters = complete.one("aws_db_parameter_group", "postgres")["parameter"]
    assert {"rds.force_ssl": "1"}.items() <= {
        one["name"]: one["value"] for one in parameters
    }.items()
    redis = complete.all("aws_elasticache_replication_group")
    assert [one["transit_encryption_mode"] for one in redis] == ["required"]


def test_postgres_has_a_standby_and_two_replicas(complete: Resources) -> None:
    """At least two that are read, and no more than a gateway takes."""
    servers = complete.all("aws_db_instance")
    replicas = [one for one in servers if one["identifier"] != "livefeed-example-primary"]
    assert 2 <= len(replicas) <= REPLICAS_MAX
    assert complete.one("aws_db_instance", "postgres", "primary")["multi_az"]
    assert all(one["storage_encrypted"] and not one["publicly_accessible"] for one in servers)


def test_workers_come_from_none_and_go_to_none(complete: Resources) -> None:
    """0 to 20, on spot of several types."""
    group = complete.one("aws_autoscaling_group", "workers")
    assert (group["min_size"], group["max_size"]) == (0, 20)
    assert group["capacity_rebalance"]
    kinds = {
        name: complete.one("aws_autoscaling_policy", "workers", name)["policy_type"]
        for name in ("first", "backlog", "none")
    }
    assert kinds == {
        "first": "StepScaling",
        "backlog": "TargetTrackingScaling",
        "none": "SimpleScaling",
    }


def test_nats_has_three_servers_in_three_zones(complete: Resources) -> None:
    """Each with a fixed address, and a volume of its own that is backed up."""
    servers, volumes = complete.all("aws_instance"), complete.all("aws_ebs_volume")
    assert len({one["private_ip"] for one in servers}) == 3
    assert len({one["availability_zone"] for one in volumes}) == 3
    assert all(one["encrypted"] and one["tags"]["Backup"] == "livefeed-example" for one in volumes)
    recover = [
        one
        for one in complete.all("aws_cloudwatch_metric_alarm")
        if one["metric_name"] == "StatusCheckFailed_System"
    ]
    assert len(recover) == 3


def test_nothing_boots_before_there_is_a_way_out(
    terraform: Terraform, shared_directory: Path
) -> None:
    """Who takes a subnet waits for its routes: what an instance installs is outside."""
    network = module_of(terraform, shared_directory, "network")
    routes = {
        one["address"]
        for one in network["resources"]
        if one["type"] in {"aws_route", "aws_route_table_association"}
    }
    assert len(routes) == 4
    assert set(network["outputs"]["subnet_ids"]["depends_on"]) == routes


def test_instances_answer_imdsv2_alone(complete: Resources) -> None:
    """And no instance has a public address or a disk that is not encrypted."""
    machines = complete.all("aws_instance") + complete.all("aws_launch_template")
    assert len(machines) == 5
    for one in machines:
        assert one["metadata_options"][0]["http_tokens"] == "required"
    assert not any(one["associate_public_ip_address"] for one in complete.all("aws_instance"))


def test_hooks_wait_longer_than_drains(complete: Resources) -> None:
    """The group holds an instance back for as long as its agent may take, and some seconds."""
    waits = {
        hook["autoscaling_group_name"]: hook["heartbeat_timeout"]
        for hook in complete.all("aws_autoscaling_lifecycle_hook")
    }
    assert waits == {"livefeed-example-gateway": 120, "livefeed-example-workers": 60}


def test_an_update_takes_one_gateway_after_the_other(complete: Resources) -> None:
    """With a successor that serves before one leaves."""
    (refresh,) = complete.one("aws_autoscaling_group", "gateway")["instance_refresh"]
    assert refresh["strategy"] == "Rolling"
    assert refresh["preferences"][0]["min_healthy_percentage"] == 100


def test_everything_is_told(complete: Resources) -> None:
    """Logs are kept, alarms go somewhere, a budget is watched, backups are made."""
    assert {one["retention_in_days"] for one in complete.all("aws_cloudwatch_log_group")} == {365}
    wanted = {
        "aws_budgets_budget": 1,
        "aws_cloudwatch_composite_alarm": 1,
        "aws_cloudwatch_dashboard": 1,
        "aws_backup_plan": 2,
        "aws_sns_topic_subscription": 1,
    }
    assert wanted.items() <= complete.types.items()
    assert complete.types["aws_cloudwatch_metric_alarm"] >= 25


def test_snapshots_of_rds_are_made_when_it_makes_them(complete: Resources) -> None:
    """It makes none within an hour before, or in, a window of its own; volumes have each hour."""
    tags = {
        next(iter(one["selection_tag"]))["key"]: one["name"]
        for one in complete.all("aws_backup_selection")
    }
    assert tags == {"Backup": "livefeed-example-daily", "BackupHourly": "livefeed-example-hourly"}
    servers = complete.all("aws_db_instance")
    assert not any("BackupHourly" in (one["tags"] or {}) for one in servers)
    assert all("BackupHourly" in one["tags"] for one in complete.all("aws_ebs_volume"))
    (rule,) = next(one for one in complete.all("aws_backup_plan") if one["name"] == tags["Backup"])[
        "rule"
    ]
    minute, hour = re.findall(r"cron[(](\d+) (\d+) [*] [*] [?] [*][)]", rule["schedule"])[0]
    begins = int(hour) * 60 + int(minute)
    primary = complete.one("aws_db_instance", "postgres", "primary")
    for window in (primary["backup_window"], *(one["maintenance_window"] for one in servers)):
        first, last = (int(h) * 60 + int(m) for h, m in re.findall(r"(\d+):(\d+)", window))
        # A job may begin late, within the rule's window.
        assert last < begins or begins + rule["start_window"] < first - 60, window


def test_no_secret_has_a_value(complete: Resources) -> None:
    """Neither the plan nor the state knows one."""
    assert "aws_secretsmanager_secret_version" not in complete.types
    assert len(complete.all("aws_secretsmanager_secret")) == 7
    assert all(one["manage_master_user_password"] for one in complete.all("aws_db_instance")[:1])


def test_a_trial_is_small_and_can_be_thrown_away(minimal: Resources) -> None:
    """One NAT gateway, one server of Postgres, nothing that a call could not delete."""
    assert minimal.types["aws_nat_gateway"] == 1
    (postgres,) = minimal.all("aws_db_instance")
    assert not postgres["deletion_protection"]
    assert not minimal.one("aws_lb", "gateway")["enable_deletion_protection"]
    assert {one["recovery_window_in_days"] for one in minimal.all("aws_secretsmanager_secret")} == {
        0
    }
    assert not {"aws_backup_plan", "aws_elasticache_replication_group"} & set(minimal.types)
