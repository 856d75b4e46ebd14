"""The agent of a cloud node: its node's process is drained, and what it is scaled by is published.

The metadata service and AWS are servers of the test's (`tests/cloud.py`); all else is real.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from livefeed.adapters import node_lock
from livefeed.adapters.metadata import TOKEN_SECONDS, Metadata
from livefeed.adapters.nats.lag import consumer_lag
from livefeed.cli.running import SAME_SIGNAL_SECONDS
from livefeed.errors import Misconfigured, Unavailable
from livefeed.limits import WORKER_SETTLE_SECONDS
from livefeed.topology import ACK_WAIT_SECONDS, LANE_STREAM, UPDATES
from tests.cloud import INSTANCE, KEY_ID, REGION, SECRET, AwsServer, MetadataServer
from tests.infra.test_balancer import (
    CLIENTS,
    WINDOW_SECONDS,
    Balanced,
    all_at,
    balanced,
    busiest,
    cancelled,
    come_and_go,
    publish,
    shown,
)
from tests.servers import OwnServers, Process, Stack, http_status, until, update
from tests.tools import python_environment, site_packages

__all__ = ["balanced"]

GROUP = "livefeed-nodes"
HOOK = "drain"
POLL_SECONDS = 0.2


@dataclass
class Cloud:
    """What the node talks to."""

    metadata: MetadataServer
    aws: AwsServer


@pytest.fixture
async def cloud(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cloud]:
    """Both servers, and an environment in which agents find them and botocore."""
    packages = site_packages(await asyncio.to_thread(python_environment, "aws"))
    metadata, aws = MetadataServer(), AwsServer()
    environment = {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(packages), os.environ.get("PYTHONPATH")])),
        "AWS_ENDPOINT_URL": aws.url,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    async with metadata, aws:
        yield Cloud(metadata, aws)
    assert aws.refused == []


async def start_agent(stack: Stack, cloud: Cloud, role: str, **settings: Any) -> Process:
    """Start the agent of a node, and wait until it asks."""
    given: dict[str, Any] = {
        "node_role": role,
        "node_metadata_url": cloud.metadata.url,
        "node_autoscaling_group": GROUP,
        "node_lifecycle_hook": HOOK,
        "node_poll_seconds": POLL_SECONDS,
        "node_heartbeat_seconds": 1,
        "node_metrics_seconds": 0.5,
        **settings,
    }
    agent = stack._process(["node-agent", "--json"], started, given)
    await agent.start()
    return agent


async def started(agent: Process) -> bool:
    return bool(events(agent, "started"))


def events(agent: Process, name: str) -> list[dict[str, Any]]:
    """What an agent has told of one kind."""
    lines = [line for line in agent.output().splitlines() if line.startswith("{")]
    return [event for event in map(json.loads, lines) if event["event"] == name]


def written(path: str) -> str:
    return Path(path).read_text(encoding="ascii")


def lock_file(stack: Stack, name: str) -> str:
    return str(stack.directory / f"{name}.lock")


async def refused_with(gateway: Process, token: str) -> int | None:
    """The status with which a gateway refuses a new client; None when it lets it in."""
    url = gateway.url.replace("http", "ws", 1) + "/v1/ws"
    try:
        async with connect(url, additional_headers={"Authorization": f"Bearer {token}"}):
            return None
    except InvalidStatus as refusal:
        return refusal.response.status_code
    except OSError:
        return 0


# The whole way, on a real stack.


async def test_a_gateway_whose_node_is_ended(
    balanced: Balanced,
    cloud: Cloud,
) -> None:
    """A termination notice: it takes nobody more, its clients go to the other gateway spread over
    the window, it exits before the deadline, only then is the action completed, and every client
    ends up with exactly what the log has."""
    stack, (leaving, staying) = balanced.stack, balanced.gateways
    await stack.start_pool()
    users = [f"user-{number}" for number in range(CLIENTS)]
    clients = {user: balanced.follow(user) for user in users}
    for client in clients.values():
        await client.caught_up(seconds=20)
    publishing = asyncio.create_task(publish(stack, users))
    coming = asyncio.create_task(come_and_go(balanced))
    agent = await start_agent(
        stack,
        cloud,
        "gateway",
        node_lock_file=lock_file(stack, "gateway-0"),
        node_deadline_seconds=30,
        ops_port=leaving.ops_url.rpartition(":")[2],
        drain_wait_seconds=2.5,
    )
    await until(lambda: cloud.aws.of("PutMetricData"), what="its connections are published")
    cloud.aws.waiting = False
    began_at = time.monotonic()
    cloud.metadata.terminate()
    await until(lambda: unready(leaving), what="it is not ready")
    assert await refused_with(leaving, stack.token("late")) == 503
    # The balancer has let go: from now on the hook waits.
    cloud.aws.waiting = True
    assert await leaving.wait(20) == 0
    ended_at = time.monotonic()
    await until(lambda: events(agent, "completed"), what="the action is completed")
    assert time.monotonic() - began_at < 30
    (call,) = cloud.aws.of("CompleteLifecycleAction")
    assert call.at >= ended_at - POLL_SECONDS
    assert call.fields == {
        "Version": "2011-01-01",
        "AutoScalingGroupName": GROUP,
        "LifecycleHookName": HOOK,
        "InstanceId": INSTANCE,
        "LifecycleActionResult": "CONTINUE",
    }
    beats = [call.at for call in cloud.aws.of("RecordLifecycleActionHeartbeat")]
    assert len(beats) >= 2
    assert all(at <= call.at for at in beats)
    assert len(events(agent, "leave")) == 1
    came_at = [at for at in balanced.connected_at if at >= began_at]
    assert len(came_at) >= CLIENTS / 4
    assert busiest(came_at, WINDOW_SECONDS / 2) <= 1.5 * len(came_at) / 2
    await until(lambda: all_at(staying), seconds=20, what="all are at the other gateway")
    await cancelled(publishing)
    await cancelled(coming)
    assert balanced.refused == []
    await stack.settled()
    for user, client in clients.items():
        assert client.error is None
        assert {frame["reason"] for frame in client.frames_of("reconnect")} <= {"drain", "shed"}
        snapshot = await stack.snapshot(user, url=balanced.url)
        wanted = [(item.id, item.content) for item in snapshot.items]
        assert wanted
        await until(lambda c=client, w=wanted: shown(c) == w, what=f"{user} has what the log has")
    assert await agent.stop() == 0


async def unready(gateway: Process) -> bool:
    return await http_status(f"{gateway.ops_url}/readyz") == 503


async def test_an_agent_that_starts_anew_tells_nobody_twice(stack: Stack, cloud: Cloud) -> None:
    """A second signal would mean at once: it is killed while the gateway drains, and the next one
    finds in the lock's file that it was told."""
    lock = lock_file(stack, "gateway")
    gateway = await stack.start_gateway(node_lock_file=lock, drain_wait_seconds=3, drain_seconds=1)
    settings = {
        "node_lock_file": lock,
        "node_deadline_seconds": 30,
        "ops_port": gateway.ops_url.rpartition(":")[2],
        "drain_wait_seconds": 3,
        "drain_seconds": 1,
    }
    first = await start_agent(stack, cloud, "gateway", **settings)
    cloud.metadata.terminate()
    await until(lambda: unready(gateway), what="it drains")
    first.kill()
    await asyncio.sleep(2 * SAME_SIGNAL_SECONDS)
    second = await start_agent(stack, cloud, "gateway", **settings)
    assert await gateway.wait(20) == 0
    await until(lambda: events(second, "completed"), what="the action is completed")
    assert "at once" not in gateway.output()
    # Who comes next is not taken for the one that was told.
    with node_lock.held(lock):
        assert written(lock) == ""


