"""An example is made on an AWS of this computer, and taken away again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest

from tests.infra.moto import running_moto
from tests.infra.plans import prepared
from tests.infra.terraform import Terraform

DRIFTING: Final = ("aws_autoscaling_", "aws_launch_template", "aws_db_", "aws_route53_zone")
"""What this AWS does not read back as it was given; of all else a second plan finds nothing."""


@pytest.mark.timeout(900)
def test_an_example_is_made_and_taken_away(terraform: Terraform, tmp_path: Path) -> None:
    """Whole, in the order that its parts need; then a second plan changes nothing."""
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
        changes = [
            one["address"]
            for one in plan["resource_changes"]
            if one["change"]["actions"] not in (["no-op"], ["read"])
            and not one["type"].startswith(DRIFTING)
        ]
        terraform(folder, "destroy", *options, environment=aws)
        left = terraform(folder, "state", "list").stdout
    assert changes == []
    assert left == ""
