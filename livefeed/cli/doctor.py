"""`livefeed doctor`: is everything well, and if not, what to do."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Coroutine
from dataclasses import asdict, replace
from typing import Any, Final

import click
import msgspec

from livefeed import broker_health, database_health, health, redis_health
from livefeed.adapters import http
from livefeed.adapters.nats import facts as nats_facts
from livefeed.adapters.nats.connection import Connection, close, connect
from livefeed.adapters.nats.lag import consumer_lag
from livefeed.adapters.nats.monitor import monitored_servers
from livefeed.adapters.nats.provision import differences
from livefeed.adapters.postgres import facts as postgres_facts
from livefeed.adapters.postgres.schema import latest_revision
from livefeed.adapters.redis_client import RedisClient
from livefeed.cli.client import reachable
from livefeed.cli.environment import command_settings, default_data_directory, read_stack
from livefeed.cli.running import run
from livefeed.errors import LivefeedError, Misconfigured, Unavailable
from livefeed.health import Check, FunctionFacts, GatewayFacts, Part, Report
from livefeed.replica_choice import server_name
from livefeed.settings import Settings
from livefeed.topology import LANE_STREAM, UPDATES, streams

CONNECT_SECONDS_MAX: Final = 2.0
CHECK_SECONDS_MAX: Final = 2.5
"""What one check may take; those that need a connection begin after it, and run side by side."""
LISTEN_SECONDS: Final = 1.2
"""A little more than workers are silent for."""
LOOKS: Final = 4
"""Times that the lag is looked at while listening."""
FUNCTIONS: Final = {"prioritize": UPDATES, "deliver": LANE_STREAM}
COLOURS: Final = {"healthy": "green", "degraded": "yellow", "unhealthy": "red"}

NATS_MEND: Final = "start NATS (`livefeed up` has one), or set LIVEFEED_NATS_URL to where it is"
JETSTREAM_MEND: Final = "see broker; in a cluster, start a majority of its servers"
PRIMARY_MEND: Final = (
    "start PostgreSQL (`livefeed up` has one), or set LIVEFEED_DATABASE_URL to where it is"
)
REDIS_MEND: Final = "start it, or set LIVEFEED_REDIS_URL to where it is, or to nothing"
REPLICA_MEND: Final = "start the replica, or remove it from LIVEFEED_REPLICA_URLS"


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def command(*, as_json: bool) -> None:
    """Look at every part and say what is wrong, why, and what to do about it; changes nothing.

    The exit code is 0 when all is healthy or some of it degraded, and 1 when something is
    unhealthy: it does not serve, or may lose updates.
    """
    settings = command_settings()
    stack = read_stack(default_data_directory())
    # A port that the environment names wins over those of the stack that `up` runs.
    named = "ops_port" in settings.model_fields_set or not stack.get("ops_ports")
    report = run(_examine(settings, [settings.ops_port] if named else stack["ops_ports"]))
    if as_json:
        checks = [asdict(check) for check in report.checks]
        click.echo(json.dumps({"state": report.state, "checks": checks}, indent=1))
    else:
        _print(report)
    sys.exit(1 if report.state == "unhealthy" else 0)


def _print(report: Report) -> None:
    part_width = max(len(check.part) for check in report.checks)
    for check in report.checks:
        state = click.style(f"{check.state:<9}", fg=COLOURS[check.state])
        click.echo(f"{state}  {check.part:<{part_width}}  {check.reason}")
        if check.mend is not None:
            click.echo(f"{'':<{9 + 2 + part_width + 2}}mend: {check.mend}")
    overall = click.style(report.state, fg=COLOURS[report.state], bold=True)
    click.echo(f"livefeed is {overall}")


async def _examine(settings: Settings, ops_ports: list[int]) -> Report:
    found = await asyncio.gather(
        _nats(settings),
        _postgres(settings, gateways=len(ops_ports)),
        _redis(settings),
        _gateways(settings, ops_ports),
    )
    return health.report_of(check for checks in found for check in checks)


async def _nats(settings: Settings) -> list[Check]:
    urls = settings.nats_monitor_url or ""
    monitored = asyncio.create_task(
        monitored_servers([url.strip() for url in urls.split(",") if url.strip()])
    )
    try:
        connection = await connect(
            settings.nats_servers,
            name="livefeed-doctor",
            access=settings.nats_access,
            seconds_max=CONNECT_SECONDS_MAX,
        )
    except (Unavailable, Misconfigured) as error:
        parts: list[Part] = ["broker", "streams", "consumers", "dead_letters", "workers"]
        durability = broker_health.durability(*await monitored, broker_id=None)
        return [*health.unavailable(parts, _told(error), NATS_MEND), durability]
    try:
        return await _all(
            JETSTREAM_MEND,
            broker=_broker(connection),
            durability=_durability(connection, monitored),
            streams=_streams(connection, settings),
            consumers=_consumers(connection, settings),
            dead_letters=_dead_letters(connection),
            workers=_workers(connection),
        )
    finally:
        await close(connection)


async def _broker(connection: Connection) -> Check:
    return broker_health.broker(await nats_facts.broker_facts(connection))


async def _durability(
    connection: Connection, monitored: asyncio.Task[tuple[list[Any], list[str]]]
) -> Check:
    servers, unreachable = await monitored
    broker_id = nats_facts.server_id(connection)
    return broker_health.durability(servers, unreachable, broker_id=broker_id)


async def _streams(connection: Connection, settings: Settings) -> Check:
    found, differing = await asyncio.gather(
        nats_facts.stream_facts(connection), _differing(connection, settings)
    )
    return broker_health.streams(found, [one for one in differing if one.name in _stream_names()])


async def _consumers(connection: Connection, settings: Settings) -> Check:
    found, differing = await asyncio.gather(
        nats_facts.consumer_facts(connection), _differing(connection, settings)
    )
    of_consumers = [one for one in differing if one.name not in _stream_names()]
    return broker_health.consumers(found, of_consumers)


async def _differing(connection: Connection, settings: Settings) -> list[broker_health.Difference]:
    return await differences(
        connection, replicas=settings.nats_replicas, bytes_max=settings.stream_bytes_max
    )


def _stream_names() -> set[str]:
    return {stream.name for stream in streams(bytes_max=0)}


async def _dead_letters(connection: Connection) -> Check:
    counts = await nats_facts.dead_letter_counts(connection)
    if counts is None:
        return health.not_checked("dead_letters", "the stream is missing", broker_health.PROVISION)
    return broker_health.dead_letters(counts)


async def _workers(connection: Connection) -> Check:
    lags: dict[str, list[int]] = {function: [] for function in FUNCTIONS}
    async with nats_facts.heard_workers(connection, FUNCTIONS) as heard:
        for look in range(LOOKS):
            if look:
                await asyncio.sleep(LISTEN_SECONDS / (LOOKS - 1))
            for function, stream in FUNCTIONS.items():
                lag = await consumer_lag(connection, stream)
                lags[function].append(sum(lag.values()))
    return health.workers(
        [
            FunctionFacts(
                function=function, workers=len(heard[function]), lags=tuple(lags[function])
            )
            for function in FUNCTIONS
        ]
    )


async def _postgres(settings: Settings, *, gateways: int) -> list[Check]:
    """The primary first: how far the replica is behind is measured against it."""
    try:
        async with asyncio.timeout(CHECK_SECONDS_MAX):
            facts = await postgres_facts.database_facts(settings.database_url, "primary")
    except (Unavailable, TimeoutError) as error:
        checks = health.unavailable(["primary", "schema", "epoch"], _told(error), PRIMARY_MEND)
        return [*checks, *await _replicas(settings, None, gateways)]
    wanted = database_health.primary_connections(
        gateways=gateways,
        worker_processes=settings.worker_processes_max,
        pool_connections=settings.database_pool_connections,
        has_replicas=bool(settings.replica_urls),
        has_source=settings.feed_source is not None,
    )
    return [
        database_health.primary(facts, connections_wanted=wanted),
        database_health.schema(facts, latest=latest_revision()),
        database_health.epoch(facts),
        *await _replicas(settings, facts, gateways),
    ]


async def _replicas(
    settings: Settings, primary: database_health.DatabaseFacts | None, gateways: int
) -> list[Check]:
    """One check for each, named where there are several."""
    if not settings.replica_urls:
        return [Check("replica", "healthy", "none is configured")]
    wanted = database_health.replica_connections(
        gateways=gateways,
        pool_connections=settings.database_pool_connections,
        has_source=settings.feed_source is not None,
    )
    checks = await asyncio.gather(
        *(
            _one("replica", _replica(url, primary, wanted), REPLICA_MEND)
            for url in settings.replica_urls
        )
    )
    if len(checks) == 1:
        return checks
    names = map(server_name, settings.replica_urls)
    return [
        replace(check, reason=f"{name}: {check.reason}")
        for name, check in zip(names, checks, strict=True)
    ]


async def _replica(
    url: str, primary: database_health.DatabaseFacts | None, connections_wanted: int
) -> Check:
    replay, facts = await asyncio.gather(
        postgres_facts.replay_facts(url, primary_position=primary.position if primary else None),
        postgres_facts.database_facts(url, "replica"),
    )
    return database_health.replica(
        facts,
        replay,
        epoch_wanted=primary.epoch if primary else None,
        connections_wanted=connections_wanted,
    )


async def _redis(settings: Settings) -> list[Check]:
    """Without it gateways share nothing, and serve."""
    if settings.redis_url is None:
        return [Check("redis", "healthy", "none is configured: gateways share pages in NATS")]
    client = RedisClient(settings.redis_url, connections_max=1)
    try:
        return [redis_health.redis(await client.facts(seconds=CHECK_SECONDS_MAX))]
    except Unavailable as error:
        return [Check("redis", "degraded", _told(error), REDIS_MEND)]
    finally:
        await client.close()


async def _gateways(settings: Settings, ports: list[int]) -> list[Check]:
    host = reachable(settings.ops_host)
    found = await asyncio.gather(*(_gateway(f"{host}:{port}") for port in ports))
    return [health.gateway(found)]


async def _gateway(address: str) -> GatewayFacts:
    try:
        answer = await http.get(f"http://{address}/readyz", seconds_max=CONNECT_SECONDS_MAX)
    except LivefeedError as error:
        reason = error.detail if isinstance(error, Unavailable) else str(error)
        return GatewayFacts(address=address, answers=False, ready=False, reason=reason)
    reason = _reason(answer)
    return GatewayFacts(address=address, answers=True, ready=not reason, reason=reason)


def _reason(answer: http.Answer) -> str:
    """Why a gateway is not ready; empty when it says that it is."""
    try:
        told = json.loads(answer.body)
        if (answer.status, told["status"]) == (200, "ready"):
            return ""
        return str(told["reason"])
    except (ValueError, KeyError, TypeError):
        return f"it answers with status {answer.status} and not as a gateway does"


async def _all(mend: str, **checks: Coroutine[Any, Any, Check]) -> list[Check]:
    """Every check side by side, each within its time; what fails is a finding, not an error."""
    return await asyncio.gather(*(_one(part, check, mend) for part, check in checks.items()))  # type: ignore[arg-type]


async def _one(part: Part, check: Coroutine[Any, Any, Check], mend: str) -> Check:
    try:
        async with asyncio.timeout(CHECK_SECONDS_MAX):
            return await check
    except (LivefeedError, TimeoutError, msgspec.DecodeError) as error:
        return Check(part, "unhealthy", _told(error), mend)


def _told(error: BaseException) -> str:
    """What an error says, without the passwords of URLs."""
    text = str(error) or f"no answer within {CHECK_SECONDS_MAX:g} s"
    return re.sub(r"//[^/@\s]*@", "//***@", text)