async def test_a_pool_whose_spot_node_is_taken_back(stack: Stack, cloud: Cloud) -> None:
    """Two minutes' notice in the midst of work: its workers settle, nothing that they had waits
    for its ack wait, and another pool goes on exactly where it ended."""
    await stack.start_gateway()
    lock = lock_file(stack, "pool")
    pool = await stack.start_pool(node_lock_file=lock)
    agent = await start_agent(stack, cloud, "workers", node_lock_file=lock)
    users = [f"user-{number}" for number in range(10)]
    sent: list[str] = []
    publishing = asyncio.create_task(publish_for(stack, users, sent))
    await until(lambda: len(sent) > 300, seconds=20, what="updates flow")
    began_at = time.monotonic()
    cloud.metadata.take_back(120)
    assert await pool.wait(30) == 0
    assert time.monotonic() - began_at < WORKER_SETTLE_SECONDS + 5
    assert stack.worker_pids("deliver") == stack.worker_pids("prioritize") == []
    (notice,) = events(agent, "notice")
    assert notice["kind"] == "spot"
    handled = [int(count) for count in re.findall(r'"signal","handled":(\d+)', pool.output())]
    assert sum(count > 0 for count in handled) >= 2
    await until(lambda: events(agent, "ended"), what="the agent has seen it")
    # Its group ends a node that is taken back as well: that action is completed at once.
    assert cloud.aws.of("CompleteLifecycleAction") == []
    cloud.metadata.terminate()
    await until(lambda: events(agent, "completed"), what="the action is completed")
    await cancelled(publishing)
    await stack.start_pool(node_lock_file=lock_file(stack, "other"))
    await stack.settled(seconds=ACK_WAIT_SECONDS["medium"] * 0.9)
    for user in users:
        snapshot = await stack.snapshot(user)
        assert {item.id for item in snapshot.items} == set(sent[-1_000:])
    assert await agent.stop() == 0


