"""The cache that gateways share, as tests of faults see it: how it is reached, and what befalls it.

One more kind of it is one more entry of SHARED_LEVELS.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Final, Protocol

from nats.js.errors import NotFoundError
from redis.asyncio import Redis

from livefeed.adapters.embedded import NatsServer
from livefeed.limits import KIB
from livefeed.nats_roles import CACHE_BUCKET
from tests.proxies import NatsProxy, RecordingProxy, RedisProxy
from tests.redis_server import RedisServer
from tests.servers import OwnServers, connected, until


class Server(Protocol):
    """A process that may be killed and started again."""

    pid: int

    def kill(self) -> None:
        """End it as a crash would."""
        ...

    async def start(self) -> None:
        """Start it, and return when it serves."""
        ...


class SharedLevel:
    """A shared cache.

    Args:
        server: What keeps it.
    """

    server: Server

    async def __aenter__(self) -> SharedLevel:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is left of it."""

    def proxy(self) -> RecordingProxy:
        """Something in front of it, for one gateway."""
        raise NotImplementedError

    def settings(self, port: int | None = None) -> dict[str, Any]:
        """Of a gateway that reaches it, by another port if there is a proxy."""
        raise NotImplementedError

    def full(self) -> AbstractAsyncContextManager[None]:
        """Have it take nothing new for a while."""
        raise NotImplementedError


class NatsLevel(SharedLevel):
    """A bucket of the NATS server that carries everything else too."""

    def __init__(self, servers: OwnServers) -> None:
        self.server: NatsServer = servers.nats

    def proxy(self) -> RecordingProxy:
        return NatsProxy(self.server.port, CACHE_BUCKET)

    def settings(self, port: int | None = None) -> dict[str, Any]:
        return {"nats_url": f"nats://127.0.0.1:{port or self.server.port}"}

    @asynccontextmanager
    async def full(self) -> AsyncIterator[None]:
        before = await self._bytes_max(4 * KIB)
        try:
            yield
        finally:
            await self._bytes_max(before)

    async def _bytes_max(self, wanted: int) -> int:
        """Change what the bucket may hold; returns what it might hold before."""
        async with connected(self.server.url) as connection:
            jetstream = connection.jetstream()

            async def there() -> bool:
                with suppress(NotFoundError):
                    return bool(await jetstream.stream_info(f"KV_{CACHE_BUCKET}"))
                return False

            # A server that was killed has forgotten it, and the next page that is made makes it.
            await until(there, what="the bucket is there")
            config = (await jetstream.stream_info(f"KV_{CACHE_BUCKET}")).config
            before = config.max_bytes
            await jetstream.update_stream(config.evolve(max_bytes=wanted))
            assert before is not None
            return before


class RedisLevel(SharedLevel):
    """A Redis of its own."""

    def __init__(self, servers: OwnServers) -> None:
        self.server: RedisServer = RedisServer(servers.postgres.directory.with_name("redis"))

    async def __aenter__(self) -> SharedLevel:
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.kill()

    def proxy(self) -> RecordingProxy:
        return RedisProxy(self.server.port)

    def settings(self, port: int | None = None) -> dict[str, Any]:
        return {"redis_url": f"redis://127.0.0.1:{port or self.server.port}/0"}

    @asynccontextmanager
    async def full(self) -> AsyncIterator[None]:
        async with Redis.from_url(self.server.url) as client:
            await client.config_set("maxmemory", "1")
            try:
                yield
            finally:
                await client.config_set("maxmemory", "0")


SHARED_LEVELS: Final[dict[str, Callable[[OwnServers], SharedLevel]]] = {
    "nats": NatsLevel,
    "redis": RedisLevel,
}
