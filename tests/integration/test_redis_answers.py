"""What a real Redis may answer beside values, who may connect to it, and levels without it."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from livefeed.adapters.cache.levels import Level, Levels
from livefeed.adapters.cache.memory import BoundedMemoryCache
from livefeed.adapters.cache.redis_cache import RedisCache
from livefeed.adapters.redis_client import RedisClient
from livefeed.breaker import Breaker
from livefeed.errors import Unavailable
from livefeed.limits import KIB, MIB
from livefeed.redis_url import check_redis_url
from tests.redis_server import RedisServer
from tests.servers import server_port, until

PASSWORD = "p/w:d@#%1"
QUOTED = "p%2Fw%3Ad%40%23%251"
RECOVERY_SECONDS_MAX = 5.0
"""After a cache is back it is used within this time."""

pytestmark = pytest.mark.usefixtures("patient")

Start = Callable[..., Awaitable[RedisServer]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts servers with arguments of their own."""
    servers: list[RedisServer] = []

    async def one(*arguments: str) -> RedisServer:
        servers.append(RedisServer(tmp_path / f"redis-{len(servers)}", *arguments))
        await servers[-1].start()
        return servers[-1]

    yield one
    for server in servers:
        server.kill()


@asynccontextmanager
async def cache_on(url: str) -> AsyncIterator[RedisCache]:
    """A cache for a while, on a URL that the settings take."""
    check_redis_url(url)
    cache = RedisCache(RedisClient(url))
    try:
        yield cache
    finally:
        await cache.close()


async def refusal(cache: RedisCache) -> str:
    """Why a write and a read fail."""
    with pytest.raises(Unavailable) as written:
        await cache.set("key", b"value")
    with pytest.raises(Unavailable) as read:
        await cache.get("key")
    return f"{written.value}; {read.value}"


# Full.


async def test_a_full_server_is_well_and_is_counted(start: Start) -> None:
    """Without eviction it refuses; reads go on, and no breaker opens."""
    server = await start("--maxmemory", "3mb", "--maxmemory-policy", "noeviction")
    async with cache_on(server.url) as cache:
        breaker, memory = Breaker(), BoundedMemoryCache()
        levels = levels_on(cache, breaker, memory)

        async def load() -> bytes:
            return bytes(100 * KIB)

        for number in range(50):
            found = await levels.get(str(number), load, deadline_seconds=5.0)
            assert found.level == "loaded"
        await until(lambda: not levels._tasks, what="all is written")
        assert 20 <= cache.refused <= 49
        assert levels.counts["shared", "refused"] == cache.refused
        assert levels.counts["shared", "error"] == 0
        assert breaker.state == "closed"
        memory.shrink(0.0)
        assert (await levels.get("0", load, deadline_seconds=5.0)).level == "shared"
        await levels.close()


async def test_a_full_server_that_evicts_takes_what_is_new(start: Start) -> None:
    """With the policy that the page recommends."""
    server = await start("--maxmemory", "6mb", "--maxmemory-policy", "allkeys-lru")
    async with cache_on(server.url) as cache:
        for number in range(200):
            assert await cache.set(str(number), bytes(100 * KIB))
        assert await cache.get("199") == bytes(100 * KIB)
        facts = await cache._client.facts(seconds=2.0)
        assert cache.refused == 0
        assert (facts.policy, facts.bytes_max) == ("allkeys-lru", 6 * MIB)
        assert facts.evicted > 100


# Answers that are failures.


async def test_a_replica_is_a_failure(redis_server: RedisServer) -> None:
    """READONLY for a write; MASTERDOWN for a read, where it may not answer from an old state."""
    async with cache_on(redis_server.url) as cache, redis_server.client() as redis:
        await cache.set("key", b"value")
        await redis.replicaof("127.0.0.1", server_port())
        with pytest.raises(Unavailable, match="read only replica"):
            await cache.set("key", b"other")
        assert await cache.get("key") == b"value"
        assert (await cache._client.facts(seconds=2.0)).is_replica
        await redis.config_set("replica-serve-stale-data", "no")
        assert "MASTER is down" in await refusal(cache)
        await redis.replicaof("NO", "ONE")  # type: ignore[arg-type]
        assert await cache.set("key", b"other")
        assert cache.refused == 0


async def test_a_cluster_that_is_down_is_a_failure(start: Start) -> None:
    """CLUSTERDOWN: nobody serves the keys."""
    server = await start("--cluster-enabled", "yes")
    async with cache_on(server.url) as cache:
        assert (await refusal(cache)).count("not served") == 2