async def publish_for(stack: Stack, users: list[str], sent: list[str]) -> None:
    """Publish for all of some users, until cancelled; the ids are in `sent`."""
    for number in itertools.count():
        one = update(None, id=f"p{number}", audience={"users": users})
        sent.append(f"p{number}")
        # What is high goes past deliver; so both functions have work.
        await asyncio.shield(stack.publish([one], "high" if number % 2 else "medium"))
        await asyncio.sleep(0.005)


async def test_neither_the_cloud_nor_its_absence_ends_the_agent(stack: Stack, cloud: Cloud) -> None:
    """Metadata and AWS go and come; the notice that comes after is served all the same."""
    lock = lock_file(stack, "pool")
    pool = await stack.start_pool(node_lock_file=lock)
    agent = await start_agent(stack, cloud, "workers", node_lock_file=lock)
    await cloud.metadata.stop()
    await until(lambda: events(agent, "fault"), what="it has told that metadata is away")
    cloud.metadata.tokens.clear()
    cloud.metadata.items["spot/instance-action"] = "not what it should be"
    await cloud.metadata.start()
    await until(lambda: len(cloud.metadata.asked) > 3, seconds=20, what="it asks again")
    del cloud.metadata.items["spot/instance-action"]
    await until(lambda: events(agent, "well"), seconds=20, what="it has told that all is well")
    await cloud.aws.stop()
    cloud.metadata.terminate()
    assert await pool.wait(30) == 0
    await until(
        lambda: [one for one in events(agent, "fault") if one["part"] == "lifecycle"],
        seconds=40,
        what="it has told that AWS is away",
    )
    cloud.aws.failures = 2
    await cloud.aws.start()
    await until(lambda: events(agent, "completed"), seconds=40, what="the action is completed")
    assert agent.running
    assert len(events(agent, "fault")) < 10
    assert "Traceback" not in agent.output()
    assert await agent.stop() == 0


async def test_what_hangs_does_not_hold_the_node(stack: Stack, cloud: Cloud) -> None:
    """At the deadline the action is completed, whatever the process does."""
    lock = lock_file(stack, "gateway")
    gateway = await stack.start_gateway(node_lock_file=lock, drain_wait_seconds=600)
    agent = await start_agent(
        stack, cloud, "gateway", node_lock_file=lock, node_deadline_seconds=11
    )
    began_at = time.monotonic()
    cloud.metadata.terminate()
    await until(lambda: events(agent, "completed"), seconds=25, what="the action is completed")
    assert 10.5 < time.monotonic() - began_at < 20
    assert gateway.running
    assert [one["pid"] for one in events(agent, "overdue")] == [gateway.pid]
    assert len(events(agent, "leave")) == 1


