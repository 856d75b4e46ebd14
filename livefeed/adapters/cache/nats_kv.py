"""A cache that all gateways share: a key-value bucket of JetStream, in the servers' memory.

The bucket is an ordinary one of NATS. Its keys are hashes: no text of a user is in a subject.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from livefeed.adapters.cache.bytes_cache import BytesCache, hashed, is_there
from livefeed.adapters.nats.connection import Connection
from livefeed.adapters.nats.jetstream_api import Answer, Fault
from livefeed.adapters.nats.questions import Questions, Reply
from livefeed.adapters.patience import patient_timeout
from livefeed.cache import SHARED_LIFE_SECONDS_MAX
from livefeed.errors import Unavailable
from livefeed.limits import (
    CACHE_GET_SECONDS_MAX,
    CACHE_SET_SECONDS_MAX,
    CACHE_SHARED_BYTES_MAX,
    CACHE_SHARED_VALUE_BYTES_MAX,
    KIB,
)
from livefeed.nats_roles import CACHE_BUCKET

BUCKET_SECONDS_MAX: Final = 5.0
"""How long making or mending the bucket may take; nobody waits for it for so long."""
HEADERS_BYTES_MAX: Final = 1 * KIB
REFUSED_CODES: Final = frozenset({10077, 10074, 10047, 10028, 10054})
"""The stream, the storage, the disk or the memory is full; the message is too large."""
EXISTS_CODES: Final = frozenset({10071, 10164})
"""The key has a value."""
DIFFERS_CODE: Final = 10058
"""There is such a stream, defined otherwise."""
KEPT_FIELDS: Final = frozenset({"storage", "max_msgs_per_subject"})
"""Of a bucket that is there: the one cannot be changed, the other would drop older values."""
NANOSECONDS: Final = 1_000_000_000

logger = logging.getLogger(__name__)


class _Config(Answer):
    config: dict[str, Any] = msgspec.field(default_factory=dict)


class _Purged(Answer):
    purged: int = 0


class NatsKvCache(BytesCache):
    """Keeps bytes in a bucket, which is made or mended on first use and again when it is gone.

    From a full bucket what was put there first goes first. Every call raises Unavailable when NATS
    does not answer in time. A write that is refused, because the value is too large or the server
    has no memory left, returns False and is counted: whatever was there for its key may still be.

    Args:
        connection: NATS.
        bucket: Its name.
        bytes_max: Most bytes of the bucket.
        replicas: In how many servers' memory it is.
    """

    NAME = "nats_kv"

    def __init__(
        self,
        connection: Connection,
        *,
        bucket: str = CACHE_BUCKET,
        bytes_max: int = CACHE_SHARED_BYTES_MAX,
        replicas: int = 1,
    ) -> None:
        super().__init__()
        self._connection = connection
        self._questions = Questions(connection)
        self._stream = f"KV_{bucket}"
        self._prefix = f"$KV.{bucket}."
        self._wanted = _definition(bucket, bytes_max, replicas)
        self._ready = False
        self._making: asyncio.Task[None] | None = None
        self.refused = 0
        """Writes that the bucket did not take."""

    async def _get(self, key: str, encoding: Any = None, _conn: Any = None) -> bytes | None:
        async with _bounded(CACHE_GET_SECONDS_MAX):
            await self._made()
            subject = f"$JS.API.DIRECT.GET.{self._stream}.{self._subject(key)}"
            reply = await self._ask(subject, b"", CACHE_GET_SECONDS_MAX)
        if reply.status == "404":
            return None
        if reply.status:
            raise Unavailable("nats", f"{self._stream} cannot be read ({reply.status})")
        if b"KV-Operation" in reply.headers or b"Nats-Marker" in reply.headers:
            # What other clients of the bucket leave in the place of a value that they deleted.
            return None
        return reply.payload

    async def _set(
        self,
        key: str,
        value: bytes,
        ttl: float | None = None,
        _cas_token: Any = None,
        _conn: Any = None,
    ) -> bool:
        fault = await self._put(key, value, ttl, {})
        return fault is None

    async def _add(
        self, key: str, value: bytes, ttl: float | None = None, _conn: Any = None
    ) -> bool:
        fault = await self._put(key, value, ttl, {"Nats-Expected-Last-Subject-Sequence": "0"})
        if fault is not None and fault.err_code in EXISTS_CODES:
            raise is_there(key)
        return fault is None

    async def _exists(self, key: str, _conn: Any = None) -> bool:
        return await self._get(key) is not None

    async def _delete(self, key: str, _conn: Any = None) -> int:
        return await self._purge({"filter": self._subject(key)})

    async def _clear(self, namespace: str | None = None, _conn: Any = None) -> bool:
        if namespace is not None:
            raise NotImplementedError("this cache has no namespaces: its keys are hashes")
        await self._purge({})
        return True

    async def _close(self, *_arguments: Any, _conn: Any = None, **_options: Any) -> None:
        if self._making is not None:
            self._making.cancel()
            await asyncio.gather(self._making, return_exceptions=True)

    def _subject(self, key: str) -> str:
        return self._prefix + hashed(key)

    async def _put(
        self, key: str, value: bytes, ttl: float | None, headers: dict[str, str]
    ) -> Fault | None:
        """Store a value; the fault is what the bucket says against it."""
        # What is larger than the server takes would cost the process its connection.
        bytes_max = min(CACHE_SHARED_VALUE_BYTES_MAX, self._connection.max_payload)
        if len(value) > bytes_max - HEADERS_BYTES_MAX:
            self.refused += 1
            return Fault(description="the value is too large")
        async with _bounded(CACHE_SET_SECONDS_MAX):
            await self._made()
            reply = await self._ask(
                self._subject(key), value, CACHE_SET_SECONDS_MAX, headers | _expiry(ttl)
            )
        fault = msgspec.json.decode(reply.payload, type=Answer).error
        if fault is not None and fault.err_code not in REFUSED_CODES | EXISTS_CODES:
            raise Unavailable("nats", f"{self._stream}: {fault.description}")
        self.refused += fault is not None and fault.err_code in REFUSED_CODES
        return fault

    async def _purge(self, wanted: dict[str, str]) -> int:
        async with _bounded(CACHE_SET_SECONDS_MAX):
            await self._made()
            subject, question = f"STREAM.PURGE.{self._stream}", msgspec.json.encode(wanted)
            reply = await self._ask(f"$JS.API.{subject}", question, CACHE_SET_SECONDS_MAX)
        answer = msgspec.json.decode(reply.payload, type=_Purged)
        if answer.error is not None:
            raise Unavailable("nats", f"{subject}: {answer.error.description}")
        return answer.purged

    async def _ask(
        self, subject: str, payload: bytes, seconds: float, headers: dict[str, str] | None = None
    ) -> Reply:
        reply = await self._questions.ask(subject, payload, seconds=seconds, headers=headers)
        if reply.status == "503":
            # Nobody answers for the stream: a server that was started again forgot what was in its
            # memory, the bucket too.
            self._ready = False
            raise Unavailable("nats", f"there is no stream {self._stream}, or it has no leader")
        return reply

    async def _made(self) -> None:
        """Wait for the bucket; making it goes on when the caller has no more time."""
        if self._ready:
            return
        if self._making is None or self._making.done():
            self._making = asyncio.create_task(self._make(), name="cache-bucket")
            self._making.add_done_callback(_seen)
        await asyncio.shield(self._making)

    async def _make(self) -> None:
        made = await self._api("STREAM.CREATE", self._wanted)
        if made.error is not None and made.error.err_code == DIFFERS_CODE:
            made = await self._mend()
        if made.error is not None:
            detail = f"{self._stream}: {made.error.description}"
            logger.warning("the shared cache cannot be used: %s", detail)
            raise Unavailable("nats", detail)
        self._ready = True

    async def _mend(self) -> _Config:
        """Make the bucket that is there as it is wanted, but for what would lose its values."""
        actual = await self._api("STREAM.INFO", {})
        if actual.error is not None:
            return actual
        wanted = {name: value for name, value in self._wanted.items() if name not in KEPT_FIELDS}
        return await self._api("STREAM.UPDATE", actual.config | wanted)

    async def _api(self, name: str, wanted: dict[str, Any]) -> _Config:
        subject, question = f"$JS.API.{name}.{self._stream}", msgspec.json.encode(wanted)
        reply = await self._questions.ask(subject, question, seconds=BUCKET_SECONDS_MAX)
        if reply.status:
            raise Unavailable("nats", f"{name}: JetStream does not answer ({reply.status})")
        return msgspec.json.decode(reply.payload, type=_Config)


def _definition(bucket: str, bytes_max: int, replicas: int) -> dict[str, Any]:
    """The stream of a bucket, as NATS clients define it but for what it does when it is full."""
    return {
        "name": f"KV_{bucket}",
        "subjects": [f"$KV.{bucket}.>"],
        "retention": "limits",
        "storage": "memory",
        # Not "new", as NATS clients have it for a store: a cache that is full takes what is asked
        # for now, and lets go of the oldest.
        "discard": "old",
        "max_msgs_per_subject": 1,
        "max_bytes": bytes_max,
        # Each value has its own time; this is for those of others.
        "max_age": SHARED_LIFE_SECONDS_MAX * NANOSECONDS,
        "max_msg_size": CACHE_SHARED_VALUE_BYTES_MAX,
        "num_replicas": replicas,
        "allow_direct": True,
        "allow_msg_ttl": True,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
    }


def _expiry(ttl: float | None) -> dict[str, str]:
    """A header for a value's own time: whole seconds, at least one; the bucket bounds it anyway."""
    if ttl is None or ttl >= SHARED_LIFE_SECONDS_MAX:
        return {}
    return {"Nats-TTL": f"{max(1, math.ceil(ttl))}s"}


@asynccontextmanager
async def _bounded(seconds: float) -> AsyncIterator[None]:
    try:
        async with patient_timeout(seconds):
            yield
    except TimeoutError as error:
        raise Unavailable("nats", f"no answer within {seconds:g} s") from error


def _seen(task: asyncio.Task[None]) -> None:
    # Whoever asks next tries again; nobody may be waiting for this one any more.
    if not task.cancelled():
        task.exception()
