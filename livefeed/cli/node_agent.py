"""`livefeed node-agent`: what a cloud node needs beside its livefeed process."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Final

import click

from livefeed.adapters.aws import check_installed
from livefeed.adapters.metadata import Metadata
from livefeed.adapters.node_lock import check_usable
from livefeed.cli.environment import command_settings
from livefeed.cli.node_cloud import Cloud
from livefeed.cli.node_events import Events
from livefeed.cli.node_metrics import Lag, publish, read_connections
from livefeed.cli.node_watch import Watch
from livefeed.cli.running import leave_on_signals, log_to_stderr, run
from livefeed.errors import Misconfigured
from livefeed.limits import WORKER_SETTLE_SECONDS
from livefeed.node_settings import NodeSettings, load_node_settings
from livefeed.settings import Settings

LEAVING_SECONDS: Final = 10.0
"""How long a gateway may take beside its drain, and a pool beside its workers."""


@click.command("node-agent")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each event.")
def command(*, as_json: bool) -> None:
    """Drain this cloud node's process before the node ends, and publish what it is scaled by.

    Runs until told to leave. What the cloud does not answer is asked again, later and later.
    """
    log_to_stderr()
    # It tells where it found the credentials and the address of AWS.
    logging.getLogger("botocore").setLevel(logging.WARNING)
    settings, node = command_settings(), load_node_settings()
    check_installed()
    run(_agent(settings, node, Events(as_json=as_json)))


async def _agent(settings: Settings, node: NodeSettings, events: Events) -> None:
    leave = leave_on_signals()
    metadata = Metadata(node.metadata_url)
    cloud = Cloud(node, metadata)
    works = []
    if node.role != "nats":
        works.append(Watch(node, _lock_file(settings, node), metadata, cloud, events).run())
    async with Lag(settings) as lag:
        if node.role == "gateway":
            read = functools.partial(read_connections, settings, cloud, node.autoscaling_group)
            works.append(publish(cloud, events, read, seconds=node.metrics_seconds))
        elif node.role == "nats":
            works.append(publish(cloud, events, lag.read, seconds=node.metrics_seconds))
        events.tell("started", role=node.role, seconds=node.poll_seconds)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(work) for work in works]
            await leave.wait()
            for task in running:
                task.cancel()
    events.tell("left")


def _lock_file(settings: Settings, node: NodeSettings) -> str:
    """Where the process is found.

    Raises:
        Misconfigured: When it would not be found, or could not leave in time.
    """
    if node.lock_file is None:
        detail = f"LIVEFEED_NODE_LOCK_FILE is missing: without it no {node.role} node is drained"
        raise Misconfigured(f"{detail}; give the agent and the process the same path")
    check_usable(node.lock_file)
    draining = settings.drain_wait_seconds + settings.drain_seconds
    needed = (draining if node.role == "gateway" else WORKER_SETTLE_SECONDS) + LEAVING_SECONDS
    if needed > node.deadline_seconds:
        raise Misconfigured(
            f"LIVEFEED_NODE_DEADLINE_SECONDS must be at least {needed:g}: "
            f"so long may the process of a {node.role} node take to leave"
        )
    return node.lock_file