# What is published.


async def test_the_lag_that_workers_are_scaled_by(stack: Stack, cloud: Cloud) -> None:
    """Each consumer's, each stream's and all of it, as the server counts it."""
    await stack.publish([update(id=f"p{number}") for number in range(7)], "high")
    agent = await start_agent(stack, cloud, "nats", node_lag_namespace="Tests")
    await until(lambda: len(cloud.aws.of("PutMetricData")) > 1, what="metrics are published")
    fields = cloud.aws.calls[-1].fields
    assert fields["Namespace"] == "Tests"
    nats = await stack.nats()
    wanted: dict[tuple[str, ...], float] = {("Lag",): 7}
    for stream in (UPDATES, LANE_STREAM):
        lags = await consumer_lag(nats, stream)
        wanted[("Lag", stream)] = sum(lags.values())
        wanted |= {("Lag", stream, consumer): lag for consumer, lag in lags.items()}
    assert wanted["Lag", UPDATES, "prioritize-high"] == 7
    assert len(wanted) == 1 + 2 + 3 + 48
    assert figures(fields) == wanted
    assert {one["Unit"] for one in fields["MetricData"]} == {"Count"}
    assert cloud.metadata.items  # Asked for the region alone: a node of NATS has no notice.
    assert {name for name, _ in cloud.metadata.asked} == {"placement/region"}
    assert await agent.stop() == 0


def figures(fields: dict[str, Any]) -> dict[tuple[str, ...], float]:
    """Values by name and dimensions."""
    return {
        (one["MetricName"], *(dimension["Value"] for dimension in one.get("Dimensions", []))): one[
            "Value"
        ]
        for one in fields["MetricData"]
    }


async def test_lag_is_published_again_when_nats_is_back(
    own_stack: Stack, own_servers: OwnServers, cloud: Cloud
) -> None:
    """While nothing is known nothing is said: an alarm hears of the silence."""
    agent = await start_agent(own_stack, cloud, "nats")
    await until(lambda: cloud.aws.of("PutMetricData"), what="metrics are published")
    own_servers.nats.kill()
    await until(lambda: events(agent, "fault"), seconds=20, what="it has told of the fault")
    before = len(cloud.aws.of("PutMetricData"))
    await asyncio.sleep(2)
    assert len(cloud.aws.of("PutMetricData")) == before
    await own_servers.nats.start()
    await until(
        lambda: len(cloud.aws.of("PutMetricData")) > before, seconds=40, what="published again"
    )
    assert await agent.stop() == 0


async def test_the_connections_of_a_gateway(stack: Stack, cloud: Cloud) -> None:
    """Of the node and of its group, whose average is what a node has."""
    lock = lock_file(stack, "gateway")
    gateway = await stack.start_gateway(node_lock_file=lock)
    followers = [stack.follow(f"user-{number}") for number in range(3)]
    for follower in followers:
        await follower.caught_up()
    ops_port = gateway.ops_url.rpartition(":")[2]
    await start_agent(stack, cloud, "gateway", node_lock_file=lock, ops_port=ops_port)
    wanted = {("Connections", INSTANCE): 3, ("Connections", GROUP): 3}
    await until(
        lambda: any(figures(call.fields) == wanted for call in cloud.aws.of("PutMetricData")),
        what="its connections are published",
    )


# The metadata service.


async def test_tokens_are_renewed() -> None:
    """One that is refused at once, one that grows old before it is."""
    now = 0.0
    async with MetadataServer() as server:
        metadata = Metadata(server.url, clock=lambda: now)
        assert await metadata.instance_id() == INSTANCE
        assert await metadata.region() == REGION
        assert len(server.tokens) == 1
        server.tokens.clear()
        assert await metadata.terminating() is False
        assert server.asked[-2:] == [
            ("autoscaling/target-lifecycle-state", 401),
            ("autoscaling/target-lifecycle-state", 200),
        ]
        now = TOKEN_SECONDS / 2
        assert await metadata.rebalance() is False
        assert len(server.tokens) == 2
        server.items["events/recommendations/rebalance"] = "{}"
        assert await metadata.rebalance() is True