async def test_a_server_that_reads_its_data_is_a_failure(redis_server: RedisServer) -> None:
    """LOADING, and then it is used again."""
    async with cache_on(redis_server.url) as cache:
        value = random.Random(1).randbytes(500)
        for number in range(20):
            await cache.set(str(number), value, ttl=600.0)
        async with redis_server.client() as redis:
            await redis.save()
        redis_server.kill()
        # Each key takes 50 ms; after two of them it looks who is there.
        slowly = ["--key-load-delay", "50000", "--loading-process-events-interval-bytes", "1024"]
        await redis_server.start(*slowly)
        said: set[str] = set()

        async def read() -> bool:
            try:
                return await cache.get("1") == value
            except Unavailable as error:
                said.add(error.detail)
                return False

        await until(read, seconds=20, what="it has read its data")
        assert "Redis is loading the dataset in memory" in said


async def test_something_else_that_listens_is_a_failure(
    nats: str, redis_server: RedisServer
) -> None:
    """Another server, another protocol: said within the time of a call."""
    port = nats.rpartition(":")[2]
    async with cache_on(f"redis://127.0.0.1:{port}") as cache:
        await refusal(cache)
    async with cache_on(f"rediss://127.0.0.1:{redis_server.port}") as cache:
        await refusal(cache)
    async with cache_on(f"redis://127.0.0.1:{server_port()}") as cache:
        assert (await refusal(cache)).count("Connect") == 2


async def test_a_database_that_is_not_there_is_a_failure(redis_server: RedisServer) -> None:
    """By its number; one that is there is used."""
    url = redis_server.url.removesuffix("/0")
    async with cache_on(f"{url}/99") as cache:
        assert "DB index" in await refusal(cache)
    async with cache_on(f"{url}/3") as cache, redis_server.client(db=3) as redis:
        assert await cache.set("key", b"value")
        assert await redis.dbsize() == 1


# Who may connect.


async def test_a_password_is_given_and_not_told(start: Start) -> None:
    """Any characters, percent-encoded; a wrong one, or none, is said without it."""
    server = await start("--requirepass", PASSWORD)
    host = f"127.0.0.1:{server.port}/0"
    async with cache_on(f"redis://:{QUOTED}@{host}") as cache:
        assert await cache.set("key", b"value")
        assert await cache.get("key") == b"value"
    async with cache_on(f"redis://:hush{QUOTED}@{host}") as cache:
        told = await refusal(cache)
        assert told.count("does not take the user and password of its URL") == 2
        assert "hush" not in told
        assert PASSWORD not in told
    async with cache_on(f"redis://{host}") as cache:
        assert "does not take the user and password of its URL" in await refusal(cache)


async def test_a_user_of_few_rights_is_enough(start: Start) -> None:
    """The rights that the page names; what a gateway does, without those of an administrator."""
    server = await start(
        "--user", "default", "off", "--user", "livefeed", "on", ">hush", "~livefeed:feed:*",
        "+get", "+set", "+select",
    )  # fmt: skip
    async with cache_on(f"redis://livefeed:hush@127.0.0.1:{server.port}/1") as cache:
        assert await cache.set("key", b"value", ttl=60.0)
        assert await cache.get("key") == b"value"
        with pytest.raises(Unavailable, match="permissions"):
            await cache._client.facts(seconds=2.0)
    async with cache_on(f"redis://livefeed:wrong@127.0.0.1:{server.port}/1") as cache:
        assert "does not take the user" in await refusal(cache)


async def test_tls_is_spoken_and_checked(start: Start, tmp_path: Path) -> None:
    """With the certificate's authority it serves; without, the reason is said."""
    authority = certificates(tmp_path)
    server = await tls_server(start, tmp_path, asks="no")
    url = f"rediss://127.0.0.1:{server.port}/0"
    async with cache_on(f"{url}?ssl_ca_certs={authority}") as cache:
        assert await answered(cache, b"over TLS")
    async with cache_on(url) as cache:
        assert "CERTIFICATE_VERIFY_FAILED" in await refusal(cache)
    async with cache_on(f"rediss://localhost:{server.port}/0?ssl_ca_certs={authority}") as cache:
        assert "CERTIFICATE_VERIFY_FAILED" in await refusal(cache), "it is of 127.0.0.1 alone"
    async with cache_on(f"redis://127.0.0.1:{server.port}") as cache:
        await refusal(cache)


async def test_a_certificate_of_our_own_is_shown(start: Start, tmp_path: Path) -> None:
    """To a server that asks for one; without it, it says why."""
    authority = certificates(tmp_path)
    server = await tls_server(start, tmp_path, asks="yes")
    url = f"rediss://127.0.0.1:{server.port}/0?ssl_ca_certs={authority}"
    mine = f"ssl_certfile={tmp_path}/cert.pem&ssl_keyfile={tmp_path}/key.pem"
    async with cache_on(f"{url}&{mine}") as cache:
        assert await answered(cache, b"as somebody")
    async with cache_on(url) as cache:
        await refusal(cache)


