"""The agent of each kind of instance, run with the settings that the instance gets.

What it publishes is what Terraform's alarms and policies look at, and what it completes is the hook
of Terraform's group: both are read from the state of the root's own test.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from livefeed.node import CONNECTIONS, LAG
from livefeed.node_settings import NodeSettings
from tests.infra.checks import yaml
from tests.infra.plans import Resources
from tests.infra.rendered import Instance
from tests.integration.test_gateway_workers import free_ports
from tests.integration.test_node_agent import Cloud, cloud, events, started
from tests.servers import Process, Stack, until

__all__ = ["cloud"]

NAMESPACE = "livefeed/livefeed-test"


class Looked(NamedTuple):
    """A metric by which something is decided; all that has to be equal for it to be found."""

    namespace: str
    name: str
    dimensions: frozenset[tuple[str, str]]


@pytest.fixture
def resources(root_state: Any) -> Resources:
    """Everything that Terraform has made."""
    return Resources(root_state)


def looked_at(resources: Resources) -> set[Looked]:
    """The metrics of livefeed's own namespace, of all alarms and policies."""
    found = set()
    for alarm in resources.all("aws_cloudwatch_metric_alarm"):
        metrics = [
            alarm,
            *(one for query in alarm["metric_query"] or [] for one in query["metric"]),
        ]
        for one in metrics:
            dimensions = frozenset((one["dimensions"] or {}).items())
            found.add(Looked(one["namespace"], one["metric_name"], dimensions))
    for policy in resources.all("aws_autoscaling_policy"):
        for target in policy["target_tracking_configuration"] or []:
            found |= set(_of_target(target))
    return {one for one in found if one.namespace == NAMESPACE}


def _of_target(target: Mapping[str, Any]) -> Iterator[Looked]:
    for one in target["customized_metric_specification"] or []:
        if one["metric_name"]:
            dimensions = {each["name"]: each["value"] for each in one["metric_dimension"]}
            yield Looked(one["namespace"], one["metric_name"], frozenset(dimensions.items()))
        for stat in (each for query in one["metrics"] or [] for each in query["metric_stat"]):
            (metric,) = stat["metric"]
            dimensions = {each["name"]: each["value"] for each in metric["dimensions"] or []}
            yield Looked(metric["namespace"], metric["metric_name"], frozenset(dimensions.items()))


def published(cloud: Cloud) -> set[Looked]:
    """What agents have published."""
    return {
        Looked(
            call.fields["Namespace"],
            one["MetricName"],
            frozenset((each["Name"], each["Value"]) for each in one["Dimensions"]),
        )
        for call in cloud.aws.of("PutMetricData")
        for one in call.fields["MetricData"]
    }


def collected(instances: Mapping[str, Instance], directory: Path) -> set[Looked]:
    """What collectors publish, as their configuration says."""
    found = set()
    for name in ("gateway", "workers", "nats-1"):
        file = directory / f"{name}.yaml"
        file.write_text(instances[name].files["/etc/livefeed/collector.yaml"])
        collector = yaml(file)
        attributes = {
            one["key"]: one["value"] for one in collector["processors"]["resource"]["attributes"]
        }
        disks = collector["receivers"]["hostmetrics"]["scrapers"]["filesystem"]
        emf = collector["exporters"]["awsemf"]
        for declared in emf["metric_declarations"]:
            names = [text.strip("^$") for text in declared["metric_name_selectors"]]
            for metric, dimensions, disk in itertools.product(
                names, declared["dimensions"], disks["include_mount_points"]["mount_points"]
            ):
                known = attributes | {"mountpoint": disk}
                values = frozenset((each, known[each]) for each in dimensions)
                found.add(Looked(emf["namespace"], metric, values))
    return found


async def start_agent(
    stack: Stack, cloud: Cloud, instance: Instance, tmp_path: Path, **here: Any
) -> Process:
    """The agent of an instance; only places are changed to those of this computer."""
    rendered = {
        name.removeprefix("LIVEFEED_").lower(): text for name, text in instance.environment.items()
    }
    places = {
        "nats_url": stack.settings["nats_url"],
        "nats_ca_file": None,
        "node_metadata_url": cloud.metadata.url,
        "node_lock_file": str(tmp_path / "lock"),
        **here,
    }
    agent = stack._process(["node-agent", "--json"], started, rendered | places)
    await agent.start()
    return agent


async def test_groups_scale_by_what_agents_publish(
    stack: Stack,
    cloud: Cloud,
    instances: dict[str, Instance],
    resources: Resources,
    tmp_path: Path,
) -> None:
    """Namespace, name and dimensions of every metric that an alarm or a policy of Terraform looks
    at are those that a gateway's agent, a NATS server's agent or a collector publishes."""
    processes = int(instances["gateway"].environment["LIVEFEED_GATEWAY_WORKERS"])
    ops_port = free_ports(processes)
    await stack.start_gateway(ops_port=ops_port, gateway_workers=processes)
    await start_agent(
        stack, cloud, instances["gateway"], tmp_path, ops_port=ops_port, ops_host="127.0.0.1"
    )
    await start_agent(stack, cloud, instances["nats-1"], tmp_path)
    await until(
        lambda: {LAG, CONNECTIONS} <= {one.name for one in published(cloud)},
        seconds=30,
        what="both agents have published",
    )
    wanted = looked_at(resources)
    assert {LAG, CONNECTIONS} < {one.name for one in wanted}
    others = wanted - published(cloud)
    assert {one.name for one in others} == {"mem_used_percent", "disk_used_percent"}
    assert others <= collected(instances, tmp_path)


@pytest.mark.parametrize("name", ["gateway", "workers"])
async def test_an_agent_completes_the_hook_of_its_group(
    stack: Stack,
    cloud: Cloud,
    instances: dict[str, Instance],
    resources: Resources,
    tmp_path: Path,
    name: str,
) -> None:
    """It takes its settings, so that the drain fits into its deadline; the group's hook and name
    are those that Terraform gave; and the hook outlasts two of its heartbeats."""
    agent = await start_agent(stack, cloud, instances[name], tmp_path, node_poll_seconds=0.2)
    cloud.metadata.terminate()
    await until(lambda: cloud.aws.of("CompleteLifecycleAction"), seconds=20, what="it completes")
    (call,) = cloud.aws.of("CompleteLifecycleAction")
    group = resources.one("aws_autoscaling_group", name)
    hook = resources.one("aws_autoscaling_lifecycle_hook", name)
    assert not group["initial_lifecycle_hook"], "it would never change"
    assert hook["autoscaling_group_name"] == group["name"]
    assert call.fields["AutoScalingGroupName"] == group["name"]
    assert call.fields["LifecycleHookName"] == hook["name"]
    assert hook["lifecycle_transition"] == "autoscaling:EC2_INSTANCE_TERMINATING"
    assert hook["default_result"] == "CONTINUE"
    settings = NodeSettings(
        **{
            field: text
            for variable, text in instances[name].environment.items()
            if (field := variable.removeprefix("LIVEFEED_NODE_").lower())
            in NodeSettings.model_fields
        }
    )
    assert hook["heartbeat_timeout"] >= 2 * settings.heartbeat_seconds
    (notice,) = events(agent, "notice")
    assert notice["deadline_seconds"] == settings.deadline_seconds < hook["heartbeat_timeout"]
