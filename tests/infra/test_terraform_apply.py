"""An example is made on an AWS of this computer, and taken away again."""

from __future__ import annotations

import faulthandler
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.infra.moto import running_moto
from tests.infra.plans import prepared
from tests.infra.terraform import Terraform

NOT_READ_BACK: Final = {
    "aws_autoscaling_group": {
        *("capacity_reservation_specification", "default_instance_warmup"),
        "mixed_instances_policy",
    },
    # It answers with a queue and a role of its own.
    "aws_autoscaling_lifecycle_hook": {"notification_target_arn", "role_arn"},
    "aws_autoscaling_policy": {"enabled", "predictive_scaling_configuration"},
    "aws_db_instance": {
        *("monitoring_interval", "monitoring_role_arn"),
        *("performance_insights_enabled", "performance_insights_kms_key_id"),
    },
    "aws_db_parameter_group": {"parameter"},
    "aws_instance": {"vpc_security_group_ids"},
    "aws_launch_template": {"default_version", "latest_version", "tag_specifications"},
    "aws_route53_zone": {"vpc"},
    "aws_vpc_security_group_egress_rule": {"description"},
    "aws_vpc_security_group_ingress_rule": {"description"},
}
"""What this AWS does not say as it was told; of all else a second plan finds nothing."""


@pytest.mark.waits
@pytest.mark.timeout(900)
def test_an_example_is_made_and_taken_away(terraform: Terraform, tmp_path: Path) -> None:
    """Whole, in the order that its parts need; then a second plan changes nothing."""
    # Its stacks would be shown long before its limit: the provider waits a minute for a balancer.
    faulthandler.cancel_dump_traceback_later()
    folder = prepared(terraform, "minimal")
    with running_moto(tmp_path / "moto.log") as aws:
        options = ["-input=false", "-no-color", "-auto-approve", "-parallelism=30"]
        terraform(folder, "apply", *options, environment=aws)
        outputs = json.loads(terraform(folder, "output", "-json", environment=aws).stdout)
        made = outputs["livefeed"]["value"]
        assert len(made["nats_instance_ids"]) == 3
        assert made["address"]
        again = ["-out=again", "-input=false", "-no-color", "-parallelism=30"]
        terraform(folder, "plan", *again, environment=aws)
        plan = json.loads(terraform(folder, "show", "-json", "again").stdout)
        terraform(folder, "destroy", *options, environment=aws)
        left = terraform(folder, "state", "list").stdout
    assert list(_changes(plan)) == []
    assert left == ""


def _changes(plan: Any) -> Iterator[str]:
    """What a plan would change, and for the sake of which arguments."""
    for one in plan["resource_changes"]:
        change = one["change"]
        if change["actions"] in (["no-op"], ["read"]):
            continue
        before, after = change["before"] or {}, change["after"] or {}
        names = {name for name in before if before[name] != after.get(name)}
        if change["actions"] != ["update"] or names - NOT_READ_BACK.get(one["type"], set()):
            yield f"{one['address']}: {' and '.join(change['actions'])} for {sorted(names)}"
