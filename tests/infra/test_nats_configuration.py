"""The configuration of the NATS servers, as instances get it, in real servers.

Each role can do what it has to do, and nothing else; a real gateway and a real pool run on it with
their own settings.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import nats
import pytest
from livefeed_client import LiveFeed

from livefeed import subjects
from livefeed.adapters.cache.nats_kv import NatsKvCache
from livefeed.adapters.embedded.nats_server import find_nats_server
from livefeed.adapters.nats.access import access_options
from livefeed.adapters.nats.connection import close, connect
from livefeed.adapters.nats.lag import consumer_lag
from livefeed.adapters.nats.provision import provision
from livefeed.adapters.nats.publish import Publisher
from livefeed.errors import Misconfigured, Unavailable
from livefeed.limits import MIB
from livefeed.nats_access import NatsAccess
from livefeed.nats_roles import CACHE_STREAM, roles
from livefeed.topology import DEAD_LETTERS, LANE_STREAM, UPDATES
from tests.infra.nats_servers import (
    NODES,
    Access,
    Servers,
    configurations,
    make_access,
    running,
)
from tests.infra.rendered import Instance, environment_of
from tests.infra.test_user_data import fetch_secrets
from tests.integration.test_gateway_workers import free_ports
from tests.key_server import jwk, jwks, rsa_key, signed
from tests.servers import STREAM_BYTES_MAX, Follower, Stack, until, update
from tests.unit.test_nats_roles import allows

ROLES: Final = {role.name: role for role in roles()}
PROBES: Final = (
    # Of livefeed, of JetStream, of the bucket, of others' answers, and of the server itself.
    *("feed.updates.high.x", "feed.lanes.high.0", "feed.dlq.x", "feed.users.x", "feed.topics.x"),
    *("feed.control.wake", "feed.control.load", "feed.control.revocations"),
    *("feed.control.workers.deliver", "feed.control.gateways", "feed.control.sessions"),
    *(f"$JS.API.STREAM.DELETE.{name}" for name in (UPDATES, LANE_STREAM, DEAD_LETTERS)),
    *(f"$JS.API.STREAM.{verb}.{CACHE_STREAM}" for verb in ("CREATE", "DELETE", "PURGE")),
    *(f"$JS.API.STREAM.PURGE.{name}" for name in (UPDATES, LANE_STREAM, DEAD_LETTERS)),
    f"$JS.API.CONSUMER.MSG.NEXT.{UPDATES}.prioritize-high",
    f"$JS.API.CONSUMER.CREATE.{UPDATES}",
    f"$JS.API.CONSUMER.DELETE.{UPDATES}.prioritize-high",
    *("$JS.API.INFO", "$JS.API.STREAM.CREATE.OTHER", "$KV.feed_cache.x", "$KV.other.x"),
    f"$JS.ACK.{UPDATES}.prioritize-high.1.1.1.1.1",
    *("_INBOX.x", "_INBOX_gateway.x", "_INBOX_admin.x", "other", "$SYS.REQ.SERVER.PING"),
)


@pytest.fixture
def access(tmp_path: Path) -> Access:
    """Keys and certificates of this test alone."""
    return make_access(tmp_path / "access")


@pytest.fixture
async def servers(
    instances: dict[str, Instance], access: Access, tmp_path: Path
) -> AsyncIterator[Servers]:
    """Three servers, provisioned by an admin."""
    async with running(configurations(instances, access, tmp_path), access) as servers:
        await until(lambda: _provisioned(servers), seconds=60, what="streams are there")
        yield servers


async def _provisioned(servers: Servers) -> bool:
    """Servers that have just met close routes that are double, and an answer may be lost there."""
    try:
        async with servers.connected("admin") as connection:
            await provision(connection, replicas=3, bytes_max=STREAM_BYTES_MAX)
    except Unavailable:
        return False
    return True


@pytest.mark.parametrize("name", NODES)
def test_the_server_takes_the_configuration(
    instances: dict[str, Instance], access: Access, tmp_path: Path, name: str
) -> None:
    """`nats-server -t` reads all of it; with a word that it does not know it would refuse."""
    path, _, _ = configurations(instances, access, tmp_path)[name]
    assert _tested(path) == 0
    path.write_text(path.read_text() + '\nsync_intervall: "always"\n')
    assert _tested(path) != 0


def _tested(path: Path) -> int:
    command = [find_nats_server(), "-t", "-c", path]
    return subprocess.run(command, capture_output=True, check=False, timeout=20).returncode


async def test_streams_have_a_copy_in_each_zone(servers: Servers) -> None:
    """Three copies on three servers of three zones, and each ack means "on disk"."""
    async with servers.connected("admin") as connection:
        jetstream = connection.jetstream()
        for name in (UPDATES, LANE_STREAM, DEAD_LETTERS):
            info = await jetstream.stream_info(name)
            assert info.config.num_replicas == 3
            assert info.cluster is not None
            peers = {info.cluster.leader, *(one.name for one in info.cluster.replicas or [])}
            assert peers == set(NODES)
    zones = set()
    async with httpx.AsyncClient() as client:
        for monitor in servers.monitors.values():
            said = (await client.get(f"http://127.0.0.1:{monitor}/varz")).json()
            zones |= set(said["tags"])
            assert said["tls_required"]
            stored = (await client.get(f"http://127.0.0.1:{monitor}/jsz?config=true")).json()
            assert stored["config"]["sync_always"]
    assert zones == {"az:eu-west-1a", "az:eu-west-1b", "az:eu-west-1c"}


async def test_a_role_may_do_nothing_else(servers: Servers) -> None:
    """Of many subjects, just those of its table go out, and just those can be heard."""
    # The admin comes last: it does what it says, and no stream is left.
    for name, role in ROLES.items():
        said = await _refusals(servers, name)
        for subject in PROBES:
            publishes = f'publish to "{subject}"'.lower() not in said
            assert publishes == allows(role.publish, subject), f"{name} publishes {subject}"
            hears = f'subscription to "{subject}"'.lower() not in said
            assert hears == allows(role.heard, subject), f"{name} hears {subject}"


async def _refusals(servers: Servers, name: str) -> str:
    """What the servers refuse of a role that tries everything."""
    refused: list[str] = []

    async def failed(error: Exception) -> None:
        refused.append(str(error))

    options = {**access_options(servers.access.of(name)), "error_cb": failed}
    client = await nats.connect(servers.url.split(","), **options)
    try:
        for subject in PROBES:
            await client.subscribe(subject, cb=_ignore)
            await client.publish(subject, b"")
        await client.flush(5)
        await asyncio.sleep(0.2)
    finally:
        await client.close()
    return "\n".join(refused).lower()


async def _ignore(_message: Any) -> None:
    pass


async def test_the_smaller_roles_do_their_work(servers: Servers) -> None:
    """A publisher publishes, the observer sees that it waits, a gateway shares a page."""
    async with servers.connected("publisher") as connection:
        publisher = Publisher(connection)
        publisher.start()
        ack = await publisher.publish(subjects.updates("high", "tests"), b"{}")
        assert ack.sequence == 1
    async with servers.connected("observer") as connection:
        assert (await consumer_lag(connection, UPDATES))["prioritize-high"] == 1
    async with servers.connected("gateway") as connection:
        cache = NatsKvCache(connection, bytes_max=16 * MIB, replicas=3)
        await until(lambda: _kept(cache), seconds=20, what="a page is kept in the bucket")
        assert await cache.delete("page") == 1
        await cache.close()


async def _kept(cache: NatsKvCache) -> bool:
    try:
        await cache.set("page", b"text", ttl=60)
        return await cache.get("page") == b"text"
    except Unavailable:
        return False


async def test_a_stranger_is_not_let_in(servers: Servers, tmp_path: Path) -> None:
    """Without a key, or with a key that nobody knows."""
    unknown = make_access(tmp_path / "stranger").secret("nats-admin")
    for seed in (None, unknown):
        stranger = NatsAccess(nkey_seed=seed, ca_file=str(servers.access.ca_file))
        with pytest.raises(Unavailable):
            await connect(servers.url.split(","), name="x", access=stranger, seconds_max=2)


async def test_a_role_is_let_in_with_its_key_of_before(
    instances: dict[str, Instance], access: Access, tmp_path: Path
) -> None:
    """While a key is changed both are users, with the same rights, so that nobody is cut off."""
    before = make_access(tmp_path / "before")
    made = configurations(instances, access, tmp_path)
    for path, _, _ in made.values():
        pattern = r'(# gateway, before\n\s*{\n\s*nkey: )"U\w+"'
        text, changed = re.subn(pattern, rf'\1"{before.public_keys["gateway"]}"', path.read_text())
        assert changed == 1
        assert len(re.findall(r"# \w+, before\n", text)) == 1
        path.write_text(text)
        _, of_today, of_before = re.split(r"# gateway(?:, before)?\n", text)
        assert of_before.startswith(
            re.sub(r'"U\w+"', f'"{before.public_keys["gateway"]}"', of_today)
        )
    async with running(made, access) as servers:
        for holder in (access, before):
            given = replace(access.of("gateway"), nkey_seed=holder.secret("nats-gateway"))
            await close(await connect(servers.url.split(","), name="x", access=given))


def test_a_seed_that_is_none_is_said_to_be_none() -> None:
    """By the name of the setting, and without the seed."""
    for given in ("SUHUSH", "/nowhere/seed"):
        with pytest.raises(Misconfigured, match="LIVEFEED_NATS_NKEY_SEED") as refused:
            access_options(NatsAccess(nkey_seed=given))
        assert "HUSH" not in str(refused.value)
    with pytest.raises(Misconfigured, match="LIVEFEED_NATS_CA_FILE"):
        access_options(NatsAccess(ca_file="/nowhere/ca.pem"))


async def test_rendered_settings_start_a_gateway_and_a_pool(
    servers: Servers, instances: dict[str, Instance], database: str, tmp_path: Path
) -> None:
    """Each with its own role, settings and secrets: an update goes from a publisher to a client,
    and NATS refuses nothing on the way."""
    key = rsa_key("infra")
    (tmp_path / "jwks.json").write_bytes(jwks(jwk(key, "1")))
    stack = Stack(tmp_path, nats_url=servers.url, database_url=database)
    stack.settings = {"nats_url": servers.url, "database_url": database}
    try:
        pool = await stack.start_pool(
            **_settings(instances["workers"], "worker", servers, tmp_path)
        )
        # Each of its processes has one.
        ops_port = free_ports(2)
        rendered = _settings(instances["gateway"], "gateway", servers, tmp_path)
        here = {
            "gateway_host": "127.0.0.1",
            "ops_host": "127.0.0.1",
            "ops_port": ops_port,
            "jwks_url": str(tmp_path / "jwks.json"),
        }
        gateway = await stack.start_gateway(**(rendered | here))
        follower = Follower(LiveFeed(gateway.url, feeds=["home"], token=signed(key, "1")))
        await follower.caught_up(seconds=20)
        async with servers.connected("publisher") as connection:
            publisher = Publisher(connection)
            publisher.start()
            one = update("alice", priority="high")
            await publisher.publish(subjects.updates("high", "tests"), json.dumps(one).encode())
        await until(lambda: follower.ids("home") == ["p1"], seconds=30, what="the update is there")
        for process in (gateway, pool):
            assert "nats refuses" not in process.log.read_text()
        await follower.aclose()
    finally:
        await stack.aclose()


def _settings(
    instance: Instance, role: str, servers: Servers, tmp_path: Path
) -> dict[str, str | list[str]]:
    """An instance's settings and secrets; only places are changed to those of this computer."""
    own = tmp_path / f"instance-{role}"
    own.mkdir()
    secrets = environment_of((fetch_secrets(instance, own) / "secrets.env").read_text())
    rendered = {
        name.removeprefix("LIVEFEED_").lower(): text
        for name, text in (instance.environment | secrets).items()
    }
    assert rendered["nats_replicas"] == "3"
    assert rendered["nats_inbox_prefix"] == ROLES[role].inbox_prefix
    # Where they are; and the database's own name, which is that of this test.
    for name in ("database_url", "replica_urls", "nats_url", "gateway_port"):
        rendered.pop(name, None)
    return rendered | {
        "nats_nkey_seed": servers.access.secret(f"nats-{role}"),
        "nats_ca_file": str(servers.access.ca_file),
        "node_lock_file": str(own / "lock"),
    }