async def tls_server(start: Start, directory: Path, *, asks: str) -> RedisServer:
    """A server with the certificate of a directory; whether it asks for the clients' is said."""
    server = await start()
    server.kill()
    server.arguments = ["--port", "0", "--tls-port", str(server.port), "--tls-auth-clients", asks]
    for name in ("cert", "key", "ca-cert"):
        server.arguments += [f"--tls-{name}-file", str(directory / f"{name}.pem")]
    await server.start()
    return server


async def answered(cache: RedisCache, value: bytes) -> bool:
    """Whether a value comes back."""
    return await cache.set("key", value) and await cache.get("key") == value


async def test_a_socket_of_this_computer(start: Start, tmp_path: Path) -> None:
    """`unix://`, with the number of a database behind it."""
    path = tmp_path / "redis.sock"
    server = await start("--unixsocket", str(path))
    async with cache_on(f"unix://{path}?db=2") as cache, server.client(db=2) as redis:
        assert await cache.set("key", b"value")
        assert await redis.dbsize() == 1


def certificates(directory: Path) -> Path:
    """Make an authority, and a server's certificate for 127.0.0.1; returns the authority's."""
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("ca", "server")
    ]
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    for number, file in enumerate(("ca-cert.pem", "cert.pem")):
        certificate = (
            x509.CertificateBuilder()
            .subject_name(names[number])
            .issuer_name(names[0])
            .public_key(keys[number].public_key())
            .serial_number(number + 1)
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=number == 0, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .sign(keys[0], hashes.SHA256())
        )
        (directory / file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key = keys[1].private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (directory / "key.pem").write_bytes(key)
    return directory / "ca-cert.pem"


# Levels.


class Watched(RedisCache):
    """Counts how many probes are on their way at once."""

    def __init__(self, client: RedisClient, breaker: Breaker) -> None:
        super().__init__(client)
        self.breaker = breaker
        self.probing = self.probing_most = self.probes = self.calls = 0

    async def _get(self, *arguments: Any, **options: Any) -> bytes | None:
        with self._counted():
            return await super()._get(*arguments, **options)

    async def _set(self, *arguments: Any, **options: Any) -> bool:
        with self._counted():
            return await super()._set(*arguments, **options)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        is_probe = self.breaker.state == "half_open"
        assert self.breaker.state != "open"
        self.calls += 1
        self.probes += is_probe
        self.probing += is_probe
        self.probing_most = max(self.probing_most, self.probing)
        try:
            yield
        finally:
            self.probing -= is_probe


def levels_on(cache: RedisCache, breaker: Breaker, memory: BoundedMemoryCache) -> Levels:
    """A gateway's levels on real clocks."""
    return Levels(
        [
            Level("memory", memory, 60.0, 3600.0, Breaker()),
            Level("shared", cache, 300.0, 3600.0, breaker),
        ],
        wall=time.time,
        clock=time.monotonic,
        chance=random.random,
        loads_max=64,
    )


@pytest.mark.parametrize("fault", ["hangs", "is away"])
async def test_levels_do_without_redis_and_take_it_back(
    redis_server: RedisServer, fault: str
) -> None:
    """Under load: reads go on, the breaker opens and spares them the wait; one probe at a time
    finds out when Redis is back, within 5 s, and what is made then is shared again."""
    breaker = Breaker()
    cache = Watched(RedisClient(redis_server.url), breaker)
    levels = levels_on(cache, breaker, BoundedMemoryCache())
    numbers, slowest = itertools.count(), 0.0

    async def load() -> bytes:
        return b"value"

    async def ask(times: int = 20) -> None:
        nonlocal slowest
        began = time.monotonic()
        keys = [f"key {next(numbers)}" for _ in range(times)]
        found = await asyncio.gather(*(levels.get(key, load, deadline_seconds=2.0) for key in keys))
        assert {one.value for one in found} == {b"value"}
        slowest = max(slowest, time.monotonic() - began)

    async def asked_until(state: str) -> bool:
        await ask()
        return breaker.state == state

    await ask()
    assert breaker.state == "closed"
    if fault == "hangs":
        redis_server.freeze()
    else:
        redis_server.kill()
    await until(lambda: asked_until("open"), what="the breaker opens")
    ends_at = time.monotonic() + 2.0
    calls, probes = cache.calls, cache.probes
    while time.monotonic() < ends_at:
        await ask()
        await asyncio.sleep(0.01)
    assert 1 <= cache.probes - probes <= 10, "seldom"
    assert cache.calls - calls == cache.probes - probes
    if fault == "hangs":
        redis_server.thaw()
    else:
        await redis_server.start()
    back_at = time.monotonic()
    await until(
        lambda: asked_until("closed"), seconds=RECOVERY_SECONDS_MAX, what="the breaker closes"
    )
    print(f"back after {time.monotonic() - back_at:.2f} s, slowest {slowest * 1e3:.0f} ms")
    assert cache.probing_most == 1
    await ask(1)
    await until(lambda: not levels._tasks, what="all is written")
    assert await cache.get(f"key {next(numbers) - 1}") is not None
    await levels.close()