@pytest.mark.parametrize(
    ("state", "ends"),
    [
        (None, False),
        ("InService", False),
        ("Terminated", True),
        ("Warmed:Terminated", True),
        ("Warmed:Stopped", False),
        ("Standby", False),
    ],
)
async def test_states_that_mean_the_end(state: str | None, ends: bool) -> None:
    """A node without a group has no state."""
    async with MetadataServer() as server:
        if state is None:
            del server.items["autoscaling/target-lifecycle-state"]
        else:
            server.items["autoscaling/target-lifecycle-state"] = state
        assert await Metadata(server.url).terminating() is ends


async def test_a_spot_notice_says_when() -> None:
    """None while there is none; one that is unreadable is a fault, not silence."""
    async with MetadataServer() as server:
        metadata = Metadata(server.url)
        assert await metadata.spot_taken_at() is None
        server.take_back(100)
        at = await metadata.spot_taken_at()
        assert at is not None
        assert 97 < at - time.time() <= 100
        server.items["spot/instance-action"] = "{}"
        with pytest.raises(Unavailable, match="spot/instance-action"):
            await metadata.spot_taken_at()


async def test_without_an_answer_the_hop_limit_is_named() -> None:
    """In a container that is what is wrong most often."""
    server = MetadataServer()
    with pytest.raises(Unavailable, match="hop limit"):
        await Metadata(server.url).terminating()


# Who is told.


async def test_the_lock_tells_who_runs(stack: Stack) -> None:
    """However it ends; and a second one beside it is refused."""
    lock = lock_file(stack, "gateway")
    assert node_lock.holder(lock) is None
    gateway = await stack.start_gateway(node_lock_file=lock)
    assert node_lock.holder(lock) == gateway.pid
    second = await stack.start_gateway(node_lock_file=lock, wait=False)
    assert await second.wait() == 1
    assert "LIVEFEED_NODE_LOCK_FILE" in second.output()
    assert "Traceback" not in second.output()
    assert node_lock.tell_to_leave(lock, os.getpid()) is False
    gateway.kill()
    assert node_lock.holder(lock) is None
    assert node_lock.tell_to_leave(lock, gateway.pid) is False


def test_a_lock_that_cannot_be_taken(tmp_path: Path) -> None:
    """Named, with its path."""
    with (
        pytest.raises(Misconfigured, match="LIVEFEED_NODE_LOCK_FILE"),
        node_lock.held(str(tmp_path / "missing" / "lock")),
    ):
        pass


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"node_role": "gateway"}, "LIVEFEED_NODE_LOCK_FILE is missing"),
        ({"node_lock_file": "/nowhere/at/all"}, "its folder does not exist"),
        ({"node_deadline_seconds": 5}, "LIVEFEED_NODE_DEADLINE_SECONDS must be at least 10"),
        ({"node_role": "workers", "node_deadline_seconds": 14}, "must be at least 15"),
    ],
)
@pytest.mark.usefixtures("cloud")
async def test_settings_under_which_nothing_would_be_drained(
    stack: Stack, settings: dict[str, Any], said: str
) -> None:
    """An agent that could not do its work does not start."""
    if settings != {"node_role": "gateway"}:
        settings = {"node_lock_file": lock_file(stack, "node"), **settings}
    stack.settings |= settings
    done = await stack.command("node-agent")
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


async def test_without_botocore_it_says_what_to_install(stack: Stack) -> None:
    """The server needs no AWS, so it does not bring it."""
    stack.settings["node_role"] = "nats"
    done = await stack.command("node-agent")
    assert done.returncode == 1
    assert "install requirements/aws.txt" in done.stderr
    assert "Traceback" not in done.stderr
